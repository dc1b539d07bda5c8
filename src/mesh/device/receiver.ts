// The receiving half of the data path: datagrams are authenticated, checked against the replay window and the peer's allowed
// IPs, and their packets handed to the TUN interface, joined where they can be. Runs in the thread of receive-thread.ts.
// Everything that comes in here was written by strangers: each length is checked before a byte behind it is read.

import { type Arena, pointerTo } from '../../sys/arena.ts';
import { openPacket, TAG_BYTES } from '../../sys/cipher.ts';
import { readMonotonic } from '../../sys/clock.ts';
import {
  CONTROL_BYTES,
  IOVEC_BYTES,
  MMSGHDR_BYTES,
  NAME_BYTES,
  prepareReceive,
  type Received,
  readControl,
  readName,
  readScope,
  setVector,
} from '../../sys/datagram.ts';
import { AF_INET } from '../../sys/sockaddr.ts';
import type { AllowedIpsTable } from '../protocol/allowed-ips.ts';
import { acceptCounter } from '../protocol/replay-window.ts';
import type { Sum } from './checksum.ts';
import {
  COALESCE_AREA_BYTES,
  type Coalescer,
  coalesce,
  flushCoalescer,
  newCoalescer,
  type PacketWriter,
} from './coalesce.ts';
import { applyEcn, innerLength, peerOfSource } from './inner-packet.ts';
import {
  activityWord,
  BELL,
  type Counter,
  countFloat,
  ENDPOINT_FLAGS,
  ENDPOINT_LOCAL,
  ENDPOINT_REMOTE,
  ENDPOINT_SCOPE,
  endpointAt,
  findKeypair,
  HAS_LOCAL,
  HAS_REMOTE,
  KEYPAIR_EXPIRES,
  KEYPAIR_PEER,
  KEYPAIR_RECEIVE_KEY,
  KEYPAIR_USED,
  KEYS_USED,
  keypairAt,
  keysUsedWord,
  noteActivity,
  RECEIVE_AREA,
  RECEIVED_ANY,
  RECEIVED_UNANSWERED,
  RING_HEAD,
  RING_MESSAGE,
  RING_SLOTS,
  RING_TAIL,
  ROAMED,
  receivedFloat,
  replayWord,
  ring,
  ringSlot,
  roamAt,
  SENT_UNANSWERED,
  URGENT_BELL,
} from './tables.ts';

const MESSAGES = 32;
const BUFFER_BYTES = 65_536;
const BUFFER_STRIDE = BUFFER_BYTES + 64;
const HEADER_BYTES = 16;
const TRANSPORT_BYTES_MIN = HEADER_BYTES + TAG_BYTES;
const TYPE_TRANSPORT = 4;
/** Bytes of the messages of the handshake, by type. */
const HANDSHAKE_BYTES: readonly number[] = [0, 148, 92, 64];
const ENDPOINT_BYTES = 18;

let end = RECEIVE_AREA;
function area(bytes: number): number {
  const start = end;
  end = Math.ceil((start + bytes) / 64) * 64;
  return start;
}
const HEADERS = area(MESSAGES * MMSGHDR_BYTES);
const VECTORS = area(MESSAGES * IOVEC_BYTES);
const NAMES = area(MESSAGES * NAME_BYTES);
const CONTROLS = area(MESSAGES * CONTROL_BYTES);
export const POLLFDS = area(64);
/** Who sent the message at hand: 18 bytes; and to which of our addresses: 16 bytes. */
const SOURCE = area(64);
const COALESCE = area(COALESCE_AREA_BYTES);
const BUFFERS = area(MESSAGES * BUFFER_STRIDE);
export const RECEIVE_SCRATCH = BUFFERS;
/** For tests, which put messages there themselves. */
export const BUFFER_OFFSET = BUFFERS;
export const MESSAGE_COUNT = BigInt(MESSAGES);

export interface Receiver {
  readonly arena: Arena;
  readonly sum: Sum;
  readonly family: number;
  readonly allowedIps: AllowedIpsTable;
  readonly coalescer: Coalescer;
  readonly now: Float64Array;
  readonly message: Received;
  scope: number;
  /** The peer whose endpoint has been compared with the message's source. */
  comparedPeer: number;
  /** The main thread is to be woken, once the packets are written. */
  isRinging: boolean;
}

