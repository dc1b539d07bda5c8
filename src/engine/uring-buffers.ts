// The receive buffers of one uring engine: a mapped region cut into equal buffers, and the provided-buffer ring
// (io_uring_register(2), IORING_REGISTER_PBUF_RING, 5.19) through which the kernel takes them.
//
// The kernel takes buffers in the order given, so giving it all of them would touch the memory of all. It therefore gets
// a small working set; the rest waits on a stack, used last-in first-out, and costs no memory until touched. When the
// kernel runs out (ENOBUFS) the working set doubles, up to all buffers.

import { assert } from '../base/assert.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { type Ring, registerBufferRing } from '../sys/uring.ts';
import {
  BUF_ADDR_HIGH,
  BUF_ADDR_LOW,
  BUF_BID_HALFWORD,
  BUF_LEN,
  BUF_RING_TAIL_HALFWORD,
  BUF_WORDS,
} from '../sys/uring-abi.ts';
import { IdleBuffers } from './idle-buffers.ts';
import { isStillScarce } from './proactor.ts';
import { WRITE_BUFFERS } from './write-buffers.ts';

/** Buffers the kernel holds at start; enough for a batch of small exchanges, 256 KiB of touched pages. */
const WORKING_SET_MIN = 64;
/** The kernel's own limit for one buffer ring. */
const RING_ENTRIES_MAX = 32_768;

export interface UringBuffers {
  readonly bufferBytes: number;
  readonly count: number;
  readonly group: number;
  /** Address of each buffer, as words of a submission entry; those to write into included. */
  readonly addressLow: Int32Array;
  readonly addressHigh: Int32Array;
  readonly ringWords: Int32Array;
  readonly ringHalfwords: Uint16Array;
  readonly ringMask: number;
  /** Buffers neither with the kernel nor with the data plane. */
  readonly idle: IdleBuffers;
  /** Buffers the kernel may fill now, and how many it should have. */
  ready: number;
  workingSet: number;
  tail: number;
  inUse: number;
  isScarce: boolean;
  readonly region: Mapping;
  readonly header: Mapping;
}

/**
 * Registers at most `count` buffers (rounded down to a power of two) as `group`; -errno when the kernel refuses. Behind
 * them in memory are those to write into, which the kernel never gets.
 */
export function openBuffers(
  ring: Ring,
  bufferBytes: number,
  count: number,
  group: number,
): UringBuffers | number {
  const entries = Math.min(RING_ENTRIES_MAX, 2 ** Math.floor(Math.log2(Math.max(1, count))));
  const all = entries + WRITE_BUFFERS;
  const region = mapMemory(all * bufferBytes, 'buffers');
  const header = mapMemory(entries * BUF_WORDS * 4, 'the buffer ring');
  const result = registerBufferRing(ring, header.address, entries, group);
  if (result < 0) {
    unmap(region);
    unmap(header);
    return result;
  }
  const buffers: UringBuffers = {
    bufferBytes,
    count: entries,
    group,
    addressLow: new Int32Array(all),
    addressHigh: new Int32Array(all),
    ringWords: new Int32Array(header.buffer),
    ringHalfwords: new Uint16Array(header.buffer),
    ringMask: entries - 1,
    idle: new IdleBuffers(region, bufferBytes, entries),
    ready: 0,
    workingSet: Math.min(WORKING_SET_MIN, entries),
    tail: 0,
    inUse: 0,
    isScarce: false,
    region,
    header,
  };
  const base = Number(region.address);
  for (let buffer = all - 1; buffer >= 0; buffer--) {
    // User addresses are below 2^47, exact as a number.
    const address = base + buffer * bufferBytes;
    buffers.addressLow[buffer] = address | 0;
    buffers.addressHigh[buffer] = Math.floor(address / 2 ** 32);
  }
  refill(buffers);
  return buffers;
}

function give(buffers: UringBuffers, buffer: number): void {
  const entry = (buffers.tail & buffers.ringMask) * BUF_WORDS;
  const { ringWords, ringHalfwords } = buffers;
  ringWords[entry + BUF_ADDR_LOW] = buffers.addressLow[buffer];
  ringWords[entry + BUF_ADDR_HIGH] = buffers.addressHigh[buffer];
  ringWords[entry + BUF_LEN] = buffers.bufferBytes;
  ringHalfwords[entry * 2 + BUF_BID_HALFWORD] = buffer;
  buffers.tail = (buffers.tail + 1) & 0xffff;
  buffers.ready++;
  // The kernel reads the tail only inside io_uring_enter of this thread, so a plain store orders well enough.
  ringHalfwords[BUF_RING_TAIL_HALFWORD] = buffers.tail;
}

/** Tops the kernel's working set up from the idle stack. */
function refill(buffers: UringBuffers): void {
  while (buffers.ready < buffers.workingSet && buffers.idle.count > 0) {
    give(buffers, buffers.idle.pop());
  }
}

/** The kernel took a buffer: it is the data plane's now. */
export function takeBuffer(buffers: UringBuffers): void {
  buffers.ready--;
  buffers.inUse++;
  noteScarcity(buffers);
  if (buffers.ready < buffers.workingSet >> 1) refill(buffers);
}

function noteScarcity(buffers: UringBuffers): void {
  buffers.isScarce = isStillScarce(buffers.isScarce, buffers.inUse, buffers.count);
}

/** The data plane is done with a buffer. */
export function returnBuffer(buffers: UringBuffers, buffer: number): void {
  assert(buffers.inUse > 0, 'A buffer was released twice');
  buffers.inUse--;
  noteScarcity(buffers);
  if (buffers.ready < buffers.workingSet) give(buffers, buffer);
  else buffers.idle.push(buffer);
}

/** The kernel ran out: give it more from now on. */
export function growWorkingSet(buffers: UringBuffers): void {
  // One shortage ends many receives in the same batch: only the first of their events grows the set.
  if (buffers.ready > 0) return;
  buffers.workingSet = Math.min(buffers.count, buffers.workingSet * 2);
  refill(buffers);
}

export function closeBuffers(buffers: UringBuffers): void {
  unmap(buffers.region);
  unmap(buffers.header);
}
