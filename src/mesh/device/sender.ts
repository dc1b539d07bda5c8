// The sending half of the data path: inner packets are sealed with the peer's current keypair and leave in batches of equal
// datagrams. Runs in the thread of send-thread.ts, which alone counts the nonces: no counter is used twice.

import { type Arena, pointerTo } from '../../sys/arena.ts';
import { SEAL_HEADROOM, sealPacket, TAG_BYTES } from '../../sys/cipher.ts';
import { readMonotonic } from '../../sys/clock.ts';
import {
  addEcn,
  addSegmentSize,
  addSource,
  beginMessage,
  IOVEC_BYTES,
  SEND_AREA_BYTES,
  sendMessage,
  setVector,
} from '../../sys/datagram.ts';
import { EAGAIN, ECONNREFUSED, EINVAL, ENOBUFS } from '../../sys/errno.ts';
import { VNET_BYTES } from '../../sys/tun.ts';
import type { AllowedIpsTable } from '../protocol/allowed-ips.ts';
import type { Sum } from './checksum.ts';
import { innerEcn, innerLength, peerOfDestination } from './inner-packet.ts';
import {
  newPacketQueue,
  type PacketQueue,
  QUEUE_AREA_BYTES,
  queuedOffset,
  queuePacket,
  takeQueued,
} from './queue.ts';
import { beginSplit, newSplit, nextSegment, SPLIT_AREA_BYTES, type Split } from './segments.ts';
import {
  BELL,
  type Counter,
  countFloat,
  currentWord,
  ENDPOINT_FLAGS,
  ENDPOINT_LOCAL,
  ENDPOINT_REMOTE,
  ENDPOINT_SCOPE,
  endpointAt,
  HAS_LOCAL,
  HAS_REMOTE,
  KEYPAIR_COUNTER,
  KEYPAIR_EXPIRES,
  KEYPAIR_REMOTE_INDEX,
  KEYPAIR_SEND_KEY,
  keypairAt,
  MTU,
  NEEDS_HANDSHAKE,
  noteActivity,
  PEERS_MAX,
  RECEIVED_UNANSWERED,
  ring,
  SEND_AREA,
  SENT_ANY,
  SENT_UNANSWERED,
  sentFloat,
  URGENT_BELL,
} from './tables.ts';

const HEADER_BYTES = 16;
const TYPE_TRANSPORT = 4;
const OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES;
/** UDP_MAX_SEGMENTS of kernels before 6.9, and the largest datagram less some room for headers. */
const FRAMES_MAX = 64;
const BATCH_BYTES_MAX = 65_000;
/** Counters from here on are not used: doubles are exact far beyond. */
const COUNTER_END = 2 ** 52;
/** After a batch that the system refused to cut, so many go out one by one before it is asked again. */
const UNSEGMENTED_BATCHES = 1000;
const EIO = 5;
const EMSGSIZE = 90;
const EADDRNOTAVAIL = 99;
const CANNOT_SEGMENT: readonly number[] = [EIO, EMSGSIZE, EINVAL];
/** Inner packets up to this size are read: IPv6's greatest without jumbograms. */
const PACKET_BYTES_MAX = 65_575;
const READ_BYTES = VNET_BYTES + PACKET_BYTES_MAX;
const MTU_ASSUMED = 1420;

let end = SEND_AREA;
function area(bytes: number): number {
  const start = end;
  end = Math.ceil((start + bytes) / 64) * 64;
  return start;
}
const MESSAGE = area(SEND_AREA_BYTES);
const ENDPOINT = area(64);
const VECTORS = area(FRAMES_MAX * IOVEC_BYTES);
const TEMPLATE = area(SPLIT_AREA_BYTES);
export const POLLFDS = area(64);
// Headroom, then the virtio header right before the packet, whose words are to be aligned.
const PACKET = area(SEAL_HEADROOM + 64 + PACKET_BYTES_MAX + 64) + SEAL_HEADROOM + 64;
const OUT = area(BATCH_BYTES_MAX + PACKET_BYTES_MAX + (FRAMES_MAX + 1) * 160);
const QUEUE = area(QUEUE_AREA_BYTES);
/** Where the cipher tests itself before there is traffic. */
export const SEND_SCRATCH = OUT;

