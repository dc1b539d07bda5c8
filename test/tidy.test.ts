// Reads the repository and holds it to its own rules (src/testing/tidy.ts), each of which is shown here to be able to fail.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { SETTINGS } from '../src/config.ts';
import {
  environmentNames,
  fileProblems,
  type SourceFile,
  unusedExports,
} from '../src/testing/tidy.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Environment variables that are no settings: where settings are, and two switches of the tests. */
const NO_SETTINGS = [
  'EDGEPROXY_CONFIG',
  'EDGEPROXY_FAULT_INJECTION',
  'EDGEPROXY_TEST_REQUIRE_ALL',
  'EDGEPROXY_TEST_ENGINE',
];

function read(patterns: readonly string[]): SourceFile[] {
  return globSync(patterns, { cwd: ROOT }).map((path) => ({
    path,
    text: readFileSync(`${ROOT}/${path}`, 'utf8'),
  }));
}

const sources = read(['{src,test,tools,bench}/**/*.ts']);
const documents = read(['*.md', 'docs/**/*.md', 'bin/*', '.ci/*', 'package.json']);

test('tidy: the repository keeps its rules', () => {
  assert.ok(sources.length > 100, 'the sources were found');
  assert.ok(documents.length > 2, 'the documents were found');
  assert.deepEqual([...sources, ...documents].flatMap(fileProblems), []);
});

test('tidy: every export of the production code is used by another file', () => {
  assert.deepEqual(unusedExports(sources), []);
});

test('tidy: every EDGEPROXY_ name in documents and sources is a setting', () => {
  const known = new Set([...Object.values(SETTINGS).map(({ env }) => env), ...NO_SETTINGS]);
  const production = sources.filter(
    ({ path }) => path.startsWith('src/') && !/\.test\.ts$/.test(path),
  );
  const unknown = [...documents, ...production].flatMap(({ path, text }) =>
    environmentNames(text)
      .filter((name) => !known.has(name))
      .map((name) => `${path}: ${name}`),
  );
  assert.deepEqual(unknown, []);
});

/** What the rules say about a file with this text below its header. */
function problemsOf(path: string, text: string): string {
  return fileProblems({ path, text: `// Owns nothing.\n${text}\n` }).join('\n');
}

const WRONG: readonly (readonly [path: string, text: string, said: RegExp])[] = [
  ['src/base/a.ts', "import { x } from '../sys/native.ts';", /base must not import src\/sys/],
  ['src/sys/a.ts', "import { x } from '../engine/proactor.ts';", /sys must not import src\/engine/],
  ['src/route/a.ts', "import { x } from '../sys/native.ts';", /route must not import src\/sys/],
  ['src/route/a.ts', "import { readFileSync } from 'node:fs';", /route is pure/],
  [
    'src/proxy/a.ts',
    "import {\n  x,\n} from '../control/publish.ts';",
    /:4: proxy must not import/,
  ],
  ['src/proxy/a.ts', "export { x } from '../control/publish.ts';", /proxy must not import/],
  ['src/proxy/a.ts', "const x = await import('../control/admin.ts');", /proxy must not import/],
  ['src/proxy/a.ts', "new Worker(new URL('../cli/run.ts', import.meta.url));", /must not import/],
  ['src/proxy/a.ts', "import { loadConfig } from '../config.ts';", /proxy must not import/],
  [
    'src/cli/a.ts',
    "import { x } from '../testing/wait.ts';",
    /production code imports src\/testing/,
  ],
  ['src/engine/a.ts', "import { dlopen } from 'node:ffi';", /imports node:ffi/],
  ['src/engine/a.ts', "process.getBuiltinModule('node:ffi')", /imports node:ffi/],
  ['src/control/a.ts', "import { DatabaseSync } from 'node:sqlite';", /imports node:sqlite/],
  ['src/base/a.ts', 'export default 1;', /a default export/],
  ['src/base/a.ts', 'const a: any = 1;', /the type any/],
  ['src/base/a.ts', 'const a = b as any;', /the type any/],
  ['src/base/a.ts', 'let a: Map<string, any>;', /the type any/],
  ['src/base/a.ts', `// ${'TO'}DO: later`, /unfinished work/],
  ['docs/a.md', `${'FIX'}ME`, /unfinished work/],
  ['docs/a.md', `see registry${'.npm'}js.org`, /registry/],
  ['README.md', `run \`/${'home'}/me/edgeproxy\``, /path of one machine/],
  ['src/base/a.ts', `// ${'word '.repeat(30)}`, /a comment of \d+ columns/],
  ['src/base/a.ts', `const a = ${'1 + '.repeat(30)}1;`, /columns, at most 100/],
  ['src/base/a.ts', 'a;\n'.repeat(500), /502 lines, at most 500/],
  ['src/base/a.ts', `function a(): void {\n${'  b();\n'.repeat(69)}}`, /a function of 71 lines/],
  ['src/base/a.ts', `class A {\n  a(b: c): d {\n${'    b();\n'.repeat(69)}  }\n}`, /of 71 lines/],
  ['src/base/a.ts', `const a = () => {\n${'  b();\n'.repeat(69)}};`, /a function of 71 lines/],
  [
    'src/base/a.ts',
    `export async function a(\n  b: c,\n): Promise<void> {\n${'  b();\n'.repeat(67)}}`,
    /:2: a function of 71 lines/,
  ],
  ['test/a.test.ts', `test('a', () => {\n${'  b();\n'.repeat(69)}});`, /a function of 71 lines/],
];

