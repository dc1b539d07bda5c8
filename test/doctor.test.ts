// `edgeproxy doctor` through the real executable: what it says of this machine, its exit code, and that it writes nothing
// unasked.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { writeRouting } from '../src/testing/routing-file.ts';
import { refusedPort, sink, startBackend } from '../src/testing/test-backends.ts';

const BIN = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-doctor-'));
const dbPath = join(directory, 'routing.db');
after(() => rmSync(directory, { recursive: true }));

interface FindingJson {
  readonly check: string;
  readonly status: string;
  readonly text: string;
}

function doctor(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  const args = ['doctor', '--db-path', dbPath, ...words];
  return spawnSync(BIN, args, { encoding: 'utf8', env: { PATH: process.env.PATH } });
}

function findings(...words: string[]): Record<string, FindingJson> {
  const list = JSON.parse(doctor('--json', ...words).stdout) as FindingJson[];
  return Object.fromEntries(list.map((finding) => [finding.check, finding]));
}

test('doctor: without routing.db it says what to run, exit code 1', () => {
  const { status, stderr } = doctor();
  assert.equal(status, 1);
  assert.match(stderr, /edgeproxy init/);
});

test('doctor: every check has an answer, and backends that do not answer are named', async () => {
  await using backend = await startBackend(sink);
  const dead = await refusedPort();
  writeRouting(dbPath, [
    { id: 'alive', ...backend.row },
    { id: 'dead', port: dead },
  ]);
  const found = findings();
  assert.ok(Object.keys(found).length >= 18);
  assert.equal(found.backends?.status, 'warn');
  assert.match(
    found.backends?.text ?? '',
    /1 of 2 .*: dead at 127\.0\.0\.1:\d+ \(connect refused\)/,
  );
  writeRouting(dbPath, [{ id: 'alive', ...backend.row }]);
  assert.equal(findings().backends?.status, 'ok');
});

test('doctor: exit code 1 when something would break under the limits, and --fix writes nothing unasked', async () => {
  await using backend = await startBackend(sink);
  writeRouting(dbPath, [{ id: 'alive', ...backend.row }]);
  const { status, stdout } = doctor('--max-connections', '9000000', '--fix');
  assert.equal(status, 1);
  assert.match(stdout, /^FAIL {2}\d+ descriptors, 18001280 are needed for 9000000 sessions$/m);
  assert.match(stdout, /^LimitNOFILE=18001280$/m);
  assert.match(stdout, /^Nothing is written without a terminal to ask at, or --yes$/m);
  assert.equal(existsSync('/etc/security/limits.d/60-edgeproxy.conf'), false);
});