export interface Sender {
  readonly arena: Arena;
  readonly sum: Sum;
  readonly tun: bigint;
  readonly udp: bigint;
  readonly family: number;
  readonly allowedIps: AllowedIpsTable;
  readonly split: Split;
  readonly queue: PacketQueue;
  readonly now: Float64Array;
  /** Batches of a peer that still go out one by one. */
  readonly unsegmented: Int32Array;
  // The batch being filled.
  peer: number;
  frames: number;
  frameBytes: number;
  batchBytes: number;
  ecn: number;
  /** Where the next frame's ciphertext goes. */
  out: number;
  isClosed: boolean;
  /** The main thread is to be woken, once the packets are on their way. */
  isRinging: boolean;
}

type Fixed = Pick<Sender, 'arena' | 'sum' | 'tun' | 'udp' | 'family' | 'allowedIps'>;

export function newSender(fixed: Fixed): Sender {
  return {
    ...fixed,
    split: newSplit(TEMPLATE),
    queue: newPacketQueue(QUEUE),
    now: new Float64Array(1),
    unsegmented: new Int32Array(PEERS_MAX),
    ...{ peer: -1, frames: 0, frameBytes: 0, batchBytes: 0, ecn: 0, out: 0, isClosed: false },
    isRinging: false,
  };
}

function count(s: Sender, counter: Counter, by: number): void {
  s.arena.floats[countFloat(counter)] += by;
}

/** Copies what main wrote about the peer's endpoint; its flags, 0 = no endpoint. */
function readEndpoint(s: Sender, peer: number): number {
  const { words } = s.arena;
  const from = endpointAt(peer) >> 2;
  const to = ENDPOINT >> 2;
  for (;;) {
    // Even and unchanged around the copy: main was not writing meanwhile.
    const sequence = Atomics.load(words, from);
    for (let word = 1; word < 16; word++) words[to + word] = words[from + word];
    if ((sequence & 1) === 0 && Atomics.load(words, from) === sequence) break;
  }
  const flags = words[(ENDPOINT + ENDPOINT_FLAGS) >> 2];
  return (flags & HAS_REMOTE) === 0 ? 0 : flags;
}

function isMappedV4(a: Arena, at: number): boolean {
  const { words } = a;
  return words[at >> 2] === 0 && words[(at >> 2) + 1] === 0 && words[(at >> 2) + 2] === -65_536;
}

/** Describes the message to the endpoint just read. */
function describe(s: Sender, segmentBytes: number, withSource: boolean): void {
  const { arena, family } = s;
  const scope = arena.words[(ENDPOINT + ENDPOINT_SCOPE) >> 2];
  beginMessage(arena, MESSAGE, family, ENDPOINT + ENDPOINT_REMOTE, scope);
  if (segmentBytes > 0) addSegmentSize(arena, MESSAGE, segmentBytes);
  if (s.ecn !== 0) addEcn(arena, MESSAGE, isMappedV4(arena, ENDPOINT + ENDPOINT_REMOTE), s.ecn);
  if (withSource) addSource(arena, MESSAGE, family, ENDPOINT + ENDPOINT_LOCAL, scope);
}

function transmit(s: Sender, firstFrame: number, frames: number, flags: number): number {
  const { arena } = s;
  const segmentBytes = frames > 1 ? s.frameBytes : 0;
  const vectors = VECTORS + firstFrame * IOVEC_BYTES;
  describe(s, segmentBytes, (flags & HAS_LOCAL) !== 0);
  let result = sendMessage(arena, s.udp, MESSAGE, vectors, frames);
  if (result === -ECONNREFUSED) {
    // What ICMP said about an earlier datagram; it has been taken from the socket now.
    result = sendMessage(arena, s.udp, MESSAGE, vectors, frames);
  }
  if ((result === -EINVAL || result === -EADDRNOTAVAIL) && (flags & HAS_LOCAL) !== 0) {
    // The address that the peer wrote to is no longer ours.
    describe(s, segmentBytes, false);
    result = sendMessage(arena, s.udp, MESSAGE, vectors, frames);
  }
  return result;
}

