// The buffers of one epoll engine: a mapped region cut into equal buffers, behind those for receives those to write into.

import { assert } from '../base/assert.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { IdleBuffers } from './idle-buffers.ts';
import { isStillScarce } from './proactor.ts';
import { WRITE_BUFFERS, WriteBuffers } from './write-buffers.ts';

export interface EpollBuffers {
  readonly count: number;
  readonly writes: WriteBuffers;
  /** By buffer, as native calls take it. */
  readonly address: BigUint64Array;
  readonly bytesArgument: bigint;
  readonly free: IdleBuffers;
  isScarce: boolean;
  readonly region: Mapping;
}

export function openBuffers(count: number, bufferBytes: number): EpollBuffers {
  const all = count + WRITE_BUFFERS;
  const region = mapMemory(all * bufferBytes, 'buffers');
  const address = new BigUint64Array(all);
  for (let index = 0; index < all; index++) {
    address[index] = region.address + BigInt(index * bufferBytes);
  }
  return {
    count,
    writes: new WriteBuffers(count),
    address,
    bytesArgument: BigInt(bufferBytes),
    free: new IdleBuffers(region, bufferBytes, count),
    isScarce: false,
    region,
  };
}

/** A free buffer for a receive; the caller has seen that there is one. */
export function takeBuffer(buffers: EpollBuffers): number {
  const buffer = buffers.free.pop();
  noteScarcity(buffers);
  return buffer;
}

export function returnBuffer(buffers: EpollBuffers, buffer: number): void {
  if (buffers.writes.give(buffer)) return;
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
