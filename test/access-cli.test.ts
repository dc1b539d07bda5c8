// `edgeproxy access …` and what `explain` says of the list, through the real executable; and a running proxy that follows.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { backendName } from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import { sayName, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const EDGEPROXY = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));

/** A running proxy with backend `a`, and commands on its database. */
async function setUp() {
  const backend = await startBackend(sayName('a'));
  const proxy = await startProxy({ backends: [{ id: 'a', ...backend.row }] });
  const call = (line: string) => {
    const words = [...line.split(' '), '--db-path', proxy.dbPath];
    const { status, stdout, stderr } = spawnSync(EDGEPROXY, words, {
      env: { PATH: process.env.PATH },
      encoding: 'utf8',
      timeout: 30_000,
    });
    return { status, stdout, stderr };
  };
  const ok = (line: string): string => {
    const { status, stdout, stderr } = call(line);
    assert.equal(status, 0, `${line}: ${stderr}`);
    return stdout;
  };
  const dispose = async (): Promise<void> => {
    await proxy[Symbol.asyncDispose]();
    await backend[Symbol.asyncDispose]();
  };
  return { proxy, call, ok, [Symbol.asyncDispose]: dispose };
}

async function untilServed(proxy: ProxyProcess, from: string, served: boolean): Promise<void> {
  await until(`${from} to be ${served ? '' : 'not '}served`, async () => {
    return (await backendName(proxy.address, { from })) === (served ? 'a' : '');
  });
}

test('edgeproxy access deny, allow and remove are followed by a running proxy, and shown by list', async () => {
  await using scene = await setUp();
  const { proxy, ok } = scene;
  assert.match(ok('access list'), /^No access rows: everyone is allowed; add one with: edgeproxy/);
  assert.equal(ok('access deny 127.8.0.0/16 --note scanners'), 'Denied "127.8.0.0/16"\n');
  await untilServed(proxy, '127.8.0.1', false);
  assert.equal(
    ok('access allow 127.8.0.1/32'),
    'Allowed "127.8.0.1"\nWhom no row matches is denied\n',
  );
  await untilServed(proxy, '127.8.0.1', true);
  await untilServed(proxy, '127.9.0.1', false);
  assert.equal(ok('access allow *'), 'Allowed everyone\nWhom no row matches is allowed\n');
  await untilServed(proxy, '127.9.0.1', true);
  assert.match(ok('access deny br --app web'), /^Denied "BR" for app "web"\n$/);
  assert.equal(
    ok('access list'),
    [
      'APP  ACTION  MATCH         NOTE',
      '*    allow   *',
      '*    deny    127.8.0.0/16  scanners',
      '*    allow   127.8.0.1',
      'web  deny    BR',
      'Whom no row matches is allowed',
      'Whom no row matches at app "web" is allowed',
      '',
    ].join('\n'),
  );
  assert.deepEqual(JSON.parse(ok('access list --app web --json')), [
    { app: 'web', action: 'deny', match: 'BR', note: null },
  ]);
  ok('access remove 127.8.0.1');
  await untilServed(proxy, '127.8.0.1', false);
});

test('edgeproxy access names what is wrong, with exit code 2 for the line and 1 for a row that is not there', async () => {
  await using scene = await setUp();
  const { proxy, call, ok } = scene;
  for (const line of [
    'access',
    'access deny',
    'access allow 10.0.0.1/8',
    'access deny QQ',
    'access lst',
  ]) {
    const { status, stdout } = call(line);
    assert.equal(status, 2, line);
    assert.equal(stdout, '', line);
  }
  assert.equal(
    call('access allow 10.0.0.1/8').stderr,
    'MATCH is "10.0.0.1/8", must not have bits beyond its prefix length, as in 10.0.0.0/8\n',
  );
  ok('access deny 10.0.0.0/8');
  const { status, stderr } = call('access remove 10.0.0.0/9');
  assert.equal(status, 1);
  assert.match(stderr, /^No access row for all apps matches "10\.0\.0\.0\/9": similar ones are 10/);
  changeRouting(proxy.dbPath, "INSERT INTO access(action, match) VALUES ('deny', 'Brazil')");
  for (const line of ['access list', 'explain 8.8.8.8']) {
    assert.match(call(line).stderr, /^Access row "Brazil" is skipped: match is "Brazil", must be/m);
  }
  ok('access remove Brazil');
  assert.equal(call('access list').stderr, '');
});

test('edgeproxy explain says whether the access list denies the client, and by which row', async () => {
  await using scene = await setUp();
  const { proxy, ok, call } = scene;
  assert.match(ok('explain 200.160.2.3'), /^Access {3}allowed: there is no access list$/m);
  ok('access deny BR --note embargo');
  ok('access allow 10.0.0.0/8 --app web');
  const denied = ok('explain 200.160.2.3');
  assert.match(denied, /^Access {3}denied: by the row "deny BR" for all apps: embargo$/m);
  assert.match(denied, /^Choice {3}none: the access list denies the client/m);
  assert.match(
    ok('explain 200.160.2.3 --access-dry-run'),
    /^Access {3}denied, but a dry run only counts it: .*\nChoice {3}a: /m,
  );
  const verdict = (line: string) => {
    const { access, choice } = JSON.parse(ok(`${line} --json`)) as {
      access: { allowed: boolean; row: { match: string } | null; reason: string };
      choice: string | null;
    };
    return [access.allowed, access.row?.match ?? null, access.reason, choice];
  };
  const row = 'by the row "allow 10.0.0.0/8" for app web';
  assert.deepEqual(verdict('explain ::ffff:10.0.0.1 --app web'), [true, '10.0.0.0/8', row, 'a']);
  assert.deepEqual(verdict('explain 8.8.8.8'), [true, null, 'no row matches', 'a']);
  const rest = 'no row matches, and there are rows that allow';
  assert.deepEqual(verdict('explain 8.8.8.8 --app web'), [false, null, rest, null]);
  changeRouting(proxy.dbPath, 'ALTER TABLE access RENAME COLUMN match TO cidr');
  const { status, stderr } = call('explain 8.8.8.8');
  assert.equal(status, 1);
  assert.match(stderr, /table access lacks the column match$/m);
});