function countFailure(s: Sender, result: number, frames: number): void {
  if (result >= 0) return;
  if (result === -EAGAIN || result === -ENOBUFS) count(s, 'sendBusy', frames);
  else if (result === -EMSGSIZE) count(s, 'sendTooLarge', frames);
  else count(s, 'sendErrors', frames);
}

/** Sends the batch. */
export function flushBatch(s: Sender): void {
  const { frames, peer } = s;
  if (frames === 0) return;
  s.frames = 0;
  const flags = readEndpoint(s, peer);
  if (flags === 0) {
    count(s, 'sendNoEndpoint', frames);
    return;
  }
  s.arena.floats[sentFloat(peer)] += s.batchBytes;
  if (frames === 1 || s.unsegmented[peer] === 0) {
    const result = transmit(s, 0, frames, flags);
    if (frames === 1 || !CANNOT_SEGMENT.includes(-result)) {
      countFailure(s, result, frames);
      return;
    }
    s.unsegmented[peer] = UNSEGMENTED_BATCHES;
  }
  s.unsegmented[peer]--;
  count(s, 'sendUnsegmented', frames);
  for (let frame = 0; frame < frames; frame++) countFailure(s, transmit(s, frame, 1, flags), 1);
}

function room(s: Sender, peer: number, frameBytes: number, ecn: number): void {
  const fits =
    s.frames > 0 &&
    s.peer === peer &&
    s.ecn === ecn &&
    !s.isClosed &&
    frameBytes <= s.frameBytes &&
    s.frames < FRAMES_MAX &&
    s.batchBytes + frameBytes <= BATCH_BYTES_MAX;
  if (fits) return;
  flushBatch(s);
  s.peer = peer;
  s.ecn = ecn;
  s.frameBytes = frameBytes;
  s.batchBytes = 0;
  s.isClosed = false;
  s.out = OUT + SEAL_HEADROOM;
}

/** The keypair to send with now, or -1. */
function usableKeypair(s: Sender, peer: number): number {
  const { arena, now } = s;
  // After the sequence word was made odd: main does not zero a keypair that is found here before it is even again.
  const keypair = Atomics.load(arena.words, currentWord(peer)) - 1;
  if (keypair < 0) return -1;
  const at = keypairAt(keypair);
  const isFresh = arena.floats[(at + KEYPAIR_EXPIRES) >> 3] > now[0];
  return isFresh && arena.floats[(at + KEYPAIR_COUNTER) >> 3] < COUNTER_END ? keypair : -1;
}

/** Seals a packet into the batch. SEAL_HEADROOM bytes before it are lost; those behind it stay as they are. */
function seal(s: Sender, peer: number, keypair: number, offset: number, length: number): void {
  const { arena } = s;
  const { view, words, floats } = arena;
  const at = keypairAt(keypair);
  // Padded to 16 bytes, but never beyond the MTU: the outer packet would not fit its own.
  const mtu = words[MTU] > 0 ? words[MTU] : MTU_ASSUMED;
  const padded = Math.min((length + 15) & ~15, Math.max(length, mtu));
  room(s, peer, padded + OVERHEAD_BYTES, length === 0 ? 0 : innerEcn(arena, offset));
  const after = offset + length;
  // Zeros for padding take the place of what may be the next packet's payload.
  const kept0 = view.getInt32(after);
  const kept1 = view.getInt32(after + 4);
  const kept2 = view.getInt32(after + 8);
  const kept3 = view.getInt32(after + 12);
  for (let byte = after; byte < offset + padded; byte++) arena.bytes[byte] = 0;
  const counter = floats[(at + KEYPAIR_COUNTER) >> 3];
  floats[(at + KEYPAIR_COUNTER) >> 3] = counter + 1;
  const low = counter | 0;
  const high = (counter / 4_294_967_296) | 0;
  const { out } = s;
  sealPacket(arena, at + KEYPAIR_SEND_KEY, offset, padded, out, low, high);
  view.setInt32(after, kept0);
  view.setInt32(after + 4, kept1);
  view.setInt32(after + 8, kept2);
  view.setInt32(after + 12, kept3);
  const frame = out - HEADER_BYTES;
  words[frame >> 2] = TYPE_TRANSPORT;
  words[(frame + 4) >> 2] = words[(at + KEYPAIR_REMOTE_INDEX) >> 2];
  words[(frame + 8) >> 2] = low;
  words[(frame + 12) >> 2] = high;
  const frameBytes = padded + OVERHEAD_BYTES;
  setVector(arena, VECTORS + s.frames * IOVEC_BYTES, frame, frameBytes);
  s.frames++;
  s.batchBytes += frameBytes;
  s.isClosed = frameBytes < s.frameBytes;
  s.out = (out + padded + TAG_BYTES + SEAL_HEADROOM + 63) & ~63;
}

