// The checks of the doctor on machines made up in a directory: what each says of a good one and of a bad one.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { type Config, loadConfig } from '../../config.ts';
import type { RawBackend } from '../routing-rows.ts';
import {
  capacityOf,
  checkConntrack,
  checkCores,
  checkDescriptors,
  checkMemory,
  checkPorts,
} from './capacity.ts';
import type { Finding } from './finding.ts';
import { fixFiles } from './fix.ts';
import { isAtLeast, type Machine } from './machine.ts';
import {
  checkFastOpen,
  checkIdleChain,
  checkMtu,
  checkQueues,
  checkSocketBuffers,
  checkSynCookies,
  checkTimeWait,
} from './network.ts';
import { checkKernel, checkPrivileges } from './platform.ts';

const root = mkdtempSync(join(tmpdir(), 'edgeproxy-doctor-'));
after(() => rmSync(root, { recursive: true }));
let machines = 0;

/** A machine with these files; sysctls by their dotted names. */
function machine(files: Readonly<Record<string, string>>): Machine {
  const folder = join(root, String(machines++));
  for (const [name, content] of Object.entries(files)) {
    const isPath = name.includes('/');
    const path = join(folder, isPath ? name : join('proc/sys', name.replaceAll('.', '/')));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${content}\n`);
  }
  return { root: folder, kernel: '6.1.0', cores: 2 };
}

function config(env: Readonly<Record<string, string>> = {}): Config {
  return loadConfig({}, { EDGEPROXY_WORKERS: '2', ...env });
}

function backend(id: string, hardLimit: number): RawBackend {
  return { id, hardLimit, deleted: false, healthy: true } as RawBackend;
}

function capacity(env: Readonly<Record<string, string>>, backends: readonly RawBackend[] = []) {
  return capacityOf(config(env), backends, { soft: 1024, hard: 20_000 });
}

/** Status, and what mends it as `key = value`. */
function said({ status, remedy }: Finding): string {
  return remedy?.kind === 'sysctl' ? `${status} ${remedy.key} = ${remedy.value}` : status;
}

test('checkDescriptors() fails when the setting needs more than the hard limit', () => {
  assert.equal(said(checkDescriptors(capacity({ EDGEPROXY_MAX_CONNECTIONS: '5000' }))), 'ok');
  assert.equal(said(checkDescriptors(capacity({}))), 'ok');
  const finding = checkDescriptors(capacity({ EDGEPROXY_MAX_CONNECTIONS: '50000' }));
  assert.equal(finding.status, 'fail');
  assert.deepEqual(finding.remedy, { kind: 'descriptors', count: 101_280 });
});

test('checkPorts() sets the range of local ports against hard limits and the maximum', () => {
  const narrow = machine({ 'net.ipv4.ip_local_port_range': '32768 33767' });
  const remedy = 'net.ipv4.ip_local_port_range = 1024 65535';
  const many = { EDGEPROXY_MAX_CONNECTIONS: '5000' };
  assert.equal(said(checkPorts(capacity(many, [backend('a', 900)]), narrow)), 'ok');
  assert.equal(said(checkPorts(capacity(many, [backend('a', 1001)]), narrow)), `fail ${remedy}`);
  assert.equal(said(checkPorts(capacity(many, [backend('a', 0)]), narrow)), `warn ${remedy}`);
  assert.equal(checkPorts(capacity({}), machine({})).status, 'unknown');
});

test('checkMemory() adds buffers and what the kernel needs', () => {
  const small = machine({ 'proc/meminfo': 'MemTotal: 1000000 kB\nMemAvailable: 600000 kB' });
  assert.equal(said(checkMemory(capacity({ EDGEPROXY_BUFFER_MEMORY_MB: '64' }), small)), 'ok');
  assert.equal(said(checkMemory(capacity({ EDGEPROXY_BUFFER_MEMORY_MB: '512' }), small)), 'warn');
  assert.equal(checkMemory(capacity({}), machine({})).status, 'unknown');
});

test('checkConntrack() wants room for both connections of a session and closed ones', () => {
  const sessions = capacity({ EDGEPROXY_MAX_CONNECTIONS: '1000' });
  const of = (max: string): string =>
    said(checkConntrack(sessions, machine({ 'net.netfilter.nf_conntrack_max': max })));
  assert.equal(of('4000'), 'ok');
  assert.equal(of('3999'), 'warn net.netfilter.nf_conntrack_max = 4000');
  assert.equal(of('1999'), 'fail net.netfilter.nf_conntrack_max = 4000');
  assert.equal(said(checkConntrack(sessions, machine({}))), 'ok');
});

test('checkCores() warns of more workers than cores', () => {
  assert.equal(said(checkCores(capacity({}), machine({}))), 'ok');
  assert.equal(said(checkCores(capacity({ EDGEPROXY_WORKERS: '3' }), machine({}))), 'warn');
});

test('checkQueues() and checkSocketBuffers() name the sysctl that is too small, and keep what is not', () => {
  const small = machine({
    'net.core.somaxconn': '128',
    'net.ipv4.tcp_max_syn_backlog': '8192',
    'net.ipv4.tcp_rmem': '4096 131072 212992',
    'net.ipv4.tcp_wmem': '4096\t16384\t4194304',
  });
  assert.deepEqual(checkQueues(small).map(said), ['warn net.core.somaxconn = 4096', 'ok']);
  const buffers = checkSocketBuffers(small).map(said);
  assert.deepEqual(buffers, ['warn net.ipv4.tcp_rmem = 4096 131072 4194304', 'ok']);
  assert.deepEqual(checkQueues(machine({})).map(said), ['unknown', 'unknown']);
});

test('checkFastOpen() looks at the bit for listeners, and only when the setting asks for it', () => {
  const clientOnly = machine({ 'net.ipv4.tcp_fastopen': '1' });
  assert.equal(said(checkFastOpen(config(), clientOnly)), 'warn net.ipv4.tcp_fastopen = 3');
  assert.equal(said(checkFastOpen(config(), machine({ 'net.ipv4.tcp_fastopen': '3' }))), 'ok');
  const off = config({ EDGEPROXY_TCP_FAST_OPEN: 'false' });
  assert.equal(said(checkFastOpen(off, clientOnly)), 'ok');
});

test('checkTimeWait() and checkSynCookies() want both on', () => {
  const bad = machine({ 'net.ipv4.tcp_tw_reuse': '2', 'net.ipv4.tcp_syncookies': '0' });
  const good = machine({ 'net.ipv4.tcp_tw_reuse': '1', 'net.ipv4.tcp_syncookies': '1' });
  assert.equal(said(checkTimeWait(bad)), 'warn net.ipv4.tcp_tw_reuse = 1');
  assert.equal(said(checkSynCookies(bad)), 'warn net.ipv4.tcp_syncookies = 1');
  assert.deepEqual([checkTimeWait(good), checkSynCookies(good)].map(said), ['ok', 'ok']);
});

test('checkMtu() warns of tunnels that are too large and of small paths without probing', () => {
  const link = (name: string, mtu: string) => ({
    [`sys/class/net/${name}/mtu`]: mtu,
    [`sys/class/net/${name}/operstate`]: 'up',
  });
  assert.equal(said(checkMtu(machine(link('eth0', '1500')))), 'ok');
  assert.equal(said(checkMtu(machine(link('wg0', '1420')))), 'ok');
  assert.equal(said(checkMtu(machine(link('wg0', '1500')))), 'warn');
  const small = { ...link('eth0', '1400'), 'net.ipv4.tcp_mtu_probing': '0' };
  assert.equal(said(checkMtu(machine(small))), 'warn net.ipv4.tcp_mtu_probing = 1');
  assert.equal(said(checkMtu(machine({ ...small, 'net.ipv4.tcp_mtu_probing': '1' }))), 'ok');
  assert.equal(said(checkMtu(machine({}))), 'unknown');
});

test('checkIdleChain() names the link that ends an idle session first', () => {
  const key = 'net.netfilter.nf_conntrack_tcp_timeout_established';
  const tracked = machine({ [key]: '300' });
  const quiet = config({ EDGEPROXY_KEEPALIVE_SECS: '0' });
  assert.equal(said(checkIdleChain(quiet, tracked)), `warn ${key} = 3660`);
  const alive = checkIdleChain(config({ EDGEPROXY_KEEPALIVE_SECS: '60' }), tracked);
  assert.match(alive.text, /EDGEPROXY_IDLE_TIMEOUT_SECS, after 3600 s/);
  assert.equal(alive.status, 'ok');
  const never = config({ EDGEPROXY_IDLE_TIMEOUT_SECS: '0' });
  assert.match(checkIdleChain(never, machine({})).text, /Nothing on this machine/);
});

test('checkKernel() and isAtLeast() compare versions as numbers', () => {
  assert.equal(isAtLeast('5.10.0', 5, 9), true);
  assert.equal(isAtLeast('6.0', 6, 1), false);
  assert.equal(checkKernel({ ...machine({}), kernel: '5.15.0' }).status, 'warn');
  assert.equal(checkKernel(machine({})).status, 'ok');
});

test('checkPrivileges() fails for a low port without the capability', () => {
  const low = config({ EDGEPROXY_LISTEN_ADDR: '0.0.0.0:443' });
  const none = machine({ 'proc/self/status': 'CapEff:\t0000000000000000' });
  const able = machine({ 'proc/self/status': 'CapEff:\t0000000000000400' });
  assert.equal(checkPrivileges(low, none, 1000).status, 'fail');
  assert.equal(checkPrivileges(low, able, 1000).status, 'ok');
  assert.equal(checkPrivileges(low, none, 0).status, 'ok');
  assert.equal(checkPrivileges(config(), none, 1000).status, 'ok');
});

test('fixFiles() holds what findings ask for, and nothing else', () => {
  assert.deepEqual(fixFiles([{ check: 'a', status: 'ok', text: '' }]), []);
  const files = fixFiles([
    { check: 'a', status: 'warn', text: '', remedy: { kind: 'sysctl', key: 'a.b', value: '1' } },
    { check: 'b', status: 'ok', text: '', remedy: { kind: 'sysctl', key: 'c.d', value: '2' } },
    { check: 'c', status: 'fail', text: '', remedy: { kind: 'descriptors', count: 5000 } },
    { check: 'd', status: 'warn', text: '', remedy: { kind: 'advice', text: 'ask' } },
  ]);
  assert.deepEqual(
    files.map(({ path }) => path),
    [
      '/etc/sysctl.d/60-edgeproxy.conf',
      '/etc/systemd/system/edgeproxy.service.d/60-limits.conf',
      '/etc/security/limits.d/60-edgeproxy.conf',
    ],
  );
  assert.match(files[0]?.content ?? '', /^a\.b = 1$/m);
  assert.doesNotMatch(files[0]?.content ?? '', /c\.d/);
  assert.match(files[1]?.content ?? '', /^LimitNOFILE=5000$/m);
});
