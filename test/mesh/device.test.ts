// The userspace WireGuard device against wireguard-go and against itself, in network namespaces: content both ways over both
// families, hostile and lossy paths, roaming, renewed keys, and the life of the process.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { attempt, skipReason } from '../../src/testing/netns.ts';
import { UdpRelay } from '../../src/testing/udp-relay.ts';
import { until } from '../../src/testing/wait.ts';
import {
  type NetOptions,
  ping,
  transfer,
  WireguardNet,
  wireguardProblem,
} from '../../src/testing/wireguard-net.ts';

const problem = wireguardProblem();
const skip = problem === '' ? false : skipReason(problem);
const MEGABYTE = 1_000_000;
const PSK = randomBytes(32).toString('base64');

function check(name: string, body: (t: TestContext) => Promise<void>): void {
  test(`device: ${name}`, { skip }, body);
}

const PAIRS: readonly (readonly [string, NetOptions])[] = [
  [
    'initiates to wireguard-go over IPv4 with a preshared key',
    { first: 'ours', second: 'wireguard-go', presharedKey: PSK },
  ],
  ['answers wireguard-go over IPv6', { first: 'wireguard-go', second: 'ours', outer: 1 }],
  [
    'speaks to itself over IPv6 with a preshared key',
    { first: 'ours', second: 'ours', outer: 1, presharedKey: PSK },
  ],
];

for (const [name, options] of PAIRS) {
  check(`${name}; content is the same both ways`, async () => {
    await using net = await new WireguardNet(options).start();
    const { first, second } = net;
    await transfer(first, second, 0, 20 * MEGABYTE);
    await transfer(second, first, 1, 20 * MEGABYTE);
    await transfer(first, second, 1, 5 * MEGABYTE + 7);
    const [a, b] = [first.status(), second.status()];
    assert.ok(a.handshake > 0 && b.handshake > 0, 'both know the handshake');
    assert.ok(a.sent > 20 * MEGABYTE && b.received > 20 * MEGABYTE, 'bytes are counted');
  });
}

check('renews its keys under traffic', async () => {
  const timers = {
    rekeyAfterMs: 400,
    rejectAfterMs: 1500,
    rekeyTimeoutMs: 200,
    keepaliveTimeoutMs: 200,
  };
  const options = { first: 'ours', second: 'ours', timers, presharedKey: PSK } as const;
  await using net = await new WireguardNet(options).start();
  const handshakes = new Set<string>();
  await until('three renewals', async () => {
    await transfer(net.first, net.second, 0, 8 * MEGABYTE);
    handshakes.add(net.first.wg('show latest-handshakes'));
    return handshakes.size > 3;
  });
});

check('follows a peer to its new address, and drops what is repeated or forged', async () => {
  const net = new WireguardNet({ first: 'wireguard-go', second: 'ours' });
  await using _net = net;
  const { first, second } = net;
  using relay = UdpRelay.open(first.namespace, first.outer[0], `${second.outer[0]}:51820`);
  await net.start({ first: relay.endpoint });
  await until('an answer', () => transfer(first, second, 0, 100_000).then(() => true));
  assert.equal(second.status().endpoint, relay.farEndpoint);

  relay.move();
  await transfer(first, second, 0, MEGABYTE);
  assert.equal(second.status().endpoint, relay.farEndpoint, 'the endpoint moved');

  const packets = relay.seen.filter((datagram) => datagram[0] === 4).slice(-20);
  const before = await second.counters();
  for (const packet of packets) relay.sendOut(packet);
  for (const packet of packets) {
    const forged = Buffer.from(packet);
    forged[forged.length - 1] ^= 1;
    relay.sendOut(forged);
  }
  const after = await until('all to be dropped', async () => {
    const now = await second.counters();
    const dropped = (name: string): number => (now[name] ?? 0) - (before[name] ?? 0);
    return dropped('receiveReplayed') >= 20 && dropped('receiveForged') >= 20 ? now : null;
  });
  assert.equal(after.receiveWrongSource, undefined);
  await transfer(second, first, 0, MEGABYTE);
});

