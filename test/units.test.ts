// The systemd units of packaging/: systemd accepts them, they confine the service, and they agree with the settings.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadConfig, SETTINGS } from '../src/config.ts';
import { skipReason } from '../src/testing/netns.ts';
import { environmentNames } from '../src/testing/tidy.ts';

const PACKAGING = fileURLToPath(new URL('../packaging/', import.meta.url));
/** Of 10; what remains is that a proxy talks to the network. */
const EXPOSURE_MAX = 2.5;

const service = readFileSync(join(PACKAGING, 'edgeproxy.service'), 'utf8');
const socket = readFileSync(join(PACKAGING, 'edgeproxy.socket'), 'utf8');

function value(unit: string, key: string): string | undefined {
  return new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1];
}

const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0;
const skip = hasSystemd ? false : skipReason('there is no systemd-analyze');

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-units-'));
  cpSync(join(PACKAGING, 'edgeproxy.socket'), join(directory, 'edgeproxy.socket'));
  // Programs must exist where the units say, for systemd-analyze.
  const installed = service.replace('ExecStart=edgeproxy', `ExecStart=${process.execPath}`);
  writeFileSync(join(directory, 'edgeproxy.service'), installed);
});
after(() => rmSync(directory, { recursive: true }));

function analyze(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, {
    cwd: directory,
    encoding: 'utf8',
  });
  assert.equal(status, 0, stdout + stderr);
  return stderr;
}

test('units: systemd has nothing against them', { skip }, () => {
  const said = analyze('verify', '--man=no', './edgeproxy.socket', './edgeproxy.service');
  assert.doesNotMatch(said, /edgeproxy/);
});

test('units: the service can do little besides its work', { skip }, () => {
  const threshold = `--threshold=${EXPOSURE_MAX * 10}`;
  analyze('security', '--offline=yes', threshold, './edgeproxy.service');
});

test('units: the service stops, listens and compiles as the proxy needs it', () => {
  assert.equal(value(service, 'Type'), 'notify');
  const stop = Number(value(service, 'TimeoutStopSec'));
  assert.ok(stop > loadConfig({}, {}, ['shutdownTimeoutSecs']).shutdownTimeoutSecs, `${stop}`);
  assert.equal(value(service, 'MemoryDenyWriteExecute'), 'no');
  assert.equal(value(service, 'RestartPreventExitStatus'), '2');
  assert.equal(value(service, 'AmbientCapabilities'), 'CAP_NET_BIND_SERVICE');
  // Its listeners and its predecessor's are in the network namespace of the machine.
  for (const key of ['PrivateNetwork', 'PrivateUsers', 'KillMode']) {
    assert.equal(value(service, key), undefined, key);
  }
});

test('units: every setting they name exists, and the socket is one the setting can list', () => {
  const known = Object.values(SETTINGS).map(({ env }) => env);
  for (const name of environmentNames(service + socket)) assert.ok(known.includes(name), name);
  const address = value(socket, 'ListenStream') as string;
  const [listen] = loadConfig({ listenAddr: address }, {}, ['listen']).listen;
  assert.deepEqual([listen?.host, listen?.port], ['::', 443]);
  assert.equal(value(socket, 'BindIPv6Only'), 'both');
});
