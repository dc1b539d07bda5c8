// The command line about PROXY headers: which one a backend gets, and the settings that go together.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const BIN = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-cli-proxy-'));
after(() => rmSync(directory, { recursive: true }));

/** Runs a command in the directory that has the routing.db. */
function call(words: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return spawnSync(BIN, words, {
    cwd: directory,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
    timeout: 30_000,
  });
}

function ok(...words: string[]): string {
  const { status, stdout, stderr } = call(words);
  assert.equal(status, 0, `${words.join(' ')}: ${stderr}`);
  return stdout;
}

/** `proxy_protocol` by id. */
function listed(): Record<string, unknown> {
  const rows = JSON.parse(ok('backend', 'list', '--json')) as Record<string, unknown>[];
  return Object.fromEntries(rows.map((row) => [row.id, row.proxy_protocol]));
}

test('edgeproxy backend sets the PROXY header of a backend, and takes it back', () => {
  ok('init');
  ok('backend', 'add', 'plain', '10.0.0.1:80', '--region', 'sa');
  assert.deepEqual(listed(), { plain: null }, 'before the column is there');
  ok('backend', 'add', 'told', '10.0.0.2:80', '--region', 'sa', '--proxy-protocol', 'V2');
  assert.deepEqual(listed(), { plain: null, told: 'v2' });
  for (const [version, value, said] of [
    ['v1', 'v1', 'gets PROXY header v1'],
    ['OFF', 'off', 'gets no PROXY header'],
    ['v2', 'v2', 'gets PROXY header v2'],
    ['default', null, 'gets the PROXY header that the setting says'],
  ] as const) {
    assert.equal(ok('backend', 'proxy-protocol', 'plain', version), `Backend "plain" ${said}\n`);
    assert.deepEqual(listed(), { plain: value, told: 'v2' });
  }
  assert.match(ok('backend', '--help'), /^ {2}proxy-protocol /m);

  const wrong = call(['backend', 'proxy-protocol', 'plain', 'v3']);
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /VERSION is "v3", allowed: one of off, v1, v2, default/);
  const unknown = call(['backend', 'proxy-protocol', 'plian', 'v2']);
  assert.equal(unknown.status, 1);
  assert.match(unknown.stderr, /Unknown backend "plian": similar ids are plain/);
  const added = ['backend', 'add', 'x', '10.0.0.3:80', '--region', 'sa', '--proxy-protocol', '2'];
  const refused = call(added);
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /proxy_protocol is "2", must be one of off, v1, v2/);
});

test('edgeproxy run wants to know whose PROXY headers to believe', () => {
  const { status, stderr } = call(['run'], { EDGEPROXY_PROXY_PROTOCOL_IN: 'v2' });
  assert.equal(status, 2);
  assert.match(stderr, /^EDGEPROXY_TRUSTED_PROXIES is none, allowed /);
  assert.equal(stderr.trimEnd().split('\n').length, 1);
  const { status: off, stderr: why } = call(['run', '--proxy-protocol-in', 'v3']);
  assert.equal(off, 2);
  assert.match(why, /--proxy-protocol-in is "v3", allowed: one of off, v1, v2, any/);
});
