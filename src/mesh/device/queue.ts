// Packets that wait for keys: for each peer the newest few, in places that all peers share. When a peer has its share the
// oldest goes; when all places are taken the new one is refused. The sending thread's own.

import type { Arena } from '../../sys/arena.ts';
import { SEAL_HEADROOM } from '../../sys/cipher.ts';
import { PEERS_MAX } from './tables.ts';

const PLACES = 512;
/** Of one peer: what a TCP connection sends at once, and a few others' first packets. */
export const QUEUED_MAX = 128;
/** Longer packets do not wait: they are dropped while there are no keys. */
const PACKET_BYTES_MAX = 9216;
const PADDING_BYTES = 16;
const PLACE_BYTES = SEAL_HEADROOM + PACKET_BYTES_MAX + PADDING_BYTES;
export const QUEUE_AREA_BYTES = PLACES * PLACE_BYTES;

export interface PacketQueue {
  readonly area: number;
  readonly lengths: Int32Array;
  /** The place behind a place in its queue, or of the free ones; -1 = none. */
  readonly next: Int32Array;
  readonly head: Int32Array;
  readonly tail: Int32Array;
  readonly count: Int32Array;
  free: number;
}

export function newPacketQueue(area: number): PacketQueue {
  const next = Int32Array.from({ length: PLACES }, (_, place) => place + 1);
  next[PLACES - 1] = -1;
  return {
    ...{ area, next, lengths: new Int32Array(PLACES), free: 0 },
    head: new Int32Array(PEERS_MAX).fill(-1),
    tail: new Int32Array(PEERS_MAX).fill(-1),
    count: new Int32Array(PEERS_MAX),
  };
}

/** The oldest packet of a peer: its place, which is read before the next packet is queued; -1 = none. */
export function takeQueued(q: PacketQueue, peer: number): number {
  const place = q.head[peer];
  if (place < 0) return -1;
  q.head[peer] = q.next[place];
  if (q.head[peer] < 0) q.tail[peer] = -1;
  q.count[peer]--;
  q.next[place] = q.free;
  q.free = place;
  return place;
}

export const queuedOffset = (q: PacketQueue, place: number): number =>
  q.area + place * PLACE_BYTES + SEAL_HEADROOM;

/** Copies a packet to the end of a peer's queue; how many packets that cost, itself or an older one. */
export function queuePacket(
  q: PacketQueue,
  a: Arena,
  peer: number,
  offset: number,
  length: number,
): number {
  if (length > PACKET_BYTES_MAX) return 1;
  let dropped = 0;
  if (q.count[peer] >= QUEUED_MAX) {
    takeQueued(q, peer);
    dropped = 1;
  }
  const place = q.free;
  if (place < 0) return dropped + 1;
  q.free = q.next[place];
  q.next[place] = -1;
  if (q.tail[peer] < 0) q.head[peer] = place;
  else q.next[q.tail[peer]] = place;
  q.tail[peer] = place;
  q.count[peer]++;
  q.lengths[place] = length;
  a.bytes.copyWithin(queuedOffset(q, place), offset, offset + length);
  return dropped;
}
