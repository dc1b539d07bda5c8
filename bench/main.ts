// `npm run bench`: edgeproxy beside HAProxy, nginx and node:net on this machine, and a report of it (docs/benchmarks.md).
// Proxies stay on CPU 0, the load elsewhere, and one proxy is loaded at a time. Installs nothing; says what is missing.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LoadRun } from '../src/testing/load-run.ts';
import { type Bench, note, say } from './bench.ts';
import { describeMachine, missingParts } from './machine.ts';
import { type Options, readOptions, USAGE } from './options.ts';
import { resultTables } from './reporting/tables.ts';
import { writeReport } from './reporting/write.ts';
import type { Results } from './samples.ts';

const REPORT = fileURLToPath(new URL('report', import.meta.url));
/** Figures of a quick run are not to be quoted, so they stay out of the repository. */
const QUICK_REPORT = fileURLToPath(new URL('../.cache/bench-quick', import.meta.url));
const RESULTS = 'results.json';
const BUILD = fileURLToPath(new URL('../tools/build.ts', import.meta.url));

function fail(message: string, code = 2): never {
  process.stderr.write(`${message}\n`);
  process.exit(code);
}

function optionsOrEnd(): Options {
  let options: Options | string | null;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    options = (error as Error).message;
  }
  if (options === null) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  return typeof options === 'string' ? fail(`${options}\n${USAGE}`) : options;
}

function placementNote(bench: Bench): void {
  const { cpus, placement } = bench.machine;
  const [proxy, client, backend] = placement;
  if (client !== backend) return;
  note(
    bench,
    `${cpus} CPUs: the proxy has CPU ${proxy} to itself, load client and backend share CPU ${client}. That core is often busy before the proxy's: ` +
      'rates are then those of the load, and CPU per operation is what tells proxies apart',
  );
}

/** What users run is the built package; without it the launcher runs the sources, which start several times slower. */
function buildPackage(bench: Bench): void {
  const { status } = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', BUILD]);
  if (status !== 0) note(bench, 'The package cannot be built: edgeproxy ran from its sources');
}

async function measure(options: Options): Promise<Results> {
  const startedAt = new Date();
  const machine = describeMachine();
  const [, clientCpu, backendCpu] = machine.placement;
  // This process too stays off the proxy's core.
  spawnSync('taskset', ['-acp', String(clientCpu), String(process.pid)]);
  const { descriptors } = machine;
  const run = await LoadRun.start({ cpu: clientCpu, backendCpu, descriptors });
  const bench: Bench = { run, machine, plan: options.plan, samples: [], notes: [] };
  placementNote(bench);
  buildPackage(bench);
  try {
    for (const workload of options.workloads) {
      say(`${new Date().toISOString().slice(11, 19)} ${workload.name}`);
      await workload.measure(bench);
    }
  } finally {
    run.close();
  }
  const seconds = Math.round((Date.now() - startedAt.getTime()) / 1000);
  const { samples, notes } = bench;
  const { quick, rounds } = options.plan;
  return { machine, quick, rounds, startedAt: startedAt.toISOString(), seconds, notes, samples };
}

const options = optionsOrEnd();
const directory = options.out ?? (options.plan.quick ? QUICK_REPORT : REPORT);
if (options.reportOnly) {
  const results = JSON.parse(readFileSync(join(directory, RESULTS), 'utf8')) as Results;
  writeReport(results, directory, directory === REPORT);
  process.exit(0);
}
const missing = missingParts();
if (missing.length > 0) fail(`The benchmark needs:\n  ${missing.join('\n  ')}`);
setTimeout(
  () => fail(`Not done after ${options.limitSeconds} s: this machine is too busy`, 1),
  options.limitSeconds * 1000,
).unref();
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
const results = await measure(options);
process.stdout.write(`${resultTables(results)}\n`);
if (!options.partial || options.out !== null) {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, RESULTS), `${JSON.stringify(results, null, 1)}\n`);
  writeReport(results, directory, directory === REPORT);
  say(`The report is ${join(directory, 'README.md')}`);
}
