// The receiving half on its own: datagrams of strangers, truncated, changed or random, deliver nothing and break nothing; what
// is authentic is delivered once. And the cipher in each of its ways.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSharedMemory, openArena } from '../../sys/arena.ts';
import { type CipherKind, openPacket, sealPacket, startCipher } from '../../sys/cipher.ts';
import { AF_INET6 } from '../../sys/sockaddr.ts';
import { until } from '../../testing/wait.ts';
import { AllowedIps } from '../protocol/allowed-ips.ts';
import { makeSum } from './checksum.ts';
import { flushCoalescer } from './coalesce.ts';
import { Keypairs } from './keypairs.ts';
import { BUFFER_OFFSET, handleDatagram, newReceiver, RECEIVE_SCRATCH } from './receiver.ts';
import {
  ARENA_PAGES,
  currentWord,
  findKeypair,
  KEYPAIR_SEND_KEY,
  keypairAt,
  openAllowedIps,
  PREFIXES_MAX,
  RING_HEAD,
  SEND_SEQUENCE,
} from './tables.ts';

const arena = openArena(createSharedMemory(ARENA_PAGES));
const PEER = 3;
const INDEX = 0xdead_beef;

test('cipher: all ways give the known answers, and the same bytes', () => {
  const results = (['node', 'evp', 'internal'] satisfies CipherKind[]).map((kind) => {
    assert.equal(startCipher(arena, RECEIVE_SCRATCH, kind), kind);
    const at = BUFFER_OFFSET + 4096;
    arena.bytes.fill(9, at, at + 1000);
    arena.bytes.fill(3, BUFFER_OFFSET, BUFFER_OFFSET + 32);
    sealPacket(arena, BUFFER_OFFSET, at, 1000, at, -1, 5);
    const sealed = Buffer.from(arena.bytes.slice(at, at + 1016));
    assert.equal(openPacket(arena, BUFFER_OFFSET, at, 1000, -1, 5), true);
    assert.ok(arena.bytes.slice(at, at + 1000).every((byte) => byte === 9));
    return sealed.toString('hex');
  });
  assert.equal(new Set(results).size, 1);
});

function setUp(): { receive(datagram: Uint8Array): Buffer[]; sealed(counter: number): Buffer } {
  const allowedIps = openAllowedIps(arena);
  const owners = new AllowedIps(allowedIps, PREFIXES_MAX);
  owners.set({ words: [0, 0, 0xffff, 0x0a00_0001], length: 128 }, PEER);
  owners.publish();
  const key = new Uint8Array(32).fill(7);
  new Keypairs(arena).install(PEER, {
    ...{ localIndex: INDEX, remoteIndex: 1, sendKey: key, receiveKey: key, isInitiator: true },
    ...{ createdAtMs: 0, expiresAtMs: 1, role: 'current' },
  });
  const written: Buffer[] = [];
  const sum = makeSum(arena);
  const fixed = { arena, sum, family: AF_INET6, allowedIps };
  const r = newReceiver(fixed, (vectors) => {
    const offset = ((arena.unsigned[(vectors + 16) >> 2] as number) - arena.base) >>> 0;
    const bytes = arena.words[(vectors + 24) >> 2] as number;
    written.push(Buffer.from(arena.bytes.slice(offset, offset + bytes)));
    return 0;
  });
  return {
    receive(datagram) {
      written.length = 0;
      arena.bytes.fill(0x5a, BUFFER_OFFSET, BUFFER_OFFSET + 4096);
      arena.bytes.set(datagram, BUFFER_OFFSET + 1024);
      handleDatagram(r, BUFFER_OFFSET + 1024, datagram.length);
      flushCoalescer(r.coalescer, arena, sum);
      for (let at = BUFFER_OFFSET + 1024 + datagram.length; at < BUFFER_OFFSET + 4096; at++) {
        assert.equal(arena.bytes[at], 0x5a, 'nothing behind the datagram is written');
      }
      return [...written];
    },
    sealed(counter) {
      const inner = Buffer.alloc(40, 1);
      Buffer.from([0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]).copy(inner);
      const at = BUFFER_OFFSET + 8192;
      arena.bytes.set(inner, at);
      const keyAt = keypairAt(PEER * 4) + 64;
      sealPacket(arena, keyAt, at, inner.length, at, counter, 0);
      const header = Buffer.alloc(16);
      header[0] = 4;
      header.writeUInt32LE(INDEX, 4);
      header.writeUInt32LE(counter, 8);
      return Buffer.concat([header, arena.bytes.slice(at, at + inner.length + 16)]);
    },
  };
}

test('receiver: an authentic packet is delivered once, without its padding; changed or cut it is not', () => {
  startCipher(arena, RECEIVE_SCRATCH);
  const { receive, sealed } = setUp();
  const packet = sealed(5);
  for (let length = 0; length < packet.length; length++) {
    assert.deepEqual(receive(packet.subarray(0, length)), [], `cut to ${length}`);
  }
  for (let byte = 0; byte < packet.length; byte++) {
    const changed = Buffer.from(packet);
    changed[byte] ^= 0x10;
    assert.deepEqual(receive(changed), [], `byte ${byte} changed`);
  }
  assert.equal(receive(packet)[0]?.length, 30);
  assert.deepEqual(receive(packet), [], 'a repetition');
  assert.equal(receive(sealed(4)).length, 1, 'an older one that is new');
});

test('keypairs: keys stay as long as a data thread may be using them, and can no longer be found', async () => {
  const keypairs = new Keypairs(arena);
  const keys = { sendKey: new Uint8Array(32).fill(1), receiveKey: new Uint8Array(32).fill(2) };
  const peer = 9;
  keypairs.install(peer, {
    ...{ localIndex: 77, remoteIndex: 1, isInitiator: true, ...keys },
    ...{ createdAtMs: 0, expiresAtMs: 1, role: 'current' },
  });
  const keypair = findKeypair(arena, 77);
  const keyAt = keypairAt(keypair) + KEYPAIR_SEND_KEY;
  const isZero = (): boolean => arena.bytes.slice(keyAt, keyAt + 64).every((byte) => byte === 0);
  Atomics.add(arena.words, SEND_SEQUENCE, 1);
  keypairs.remove(peer, 77);
  assert.equal(findKeypair(arena, 77), -1);
  assert.equal(arena.words[currentWord(peer)], 0);
  assert.equal(isZero(), false, 'the sender may be sealing with it');
  Atomics.add(arena.words, SEND_SEQUENCE, 1);
  await until('the keys to be zeroed', isZero);
});

test('receiver: garbage of every type and length is dropped or handed to the handshake', () => {
  const { receive } = setUp();
  const bytes = fc.uint8Array({ maxLength: 400 });
  const property = fc.property(bytes, fc.nat(5), fc.boolean(), (datagram, type, isOurs) => {
    if (datagram.length >= 4) datagram.set([type, 0, 0, 0]);
    if (isOurs && datagram.length >= 8) new DataView(datagram.buffer).setUint32(4, INDEX, true);
    const before = arena.words[RING_HEAD];
    assert.deepEqual(receive(datagram), []);
    const isHandshake = [148, 92, 64][type - 1] === datagram.length;
    if (!isHandshake) assert.equal(arena.words[RING_HEAD], before);
  });
  fc.assert(property, { numRuns: 1000 });
});
