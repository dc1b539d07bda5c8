// Runs every test with node's own runner: unit tests beside the sources, end-to-end tests in test/, and those once more on
// each of the other engines (EDGEPROXY_TEST_ENGINE=epoll npm test: on that one alone).
// Arguments select files by substring (`npm test -- select client-table`), flags go to the runner.

import { spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What does not depend on the engine, or chooses it itself. */
const ONCE =
  /(mesh\/[\w-]+|access-cli|admin-\w+|allocation|cli|cost|dashboard|doctor|engines|faults-table|geography|health|operating|package|privileges|process|routing-faults|service|simulation|takeover-terms|tidy|top|units)\.test\.ts$/;
/** Most tests wait more than they compute, for timeouts and for processes. */
const CONCURRENCY = 3;
/** First, so that none of them runs on alone at the end. */
const SLOW = /(allocation|attacks|cli|dashboard|drain|health|mesh\/[\w-]+|partition)\.test\.ts$/;
const OTHER_ENGINES = process.env.EDGEPROXY_TEST_ENGINE ? [] : ['epoll', 'portable'];

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith('-'));

/** The hundreds of proxies and runners started here load the same modules: compiled once, that is half of their start. */
const compileCache = mkdtempSync(join(tmpdir(), 'edgeproxy-compile-cache-'));

function filesOf(...patterns: string[]): string[] {
  return globSync(patterns)
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
    .sort((a, b) => Number(SLOW.test(b)) - Number(SLOW.test(a)) || (a < b ? -1 : 1));
}

function run(files: readonly string[], env: Readonly<Record<string, string>>): number {
  const result = spawnSync(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      '--test',
      `--test-concurrency=${CONCURRENCY}`,
      ...flags,
      ...files,
    ],
    { stdio: 'inherit', env: { ...process.env, NODE_COMPILE_CACHE: compileCache, ...env } },
  );
  return result.status ?? 1;
}

const endToEnd = filesOf('test/**/*.test.ts');
const unit = filesOf('src/**/*.test.ts', 'tools/**/*.test.ts', 'bench/**/*.test.ts');
if (endToEnd.length + unit.length === 0) {
  process.stderr.write(`No test file matches ${wanted.join(', ')}\n`);
  process.exit(2);
}

let failed = 0;
const perEngine = endToEnd.filter((file) => !ONCE.test(file));
for (const engine of perEngine.length > 0 ? OTHER_ENGINES : []) {
  process.stdout.write(`\nEnd-to-end tests on engine ${engine}\n`);
  failed |= run(perEngine, { EDGEPROXY_TEST_ENGINE: engine });
}
process.stdout.write('\nAll tests, on the engine that auto chooses\n');
failed |= run([...endToEnd, ...unit], {});
rmSync(compileCache, { recursive: true, force: true });
process.exit(failed === 0 ? 0 : 1);
