// Runs the data path over tables of its own before there is traffic, so that the first packets, and the few of an idle
// tunnel, already meet optimised code: calls of native functions cost 5 ns there and hundreds before. Nothing leaves: the
// descriptors are no descriptors. Same objects by shape, same functions; the tables are forgotten afterwards.

import { type Arena, createSharedMemory, openArena } from '../../sys/arena.ts';
import { sealPacket } from '../../sys/cipher.ts';
import { AF_INET6 } from '../../sys/sockaddr.ts';
import { AllowedIps } from '../protocol/allowed-ips.ts';
import { makeSum } from './checksum.ts';
import { flushCoalescer, type PacketWriter } from './coalesce.ts';
import { Keypairs } from './keypairs.ts';
import { BUFFER_OFFSET, handleDatagram, newReceiver } from './receiver.ts';
import { flushBatch, handleOutbound, newSender, PACKET_OFFSET } from './sender.ts';
import {
  ARENA_PAGES,
  ENDPOINT_FLAGS,
  endpointAt,
  firstKeypair,
  HAS_REMOTE,
  KEYPAIR_RECEIVE_KEY,
  keypairAt,
  openAllowedIps,
  PREFIXES_MAX,
} from './tables.ts';

const ROUNDS = 4000;
const PEER = 0;
const INDEX = 1;
const NO_DESCRIPTOR = 0xffff_ffffn;
const VNET_BYTES = 10;
/** An IPv4 packet from 10.0.0.1 to 10.0.0.2, UDP. */
const INNER = Uint8Array.from([
  ...[0x45, 0, 0, 84, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
  ...new Uint8Array(64),
]);
const FRAME_BYTES = 16 + INNER.length + 16;

function openTables(): Arena {
  const a = openArena(createSharedMemory(ARENA_PAGES));
  const owners = new AllowedIps(openAllowedIps(a), PREFIXES_MAX);
  owners.set({ words: [0, 0, 0xffff, 0x0a00_0000], length: 120 }, PEER);
  owners.publish();
  new Keypairs(a).install(PEER, {
    ...{ localIndex: INDEX, remoteIndex: INDEX, isInitiator: true, createdAtMs: 0 },
    ...{ sendKey: new Uint8Array(32), receiveKey: new Uint8Array(32) },
    ...{ expiresAtMs: Number.MAX_VALUE, role: 'current' },
  });
  a.words[(endpointAt(PEER) + ENDPOINT_FLAGS) >> 2] = HAS_REMOTE;
  return a;
}

export function warmSender(): void {
  const a = openTables();
  const s = newSender({
    ...{ arena: a, sum: makeSum(a), tun: NO_DESCRIPTOR, udp: NO_DESCRIPTOR, family: AF_INET6 },
    allowedIps: openAllowedIps(a),
  });
  for (let round = 0; round < ROUNDS; round++) {
    a.bytes.set(INNER, PACKET_OFFSET);
    handleOutbound(s, VNET_BYTES + INNER.length);
    flushBatch(s);
  }
}

/** `write` is the function that the receiver will write with, on no descriptor. */
export function warmReceiver(write: PacketWriter): void {
  const a = openTables();
  const sum = makeSum(a);
  const fixed = { arena: a, sum, family: AF_INET6, allowedIps: openAllowedIps(a) };
  const r = newReceiver(fixed, write);
  const text = BUFFER_OFFSET + 128;
  const key = keypairAt(firstKeypair(PEER)) + KEYPAIR_RECEIVE_KEY;
  r.now[0] = 1;
  for (let round = 0; round < ROUNDS; round++) {
    a.bytes.set(INNER, text);
    sealPacket(a, key, text, INNER.length, text, round, 0);
    a.words.set([4, INDEX, round, 0], (text - 16) >> 2);
    handleDatagram(r, text - 16, FRAME_BYTES);
    flushCoalescer(r.coalescer, a, sum);
  }
}