type Fixed = Pick<Receiver, 'arena' | 'sum' | 'family' | 'allowedIps'>;

export function newReceiver(fixed: Fixed, write: PacketWriter): Receiver {
  const r: Receiver = {
    ...fixed,
    coalescer: newCoalescer(COALESCE, write),
    now: new Float64Array(1),
    message: { bytes: 0, segmentBytes: 0, ecn: 0, local: 0, isCut: false },
    scope: 0,
    comparedPeer: -1,
    isRinging: false,
  };
  prepare(r, MESSAGES);
  return r;
}

/** Makes the first `count` headers ready to be received into. */
function prepare({ arena }: Receiver, count: number): void {
  for (let index = 0; index < count; index++) {
    const vector = VECTORS + index * IOVEC_BYTES;
    setVector(arena, vector, BUFFERS + index * BUFFER_STRIDE, BUFFER_BYTES);
    const name = NAMES + index * NAME_BYTES;
    const control = CONTROLS + index * CONTROL_BYTES;
    prepareReceive(arena, HEADERS + index * MMSGHDR_BYTES, name, vector, control);
  }
}

export const receiveTarget = (r: Receiver): bigint => pointerTo(r.arena, HEADERS);

function count(r: Receiver, counter: Counter): void {
  r.arena.floats[countFloat(counter)] += 1;
}

function writeSource(r: Receiver, to: number): void {
  const { arena } = r;
  const { bytes, words } = arena;
  words[(to + ENDPOINT_FLAGS) >> 2] = r.message.local === 0 ? HAS_REMOTE : HAS_REMOTE | HAS_LOCAL;
  words[(to + ENDPOINT_SCOPE) >> 2] = r.scope;
  bytes.copyWithin(to + ENDPOINT_REMOTE, SOURCE, SOURCE + ENDPOINT_BYTES);
  const local = to + ENDPOINT_LOCAL;
  if (r.message.local === 0) return;
  if (r.family !== AF_INET) {
    bytes.copyWithin(local, r.message.local, r.message.local + 16);
    return;
  }
  words[local >> 2] = 0;
  words[(local + 4) >> 2] = 0;
  words[(local + 8) >> 2] = -65_536;
  bytes.copyWithin(local + 12, r.message.local, r.message.local + 4);
}

/** Hands a message of the handshake to the main thread. */
function passOn(r: Receiver, offset: number, length: number): void {
  const { words, bytes } = r.arena;
  const head = words[RING_HEAD];
  // Main raises the tail when it has copied a message.
  if (((head - Atomics.load(words, RING_TAIL)) | 0) >= RING_SLOTS) {
    count(r, 'receiveRingFull');
    return;
  }
  const slot = ringSlot(head);
  words[slot >> 2] = length;
  writeSource(r, slot);
  bytes.copyWithin(slot + RING_MESSAGE, offset, offset + length);
  // The slot is whole before main can see it.
  Atomics.store(words, RING_HEAD, (head + 1) | 0);
  if (ring(r.arena, URGENT_BELL)) r.isRinging = true;
}

/** Reports an authentic packet that came from elsewhere than the peer's endpoint. */
function compareSource(r: Receiver, peer: number): void {
  r.comparedPeer = peer;
  const { arena } = r;
  const { bytes, words } = arena;
  const endpoint = endpointAt(peer);
  let isSame = (words[(endpoint + ENDPOINT_FLAGS) >> 2] & HAS_REMOTE) !== 0;
  // Main may be writing: what is read wrong then is read right with the next packet.
  for (let byte = 0; byte < ENDPOINT_BYTES && isSame; byte++) {
    isSame = bytes[endpoint + ENDPOINT_REMOTE + byte] === bytes[SOURCE + byte];
  }
  // The report before this one belongs to main until it has cleared the bit.
  if (isSame || (Atomics.load(words, activityWord(peer)) & ROAMED) !== 0) return;
  writeSource(r, roamAt(peer));
  noteActivity(arena, peer, ROAMED, 0);
  if (ring(arena, URGENT_BELL)) r.isRinging = true;
}

