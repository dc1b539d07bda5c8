// The receive buffers of one epoll engine: a mapped region cut into equal buffers.

import { assert } from '../base/assert.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { IdleBuffers } from './idle-buffers.ts';
import { isStillScarce } from './proactor.ts';

export interface EpollBuffers {
  readonly count: number;
  /** By buffer, as native calls take it. */
  readonly address: BigUint64Array;
  readonly bytesArgument: bigint;
  readonly free: IdleBuffers;
  isScarce: boolean;
  readonly region: Mapping;
}

export function openBuffers(count: number, bufferBytes: number): EpollBuffers {
  const region = mapMemory(count * bufferBytes, 'receive buffers');
  const address = new BigUint64Array(count);
  for (let index = 0; index < count; index++) {
    address[index] = region.address + BigInt(index * bufferBytes);
  }
  const bytesArgument = BigInt(bufferBytes);
  const free = new IdleBuffers(region, bufferBytes, count);
  return { count, address, bytesArgument, free, isScarce: false, region };
}

/** A free buffer; the caller has seen that there is one. */
export function takeBuffer(buffers: EpollBuffers): number {
  const buffer = buffers.free.pop();
  noteScarcity(buffers);
  return buffer;
}

export function returnBuffer(buffers: EpollBuffers, buffer: number): void {
  assert(buffers.free.count < buffers.count, 'A buffer was released twice');
  buffers.free.push(buffer);
  noteScarcity(buffers);
}

function noteScarcity(buffers: EpollBuffers): void {
  const { isScarce, count, free } = buffers;
  buffers.isScarce = isStillScarce(isScarce, count - free.count, count);
}

export function closeBuffers(buffers: EpollBuffers): void {
  unmap(buffers.region);
}