for (const [path, text, said] of WRONG) {
  test(`tidy: finds ${said} in ${path}: ${JSON.stringify(text.slice(0, 50))}`, () => {
    assert.match(problemsOf(path, text), said);
  });
}

test('tidy: a file without a header is found', () => {
  const problems = fileProblems({ path: 'src/base/a.ts', text: 'export const a = 1;\n' });
  assert.match(problems.join(), /no comment that says what the file owns/);
});

const RIGHT: readonly (readonly [path: string, text: string])[] = [
  ['src/base/a.ts', "import { BACKENDS_MAX } from '../limits.ts';"],
  ['src/proxy/a.ts', "import { a } from '../route/select.ts';\nimport { b } from './b.ts';"],
  ['src/control/a.ts', "import { a } from '../proxy/stats.ts';\nimport { c } from '../config.ts';"],
  ['src/sys/native.ts', "import { dlopen } from 'node:ffi';"],
  ['src/route/select.test.ts', "import { a } from '../testing/wait.ts';\nimport 'node:fs';"],
  ['src/base/a.ts', '// any word, company or many: any\nconst company: string = "as any";'],
  ['src/base/a.ts', `function a(): void {\n${'  b();\n'.repeat(68)}}`],
  ['src/base/a.ts', `if (a) {\n${'  b();\n'.repeat(100)}}`],
  ['src/base/a.ts', `const a = '${'a long text '.repeat(20)}';`],
];

for (const [path, text] of RIGHT) {
  test(`tidy: has nothing against ${path}: ${JSON.stringify(text.slice(0, 50))}`, () => {
    assert.equal(problemsOf(path, text), '');
  });
}

test('tidy: environmentNames() finds whole names, unusedExports() what nobody names', () => {
  assert.deepEqual(environmentNames('EDGEPROXY_LOG=debug EDGEPROXY_TEST_ `EDGEPROXY_LOG`'), [
    'EDGEPROXY_LOG',
  ]);
  const files = [
    { path: 'src/a.ts', text: 'export const used = 1;\nexport function lonely() {}\n' },
    { path: 'src/b.ts', text: "import { used } from './a.ts';\n" },
  ];
  assert.deepEqual(unusedExports(files), ['src/a.ts: nobody uses the export lonely']);
});
