// The build on a small tree: what it finds by itself, what it refuses, and what becomes of imports of Node's own modules.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from './build.ts';

/** A tree with these files; gives back what starts its build and where that puts it. */
function tree(
  t: TestContext,
  files: Readonly<Record<string, string>>,
): { root: string; out: string } {
  const root = mkdtempSync(join(tmpdir(), 'edgeproxy-build-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries({ 'package.json': '{"type":"module"}', ...files })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return { root, out: join(root, 'dist') };
}

const MAIN = `
import fs, { readFileSync as read } from 'node:fs';
import * as path from 'node:path';
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
const page: string = read(new URL('./pages/hello.txt', import.meta.url), 'utf8');
const { type } = JSON.parse(read(new URL('../package.json', import.meta.url), 'utf8'));
console.log(page, type, path.basename('a/b'), fs.existsSync('/'));
fork(fileURLToPath(new URL('./other/device.ts', import.meta.url)));
const { late } = await import('./late.ts');
console.log(late);
`;
/** Starts a thread, and names the program itself. */
const DEVICE = `
import { Worker } from 'node:worker_threads';
new Worker(new URL('../deep/thread.ts', import.meta.url));
export const self = new URL('../main.ts', import.meta.url);
`;

test('build() finds processes, the threads they start, and assets by their URLs', async (t) => {
  const { root, out } = tree(t, {
    'src/main.ts': MAIN,
    'src/late.ts': "export const late: string = 'late';",
    'src/other/device.ts': DEVICE,
    'src/deep/thread.ts': "const text: string = 'thread'; console.log(text);",
    'src/pages/hello.txt': 'hello',
    'src/pages/types.d.ts': 'declare const x: string;',
  });
  await build(root, out);
  for (const name of ['main.js', 'other-device.js', 'deep-thread.js', 'pages/hello.txt']) {
    assert.ok(existsSync(join(out, name)), name);
  }
  assert.equal(existsSync(join(out, 'pages/types.d.ts')), false);
  // Not bundled once more as an entry of its own, without its chunks.
  assert.match(readFileSync(join(out, 'main.js'), 'utf8'), /import\(.\.\/late\.js.\)/);
  rmSync(join(root, 'src'), { recursive: true });
  const { stdout, stderr } = spawnSync(process.execPath, [join(out, 'main.js')]);
  assert.equal(String(stderr), '');
  assert.deepEqual(String(stdout).trim().split('\n').sort(), [
    'hello module b true',
    'late',
    'thread',
  ]);
  // A second build takes the place of the first.
  writeFileSync(join(out, 'left-over.js'), '');
  mkdirSync(join(root, 'src'));
  writeFileSync(join(root, 'src/main.ts'), 'console.log(1);');
  await build(root, out);
  assert.deepEqual(globSync('*', { cwd: out }), ['main.js']);
  assert.deepEqual(globSync('dist*', { cwd: root }), ['dist']);
});

const REFUSED: readonly (readonly [what: string, text: string, said: RegExp])[] = [
  [
    'a thread that is not there',
    "new Worker(new URL('./no.ts', import.meta.url));",
    /there is no .\/no\.ts/,
  ],
  [
    'a URL put together',
    'new Worker(new URL(process.argv[2], import.meta.url));',
    /means a source/,
  ],
  [
    'a path of a source',
    "new Worker('./src/thread.ts');",
    /thread\.ts' means a source|thread\.ts" means a source/,
  ],
  [
    'a folder of sources',
    'console.log(import.meta.dirname);',
    /import\.meta\.dirname means a source/,
  ],
];

for (const [what, text, said] of REFUSED) {
  test(`build() refuses ${what}`, async (t) => {
    const { root, out } = tree(t, { 'src/main.ts': text });
    await assert.rejects(build(root, out), said);
    assert.deepEqual(globSync('dist*', { cwd: root }), [], 'nothing is left');
  });
}

test('build() of this program: every URL is there, nothing names a source, no module of Node.js is imported', async (t) => {
  const out = join(mkdtempSync(join(tmpdir(), 'edgeproxy-build-')), 'dist');
  t.after(() => rmSync(dirname(out), { recursive: true }));
  await build(fileURLToPath(new URL('..', import.meta.url)), out);
  const scripts = globSync('*.js', { cwd: out });
  const urls: string[] = [];
  for (const name of scripts) {
    const text = readFileSync(join(out, name), 'utf8');
    assert.doesNotMatch(text, /^import .* from "node:/m, name);
    assert.doesNotMatch(text, /src\/testing/, name);
    for (const [, url = ''] of text.matchAll(/new URL\(`([^`]*)`, import\.meta\.url\)/g))
      urls.push(url);
  }
  for (const url of urls.filter((url) => !url.startsWith('../'))) {
    assert.ok(existsSync(join(out, url.replace(/\$\{.*/, ''))), url);
  }
  for (const entry of ['./proxy-worker-main.js', './control-geo-load-worker.js']) {
    assert.ok(urls.includes(entry), entry);
  }
});
