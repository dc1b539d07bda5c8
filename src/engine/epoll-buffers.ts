// The receive buffers of one epoll engine: a mapped region cut into equal buffers. Free ones are a stack: those used last
// are warm, the rest cost no memory until touched.

import { assert } from '../base/assert.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { isStillScarce } from './proactor.ts';

export interface EpollBuffers {
  readonly count: number;
  /** By buffer, as native calls take it. */
  readonly address: BigUint64Array;
  readonly bytesArgument: bigint;
  readonly free: Int32Array;
  freeCount: number;
  isScarce: boolean;
  readonly region: Mapping;
}

export function openBuffers(count: number, bufferBytes: number): EpollBuffers {
  const region = mapMemory(count * bufferBytes, 'receive buffers');
  const address = new BigUint64Array(count);
  const free = new Int32Array(count);
  for (let index = 0; index < count; index++) {
    address[index] = region.address + BigInt(index * bufferBytes);
    free[index] = count - 1 - index;
  }
  const bytesArgument = BigInt(bufferBytes);
  return { count, address, bytesArgument, free, freeCount: count, isScarce: false, region };
}

/** A free buffer; the caller has seen that `freeCount` is above 0. */
export function takeBuffer(buffers: EpollBuffers): number {
  buffers.freeCount--;
  noteScarcity(buffers);
  return buffers.free[buffers.freeCount];
}

export function returnBuffer(buffers: EpollBuffers, buffer: number): void {
  assert(buffers.freeCount < buffers.count, 'A buffer was released twice');
  buffers.free[buffers.freeCount++] = buffer;
  noteScarcity(buffers);
}

function noteScarcity(buffers: EpollBuffers): void {
  const { isScarce, count, freeCount } = buffers;
  buffers.isScarce = isStillScarce(isScarce, count - freeCount, count);
}

export function closeBuffers(buffers: EpollBuffers): void {
  unmap(buffers.region);
}
