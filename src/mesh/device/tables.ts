// The memory that the main thread and the two data threads of the device share, and who writes what in it.
//
//   control   words that all look at            endpoints  where peers are: main writes, the sender reads (a seqlock)
//   counts    drops, one writer per half        roams      where an authentic packet came from: the receiver writes
//   peers     current keypair, activity bits    keypairs   main writes; counter: the sender, window: the receiver
//   traffic   bytes by peer, one writer each    index      local index -> keypair: main writes, the receiver reads
//   ring      handshake messages, receiver -> main          allowedIps: see allowed-ips.ts
//   send, receive: work areas of one data thread each
//
// A keypair is unlinked first and its keys zeroed when no data thread can still be using it: each makes its sequence word odd
// before it looks at the tables and even when it is done.

import { type Arena, PAGE_BYTES } from '../../sys/arena.ts';
import { AllowedIpsTable } from '../protocol/allowed-ips.ts';
import { REPLAY_WORDS } from '../protocol/replay-window.ts';

export const PEERS_MAX = 1024;
export const PREFIXES_MAX = 8192;
/** Current, previous, next, and one that is being zeroed. */
const KEYPAIRS_PER_PEER = 4;
const KEYPAIRS_MAX = PEERS_MAX * KEYPAIRS_PER_PEER;
const INDEX_WAYS = 8;
const INDEX_BUCKETS = 4096;
export const RING_SLOTS = 256;
export const RING_SLOT_BYTES = 256;

let end = 0;
function area(bytes: number): number {
  const start = end;
  end = Math.ceil((start + bytes) / 64) * 64;
  return start;
}

const CONTROL = area(1024);
export const COUNTS = area(1024);
const PEERS = area(PEERS_MAX * 16);
const SENT_BYTES = area(PEERS_MAX * 8);
const RECEIVED_BYTES = area(PEERS_MAX * 8);
const ENDPOINTS = area(PEERS_MAX * 64);
const ROAMS = area(PEERS_MAX * 64);
const KEYPAIR_BYTES = 192;
const KEYPAIRS = area(KEYPAIRS_MAX * KEYPAIR_BYTES);
const REPLAY_STRIDE = Math.ceil((REPLAY_WORDS * 4) / 64) * 64;
const REPLAY = area(KEYPAIRS_MAX * REPLAY_STRIDE);
const INDEX = area(INDEX_BUCKETS * INDEX_WAYS * 4);
const RING = area(RING_SLOTS * RING_SLOT_BYTES);
const ALLOWED_IPS = area(AllowedIpsTable.bytes(PREFIXES_MAX));
/** 4 KiB that the main thread may use for calls. */
export const MAIN_AREA = area(4096);
export const SEND_AREA = area(6 * 1024 * 1024);
export const RECEIVE_AREA = area(4 * 1024 * 1024);
export const ARENA_PAGES = Math.ceil(end / PAGE_BYTES);

// Words of the control block. Those of different writers are 64 bytes apart.
export const STOP = CONTROL >> 2;
/** 1 = the main thread knows that there is activity and will look by itself. */
export const BELL = STOP + 16;
/** The same for what cannot wait. */
export const URGENT_BELL = STOP + 32;
export const SEND_SEQUENCE = STOP + 48;
export const RECEIVE_SEQUENCE = STOP + 64;
/** Counts the commands posted to the sender. */
export const COMMANDS = STOP + 80;
export const MTU = STOP + 96;
/** Messages ever written by the receiver, resp. taken by main. */
export const RING_HEAD = STOP + 112;
export const RING_TAIL = STOP + 128;

// Activity bits of a peer, as in PeerActivity of port.ts.
export const SENT_ANY = 1;
export const RECEIVED_ANY = 2;
export const SENT_UNANSWERED = 4;
export const RECEIVED_UNANSWERED = 8;
export const NEEDS_HANDSHAKE = 16;
export const KEYS_USED = 32;
export const ROAMED = 64;

// Words of a peer's row.
export const currentWord = (peer: number): number => (PEERS >> 2) + peer * 4;
export const activityWord = (peer: number): number => (PEERS >> 2) + peer * 4 + 1;
export const keysUsedWord = (peer: number): number => (PEERS >> 2) + peer * 4 + 2;
export const sentFloat = (peer: number): number => (SENT_BYTES >> 3) + peer;
export const receivedFloat = (peer: number): number => (RECEIVED_BYTES >> 3) + peer;

// Bytes of an endpoint, and of a roam: sequence, flags, interface of a link-local address; endpoint; local address.
export const endpointAt = (peer: number): number => ENDPOINTS + peer * 64;
export const roamAt = (peer: number): number => ROAMS + peer * 64;
export const ENDPOINT_FLAGS = 4;
export const ENDPOINT_SCOPE = 8;
export const ENDPOINT_REMOTE = 16;
export const ENDPOINT_LOCAL = 40;
export const HAS_REMOTE = 1;
export const HAS_LOCAL = 2;

