// The doctor on what a mesh needs, on machines made up in a directory.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { type Config, loadConfig } from '../../config.ts';
import { generateKeyPair } from '../../mesh/key.ts';
import type { Machine } from './machine.ts';
import { checkMesh, checkMeshKey, checkMeshPort, checkWireGuard } from './mesh.ts';

const root = mkdtempSync(join(tmpdir(), 'edgeproxy-doctor-mesh-'));
after(() => rmSync(root, { recursive: true }));
let machines = 0;

function machine(...files: readonly string[]): Machine {
  const folder = join(root, String(machines++));
  for (const file of files) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), 'kernel/drivers/net/wireguard/wireguard.ko:\n');
  }
  return { root: folder, kernel: '6.1.0', cores: 2 };
}

function config(env: Readonly<Record<string, string>> = {}): Config {
  return loadConfig({}, { EDGEPROXY_MESH_ENABLED: 'true', ...env });
}

const [KERNEL, WG, IP, TUN] = [
  'lib/modules/6.1.0/modules.dep',
  'usr/bin/wg',
  'usr/sbin/ip',
  'dev/net/tun',
];

test('checkWireGuard() says what would run the tunnels, or what is missing', () => {
  const said = (device: string, ...files: readonly string[]): string => {
    const finding = checkWireGuard(config({ EDGEPROXY_MESH_DEVICE: device }), machine(...files));
    return `${finding.status}: ${finding.text}`;
  };
  assert.match(said('auto', KERNEL, WG, IP, TUN), /^ok: .*in the kernel$/);
  assert.match(said('auto', 'sys/module/wireguard/version', WG, IP), /^ok: .*in the kernel$/);
  assert.match(said('auto', KERNEL, IP, TUN), /^warn: .*program wg.*a process is used/);
  assert.match(said('auto', IP, TUN), /^ok: .*in a process/);
  assert.match(said('auto', IP), /^fail: .*neither is there/);
  assert.match(said('kernel', IP, WG, TUN), /^fail: .*no WireGuard/);
  assert.match(said('kernel', KERNEL, IP, TUN), /^fail: .*program wg/);
  assert.match(said('userspace', KERNEL, WG, IP), /^fail: .*neither is there/);
  assert.match(said('userspace', KERNEL, WG, IP, TUN), /^ok: .*in a process/);
  assert.match(said('auto', KERNEL, WG, TUN), /^fail: .*program ip/);
});

test('checkMesh() without a mesh only says what the machine could do', async () => {
  const [finding, ...more] = await checkMesh(loadConfig({}, {}), machine(IP, TUN));
  assert.deepEqual([finding?.status, more], ['unknown', []]);
});

test('checkMeshKey() wants a key, closed to others', () => {
  const path = join(root, 'doctor.key');
  const status = (): string => checkMeshKey(config({ EDGEPROXY_MESH_KEY_PATH: path })).status;
  assert.equal(status(), 'fail');
  writeFileSync(path, generateKeyPair().privateKey, { mode: 0o600 });
  assert.equal(status(), 'ok');
  chmodSync(path, 0o644);
  assert.equal(status(), 'fail');
});

test('checkMeshPort() wants the port free, or the interface there', async () => {
  const socket = createSocket('udp4').bind(0);
  await once(socket, 'listening');
  const taken = config({ EDGEPROXY_MESH_LISTEN_PORT: String(socket.address().port) });
  assert.equal((await checkMeshPort(taken, machine())).status, 'fail');
  assert.equal((await checkMeshPort(taken, machine('sys/class/net/edge0/mtu'))).status, 'ok');
  socket.close();
  await once(socket, 'close');
  assert.equal((await checkMeshPort(taken, machine())).status, 'ok');
});
