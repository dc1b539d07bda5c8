import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { formatPrefix, type Prefix, parsePrefix } from '../../sys/prefix.ts';
import { AllowedIps, AllowedIpsTable, peerOfAddress } from './allowed-ips.ts';

const PREFIXES_MAX = 64;

function prefix(text: string): Prefix {
  const parsed = parsePrefix(text);
  if (typeof parsed === 'string') throw new Error(`${text} ${parsed}`);
  return parsed;
}

function opened(prefixesMax = PREFIXES_MAX): {
  readonly buffer: SharedArrayBuffer;
  readonly ips: AllowedIps;
  readonly peerOf: (address: string) => number;
} {
  const buffer = new SharedArrayBuffer(4 + AllowedIpsTable.bytes(prefixesMax));
  const ips = new AllowedIps(new AllowedIpsTable(buffer, 4, prefixesMax), prefixesMax);
  const reader = new AllowedIpsTable(buffer, 4, prefixesMax);
  const peerOf = (address: string): number => {
    const [w0, w1, w2, w3] = prefix(address).words.map((word) => word | 0);
    return peerOfAddress(reader, w0 as number, w1 as number, w2 as number, w3 as number);
  };
  return { buffer, ips, peerOf };
}

test('peerOfAddress() takes the longest prefix of the family', () => {
  const { ips, peerOf } = opened();
  const given = ['0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16', '10.1.2.3', '2001:db8::/32', '::/0'];
  given.forEach((text, peer) => {
    ips.set(prefix(text), peer);
  });
  assert.equal(peerOf('10.1.2.3'), -1, 'not before it is published');
  ips.publish();
  const expected = { '10.1.2.3': 3, '10.1.2.4': 2, '10.2.0.0': 1, '11.0.0.0': 0 };
  for (const [address, peer] of Object.entries(expected)) assert.equal(peerOf(address), peer);
  assert.equal(peerOf('2001:db8::1'), 4);
  assert.equal(peerOf('2001:db9::1'), 5);
});

test('peerOfAddress() finds none in an empty table, nor IPv4 in ::/0 or IPv6 in 0.0.0.0/0', () => {
  const { ips, peerOf } = opened();
  assert.deepEqual([peerOf('10.0.0.1'), peerOf('::1')], [-1, -1]);
  ips.set(prefix('::/0'), 0);
  ips.publish();
  assert.deepEqual([peerOf('10.0.0.1'), peerOf('::1')], [-1, 0]);
  ips.removePeer(0);
  ips.set(prefix('0.0.0.0/0'), 0);
  ips.publish();
  assert.deepEqual([peerOf('10.0.0.1'), peerOf('::1')], [0, -1]);
});

test('a prefix moves when it is given to another peer', () => {
  const { ips, peerOf } = opened();
  ips.set(prefix('10.0.0.0/8'), 1);
  ips.set(prefix('10.0.0.0/8'), 2);
  ips.publish();
  assert.equal(peerOf('10.0.0.1'), 2);
  assert.deepEqual([ips.of(1), ips.of(2).map(formatPrefix)], [[], ['10.0.0.0/8']]);
});

test('AllowedIps is bounded, and a prefix that is there may be given again', () => {
  const { ips, peerOf } = opened(2);
  ips.set(prefix('10.0.0.1'), 0);
  ips.set(prefix('10.0.0.2'), 0);
  assert.throws(() => ips.set(prefix('10.0.0.3'), 0), /at most 2 prefixes/);
  ips.set(prefix('10.0.0.2'), 1);
  ips.publish();
  assert.deepEqual([peerOf('10.0.0.1'), peerOf('10.0.0.2')], [0, 1]);
});

function holds({ words, length }: Prefix, address: readonly number[]): boolean {
  return words.every((word, index) => {
    const bits = Math.min(32, Math.max(0, length - index * 32));
    const mask = bits === 0 ? 0 : -1 << (32 - bits);
    return ((word ^ (address[index] as number)) & mask) === 0;
  });
}

/** Few different bits, so that prefixes hold each other. */
const anyPrefix = fc
  .tuple(fc.boolean(), fc.integer({ min: 0, max: 15 }), fc.nat({ max: 32 }))
  .map(([isV4, host, bits]) => {
    const word = (host << 28) | (host << 12) | host;
    const length = isV4 ? 96 + bits : bits * 4;
    const all = isV4 ? [0, 0, 0xffff, word] : [word, host, 0, word];
    const words = all.map((value, index) => {
      const kept = Math.min(32, Math.max(0, length - index * 32));
      return (kept === 0 ? 0 : value & (-1 << (32 - kept))) >>> 0;
    });
    return { words, length };
  });

test('peerOfAddress() does as a search through all prefixes would', () => {
  const step = fc.tuple(fc.constantFrom('set', 'set', 'set', 'remove'), anyPrefix, fc.nat(4));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.array(anyPrefix), (steps, asked) => {
      const { ips, peerOf } = opened();
      const all = new Map<string, { readonly entry: Prefix; readonly peer: number }>();
      for (const [what, entry, peer] of steps) {
        if (what === 'set') {
          ips.set(entry, peer);
          all.set(formatPrefix(entry), { entry, peer });
        } else {
          ips.removePeer(peer);
          for (const [name, { peer: owner }] of all) if (owner === peer) all.delete(name);
        }
      }
      ips.publish();
      for (const { words } of [...asked, ...steps.map(([, entry]) => entry)]) {
        const isV4 = words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
        const best = [...all.values()]
          .filter(({ entry }) => holds(entry, words) && (!isV4 || entry.length >= 96))
          .sort((a, b) => b.entry.length - a.entry.length);
        const address = formatPrefix({ words, length: 128 });
        assert.equal(peerOf(address), best[0]?.peer ?? -1, address);
      }
    }),
  );
});

const READER = `
const { workerData, parentPort } = require('node:worker_threads');
import(workerData.module).then(({ AllowedIpsTable, peerOfAddress }) => {
  const table = new AllowedIpsTable(workerData.buffer, 4, ${PREFIXES_MAX});
  const stop = new Int32Array(workerData.buffer, 0, 1);
  const seen = new Map();
  let lookups = 0;
  parentPort.postMessage('ready');
  do {
    for (let host = 0; host < 16; host++) {
      const peer = peerOfAddress(table, 0, 0, 0xffff, 0x0a000000 | host);
      seen.set(peer, (seen.get(peer) ?? 0) + 1);
      lookups++;
    }
  } while (Atomics.load(stop, 0) === 0);
  parentPort.postMessage({ seen: [...seen.keys()], lookups });
});
`;

test('peerOfAddress() in another thread sees whole tables while they are being changed', async () => {
  const { buffer, ips } = opened();
  ips.set(prefix('10.0.0.0/8'), 7);
  ips.publish();
  const module = new URL('./allowed-ips.ts', import.meta.url).href;
  const worker = new Worker(READER, { eval: true, workerData: { buffer, module } });
  await once(worker, 'message');
  const reported = once(worker, 'message');
  for (let change = 0; change < 50_000; change++) {
    const host = change % 16;
    if (change % 5 === 0) ips.removePeer(8);
    else ips.set({ words: [0, 0, 0xffff, 0x0a000000 + host], length: 128 }, 8);
    ips.publish();
  }
  Atomics.store(new Int32Array(buffer, 0, 1), 0, 1);
  const [{ seen, lookups }] = (await reported) as [{ seen: number[]; lookups: number }];
  assert.ok(lookups > 0);
  for (const peer of seen) assert.ok(peer === 7 || peer === 8, `peer ${peer}`);
});