function noteSent(s: Sender, peer: number, bits: number): void {
  if (!noteActivity(s.arena, peer, bits, RECEIVED_UNANSWERED)) return;
  if (ring(s.arena, BELL)) s.isRinging = true;
}

/** Sends what waits for keys; false: there are none. */
function sendQueued(s: Sender, peer: number): boolean {
  const { queue } = s;
  while (queue.count[peer] > 0) {
    const keypair = usableKeypair(s, peer);
    if (keypair < 0) return false;
    const place = takeQueued(queue, peer);
    seal(s, peer, keypair, queuedOffset(queue, place), queue.lengths[place]);
    noteSent(s, peer, SENT_ANY | SENT_UNANSWERED);
  }
  return true;
}

function waitForKeys(s: Sender, peer: number, offset: number, length: number): void {
  const isFirst = s.queue.count[peer] === 0;
  const dropped = queuePacket(s.queue, s.arena, peer, offset, length);
  if (dropped > 0) count(s, 'sendQueueFull', dropped);
  const isNew = noteActivity(s.arena, peer, NEEDS_HANDSHAKE, 0);
  if (!isNew) return;
  if (ring(s.arena, isFirst ? URGENT_BELL : BELL)) s.isRinging = true;
}

/** Sends or queues one packet that fits the MTU. */
function sendPacket(s: Sender, peer: number, offset: number, length: number): void {
  if (s.queue.count[peer] > 0 && !sendQueued(s, peer)) {
    waitForKeys(s, peer, offset, length);
    return;
  }
  const keypair = usableKeypair(s, peer);
  if (keypair < 0) waitForKeys(s, peer, offset, length);
  else seal(s, peer, keypair, offset, length);
}

export const readTarget = (s: Sender): bigint => pointerTo(s.arena, PACKET - VNET_BYTES);
export const READ_BYTES_MAX = BigInt(READ_BYTES);
/** Where the packet itself then is. */
export const PACKET_OFFSET = PACKET;

/** Handles what was read from the TUN interface: `bytes` at readTarget(). The batch is sent by flushBatch() later. */
export function handleOutbound(s: Sender, bytes: number): void {
  const { arena, split, sum } = s;
  const length = bytes - VNET_BYTES;
  if (length <= 0 || innerLength(arena, PACKET, length) !== length) {
    count(s, 'sendMalformed', 1);
    return;
  }
  const peer = peerOfDestination(arena, s.allowedIps, PACKET);
  if (peer < 0) {
    count(s, 'sendNoRoute', 1);
    return;
  }
  readMonotonic(s.now);
  if (!beginSplit(split, arena, sum, PACKET, length)) {
    count(s, 'sendMalformed', 1);
    return;
  }
  while (nextSegment(split, arena, sum)) sendPacket(s, peer, split.offset, split.length);
  if (s.queue.count[peer] === 0) noteSent(s, peer, SENT_ANY | SENT_UNANSWERED);
}

/** A command of the main thread. */
export interface SendCommand {
  readonly kind: 'flush' | 'drop' | 'keepalive';
  readonly peer: number;
}

export function obey(s: Sender, { kind, peer }: SendCommand): void {
  readMonotonic(s.now);
  if (kind === 'drop') {
    while (takeQueued(s.queue, peer) >= 0);
    return;
  }
  const isEmpty = s.queue.count[peer] === 0;
  sendQueued(s, peer);
  if (kind === 'keepalive' && isEmpty) {
    const keypair = usableKeypair(s, peer);
    if (keypair < 0) return;
    seal(s, peer, keypair, PACKET, 0);
    noteSent(s, peer, SENT_ANY);
  }
  flushBatch(s);
}