/** Loses, repeats, reorders and joins garbage to what passes. */
function unruly(): (datagram: Buffer) => Buffer[] {
  const held: Buffer[] = [];
  let count = 0;
  return (datagram) => {
    count++;
    if (datagram[0] !== 4) return [datagram];
    if (count % 50 === 0) return [];
    if (count % 17 === 0) {
      held.push(datagram);
      return [];
    }
    const late = count % 7 === 0 ? held.splice(0) : [];
    const extra = count % 31 === 0 ? [datagram, randomBytes(count % 200)] : [];
    return [datagram, ...late, ...extra];
  };
}

check('carries content over a path that loses, repeats and reorders', async () => {
  const net = new WireguardNet({ first: 'ours', second: 'ours' });
  await using _net = net;
  const { first, second } = net;
  using relay = UdpRelay.open(first.namespace, first.outer[0], `${second.outer[0]}:51820`);
  const [out, back] = [unruly(), unruly()];
  relay.meddle = (datagram, way) => (way === 'out' ? out : back)(datagram);
  await net.start({ first: relay.endpoint });
  await transfer(first, second, 0, MEGABYTE);
  await transfer(second, first, 1, MEGABYTE);
});

check('drops packets whose inner source is not the peer’s', async () => {
  await using net = await new WireguardNet({ first: 'wireguard-go', second: 'ours' }).start();
  const { first, second } = net;
  await transfer(first, second, 0, 1000);
  assert.equal(
    attempt('ip', ['-n', first.namespace, 'addr', 'add', '10.96.0.77/32', 'dev', first.device]),
    '',
  );
  const args = ['netns', 'exec', first.namespace, 'ping', '-c', '1', '-W', '1', '-I', '10.96.0.77'];
  assert.notEqual(attempt('ip', [...args, second.inner[0]]), '');
  assert.ok(((await second.counters()).receiveWrongSource ?? 0) > 0);
});

check('comes back when a peer has vanished and returned with new keys', async () => {
  const timers = { rekeyTimeoutMs: 300, keepaliveTimeoutMs: 300 };
  const options = { first: 'ours', second: 'ours', timers, initiator: 'both' } as const;
  await using net = await new WireguardNet(options).start();
  const { first, second } = net;
  await transfer(first, second, 0, 100_000);
  attempt('ip', ['-n', second.namespace, 'link', 'del', second.device]);
  assert.equal(await second.ended(), 0);
  assert.equal(ping(first, second), false);
  await second.start();
  net.configure(second, first, `${first.outer[0]}:51820`);
  second.bringUp();
  await until('the peer to answer', () => ping(first, second));
  await transfer(first, second, 0, 100_000);
});

check('is configured by wg, shows all of it, and keeps sessions over syncconf', async () => {
  await using net = await new WireguardNet({ first: 'ours', second: 'ours' }).start();
  const { first, second } = net;
  await transfer(first, second, 0, 1000);
  const { handshake } = first.status();
  net.configure(first, second, `${second.outer[0]}:51820`);
  assert.equal(first.status().handshake, handshake);
  const other = randomBytes(32).toString('base64');
  first.wg(`set peer ${other} allowed-ips 10.9.0.0/16,fd09::/48 persistent-keepalive 25`);
  first.wg('set fwmark 0x1234 listen-port 51999');
  const shown = first.wg('showconf');
  assert.match(shown, /ListenPort = 51999\nFwMark = 0x1234\n/);
  assert.match(shown, /AllowedIPs = 10\.9\.0\.0\/16, fd09::\/48\nPersistentKeepalive = 25/);
  await transfer(first, second, 0, 100_000);
  assert.match(second.status().endpoint, /:51999$/);
  first.wg(`set peer ${other} remove`);
  assert.ok(!first.wg('show').includes(other));
});

check('has two privileges, a private socket, and ends when that is removed', async () => {
  await using net = await new WireguardNet({ first: 'ours', second: 'ours' }).start();
  const { first, second } = net;
  const status = readFileSync(`/proc/${first.pid}/status`, 'utf8');
  assert.match(status, /CapEff:\t0000000000001400\n/);
  assert.match(status, /NoNewPrivs:\t1\n/);
  assert.equal(statSync(first.socketPath).mode & 0o777, 0o600);
  unlinkSync(first.socketPath);
  assert.equal(await first.ended(), 0);
  second.kill('SIGTERM');
  assert.equal(await second.ended(), 0);
  assert.equal(existsSync(second.socketPath), false);
});
