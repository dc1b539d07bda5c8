// A ring of fixed-size records in shared memory from one thread to another: one writer, one reader, no locks, nothing
// allocated, nobody woken. When it is full the record is dropped and counted: the writer never waits.
//
//   header    head (reader), tail (writer), dropped (writer), each on a cache line of its own
//   records   `recordWords` 32-bit words each; 64-bit fields are the same memory seen as float64
//
// Head and tail count records modulo 2^32 and only ever grow, so full and empty differ.

import { assert } from './assert.ts';

const HEADER_WORDS = 48;
const HEAD = 0;
const TAIL = 16;
const DROPPED_DOUBLE = 16;

export interface RecordRing {
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  /** Records it holds, a power of two. */
  readonly capacity: number;
  readonly recordWords: number;
}

/** `recordWords` must be even, for the float64 view; `capacity` a power of two. */
export function recordRingBytes(capacity: number, recordWords: number): number {
  assert(recordWords > 0 && recordWords % 2 === 0, 'A record is not whole float64s');
  assert(Number.isInteger(capacity) && capacity > 0, 'A ring holds no whole number of records');
  assert((capacity & (capacity - 1)) === 0, 'A ring is no power of two');
  return (HEADER_WORDS + capacity * recordWords) * 4;
}

/** All zero is an empty ring. */
export function openRecordRing(buffer: SharedArrayBuffer, recordWords: number): RecordRing {
  const capacity = (buffer.byteLength / 4 - HEADER_WORDS) / recordWords;
  assert(recordRingBytes(capacity, recordWords) === buffer.byteLength, 'Not a record ring');
  return {
    words: new Int32Array(buffer),
    doubles: new Float64Array(buffer),
    capacity,
    recordWords,
  };
}

function wordOf(ring: RecordRing, record: number): number {
  return HEADER_WORDS + (record & (ring.capacity - 1)) * ring.recordWords;
}

/** Writer: the word offset of the record to fill in before publishRecord(), or -1 when the ring is full. */
export function claimRecord(ring: RecordRing): number {
  const { words, capacity } = ring;
  const tail = words[TAIL];
  // After the reader's store of the head its reads of that record are over: it may be written again.
  if (((tail - Atomics.load(words, HEAD)) | 0) < capacity) return wordOf(ring, tail);
  ring.doubles[DROPPED_DOUBLE]++;
  return -1;
}

/** Writer: hands over the record that claimRecord() gave. */
export function publishRecord(ring: RecordRing): void {
  const { words } = ring;
  // Ordered after the record's fields: a reader that sees the new tail sees them.
  Atomics.store(words, TAIL, (words[TAIL] + 1) | 0);
}

/** Reader: how many records wait. */
export function recordsWaiting(ring: RecordRing): number {
  const { words } = ring;
  return (Atomics.load(words, TAIL) - words[HEAD]) | 0;
}

/** Reader: the word offset of the record that waits longest; one must be waiting. */
export function firstRecord(ring: RecordRing): number {
  return wordOf(ring, ring.words[HEAD]);
}

/** Reader: done with the record that waited longest. */
export function releaseRecord(ring: RecordRing): void {
  const { words } = ring;
  Atomics.store(words, HEAD, (words[HEAD] + 1) | 0);
}

/** Records that found the ring full, ever. */
export function recordsDropped(ring: RecordRing): number {
  return ring.doubles[DROPPED_DOUBLE];
}