function noteReceived(r: Receiver, peer: number, keypair: number, isData: boolean): void {
  const { arena } = r;
  const used = (keypairAt(keypair) + KEYPAIR_USED) >> 2;
  if (arena.words[used] === 0) {
    arena.words[used] = 1;
    Atomics.store(arena.words, keysUsedWord(peer), keypair);
    noteActivity(arena, peer, KEYS_USED, 0);
    if (ring(arena, URGENT_BELL)) r.isRinging = true;
  }
  if (r.comparedPeer !== peer) compareSource(r, peer);
  const bits = isData ? RECEIVED_ANY | RECEIVED_UNANSWERED : RECEIVED_ANY;
  if (noteActivity(arena, peer, bits, SENT_UNANSWERED) && ring(arena, BELL)) r.isRinging = true;
}

/** Handles a packet that is authentic and new: `length` bytes at `offset`, padding included. */
function deliver(r: Receiver, peer: number, offset: number, length: number): void {
  const { arena } = r;
  const inner = innerLength(arena, offset, length);
  if (inner === 0) {
    count(r, 'receiveBadInner');
    return;
  }
  if (peerOfSource(arena, r.allowedIps, offset) !== peer) {
    count(r, 'receiveWrongSource');
    return;
  }
  if (!applyEcn(arena, offset, r.message.ecn)) {
    count(r, 'receiveCongestion');
    return;
  }
  coalesce(r.coalescer, arena, r.sum, offset, inner);
}

function handleTransport(r: Receiver, offset: number, length: number): void {
  const { arena, now } = r;
  const { view, words, floats } = arena;
  const keypair = findKeypair(arena, view.getInt32(offset + 4, true));
  if (keypair < 0) {
    count(r, 'receiveUnknownIndex');
    return;
  }
  const at = keypairAt(keypair);
  const low = view.getInt32(offset + 8, true);
  const high = view.getInt32(offset + 12, true);
  const bytes = length - TRANSPORT_BYTES_MIN;
  const text = offset + HEADER_BYTES;
  const isFresh = floats[(at + KEYPAIR_EXPIRES) >> 3] > now[0];
  if (!isFresh || !openPacket(arena, at + KEYPAIR_RECEIVE_KEY, text, bytes, low, high)) {
    count(r, 'receiveForged');
    return;
  }
  if (!acceptCounter(words, replayWord(keypair), low, high)) {
    count(r, 'receiveReplayed');
    return;
  }
  const peer = words[(at + KEYPAIR_PEER) >> 2];
  floats[receivedFloat(peer)] += length;
  noteReceived(r, peer, keypair, bytes > 0);
  if (bytes > 0) deliver(r, peer, text, bytes);
}

/** Handles one datagram of `length` bytes at `offset`. */
export function handleDatagram(r: Receiver, offset: number, length: number): void {
  // The type is one byte, and three that must be zero.
  const type = length < HEADER_BYTES ? 0 : r.arena.view.getInt32(offset, true);
  if (type === TYPE_TRANSPORT && length >= TRANSPORT_BYTES_MIN) {
    handleTransport(r, offset, length);
  } else if (type >= 1 && type <= 3 && length === HANDSHAKE_BYTES[type]) {
    passOn(r, offset, length);
  } else {
    count(r, 'receiveMalformed');
  }
}

function handleMessage(r: Receiver, index: number): void {
  const { arena, message } = r;
  const header = HEADERS + index * MMSGHDR_BYTES;
  readControl(arena, header, CONTROLS + index * CONTROL_BYTES, message);
  if (message.isCut || message.bytes > BUFFER_BYTES) {
    count(r, 'receiveMalformed');
    return;
  }
  const name = NAMES + index * NAME_BYTES;
  readName(arena, name, SOURCE);
  r.scope = readScope(arena, name);
  r.comparedPeer = -1;
  const buffer = BUFFERS + index * BUFFER_STRIDE;
  const { bytes, segmentBytes } = message;
  for (let at = 0; at < bytes; at += segmentBytes) {
    handleDatagram(r, buffer + at, Math.min(segmentBytes, bytes - at));
  }
}

/** Handles `messages` messages received at receiveTarget(). */
export function handleInbound(r: Receiver, messages: number): void {
  readMonotonic(r.now);
  for (let index = 0; index < messages; index++) handleMessage(r, index);
  flushCoalescer(r.coalescer, r.arena, r.sum);
  r.arena.floats[countFloat('receiveWriteErrors')] = r.coalescer.failures;
  prepare(r, messages);
}