// Bytes of a keypair.
export const keypairAt = (keypair: number): number => KEYPAIRS + keypair * KEYPAIR_BYTES;
export const KEYPAIR_STATE = 0;
export const KEYPAIR_LOCAL_INDEX = 4;
export const KEYPAIR_REMOTE_INDEX = 8;
export const KEYPAIR_PEER = 12;
export const KEYPAIR_EXPIRES = 16;
/** 0 until the first authentic packet of a keypair of role `next`. */
export const KEYPAIR_USED = 24;
export const KEYPAIR_SEND_KEY = 32;
export const KEYPAIR_RECEIVE_KEY = 64;
/** A double: the next counter. Only the sender writes it, so no counter is ever used twice. */
export const KEYPAIR_COUNTER = 128;
export const replayWord = (keypair: number): number => (REPLAY + keypair * REPLAY_STRIDE) >> 2;

export const firstKeypair = (peer: number): number => peer * KEYPAIRS_PER_PEER;
export const KEYPAIRS_EACH = KEYPAIRS_PER_PEER;

const bucketWord = (localIndex: number): number =>
  (INDEX >> 2) + (localIndex & (INDEX_BUCKETS - 1)) * INDEX_WAYS;

/** Makes a keypair findable; false when its bucket is full (once in 10^7 with all peers busy). Main thread. */
export function linkKeypair(a: Arena, localIndex: number, keypair: number): boolean {
  const bucket = bucketWord(localIndex);
  for (let way = 0; way < INDEX_WAYS; way++) {
    if (a.words[bucket + way] !== 0) continue;
    // After the keys have been written: who finds the keypair finds it whole.
    Atomics.store(a.words, bucket + way, keypair + 1);
    return true;
  }
  return false;
}

export function unlinkKeypair(a: Arena, localIndex: number, keypair: number): void {
  const bucket = bucketWord(localIndex);
  for (let way = 0; way < INDEX_WAYS; way++) {
    if (a.words[bucket + way] === keypair + 1) Atomics.store(a.words, bucket + way, 0);
  }
}

/** The keypair of a local index (signed or unsigned), or -1. */
export function findKeypair(a: Arena, localIndex: number): number {
  const bucket = bucketWord(localIndex);
  for (let way = 0; way < INDEX_WAYS; way++) {
    const keypair = a.words[bucket + way] - 1;
    if (keypair < 0) continue;
    const at = keypairAt(keypair);
    if (a.words[(at + KEYPAIR_LOCAL_INDEX) >> 2] !== (localIndex | 0)) continue;
    // Still linked after the receiver made its sequence word odd: main zeroes it only when that has changed.
    if (Atomics.load(a.words, bucket + way) === keypair + 1) return keypair;
  }
  return -1;
}

export function openAllowedIps(a: Arena): AllowedIpsTable {
  return new AllowedIpsTable(a.memory.buffer, ALLOWED_IPS, PREFIXES_MAX);
}

export const ringSlot = (count: number): number =>
  RING + (count & (RING_SLOTS - 1)) * RING_SLOT_BYTES;
// Bytes of a ring slot: length of the message, flags and scope as in an endpoint, endpoint, local address, message.
export const RING_MESSAGE = 64;

/** What data threads drop or do, for the log. The sender writes the first half, the receiver the second. */
export const COUNTERS = [
  'sendNoRoute',
  'sendMalformed',
  'sendQueueFull',
  'sendNoEndpoint',
  'sendErrors',
  'sendBusy',
  'sendUnsegmented',
  'sendTooLarge',
  'receiveMalformed',
  'receiveUnknownIndex',
  'receiveForged',
  'receiveReplayed',
  'receiveWrongSource',
  'receiveBadInner',
  'receiveWriteErrors',
  'receiveRingFull',
  'receiveCongestion',
] as const;
export type Counter = (typeof COUNTERS)[number];
export const countFloat = (counter: Counter): number => (COUNTS >> 3) + COUNTERS.indexOf(counter);

/** Whether the bell had to be rung: the caller then tells the main thread. */
export function ring(a: Arena, bell: number): boolean {
  // A plain look first: mostly it has been rung already.
  if (a.words[bell] !== 0) return false;
  return Atomics.exchange(a.words, bell, 1) === 0;
}

/** Sets and clears activity bits of a peer; true when something is new. */
export function noteActivity(a: Arena, peer: number, set: number, clear: number): boolean {
  const word = activityWord(peer);
  const now = a.words[word];
  if ((now & set) === set && (now & clear) === 0) return false;
  if ((now & clear) !== 0) Atomics.and(a.words, word, ~clear);
  return (Atomics.or(a.words, word, set) & set) !== set;
}
