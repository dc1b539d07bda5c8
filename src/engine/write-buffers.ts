// The buffers that the data plane takes to write into, beside those that receives fill: they follow the receive buffers
// in an engine's memory and in its numbers. Receives never use them, so whoever holds all that was received can still
// write what must go before it (a PROXY header).

import { assert } from '../base/assert.ts';

/** As many headers may be on their way per worker; each is gone as soon as its new connection took it. */
export const WRITE_BUFFERS = 256;

export class WriteBuffers {
  readonly #first: number;
  /** A stack: those used last are warm, the rest cost no memory until touched. */
  readonly #free: Int32Array;
  #freeCount: number;

  /** `first` is the number of receive buffers. */
  constructor(first: number, count = WRITE_BUFFERS) {
    this.#first = first;
    this.#free = Int32Array.from({ length: count }, (_, index) => first + count - 1 - index);
    this.#freeCount = count;
  }

  get inUse(): number {
    return this.#free.length - this.#freeCount;
  }

  /** A free buffer, -1 = none. */
  take(): number {
    if (this.#freeCount === 0) return -1;
    this.#freeCount--;
    return this.#free[this.#freeCount];
  }

  /** Takes `buffer` back; false when it is one that receives fill. */
  give(buffer: number): boolean {
    if (buffer < this.#first) return false;
    assert(this.#freeCount < this.#free.length, 'A write buffer was released twice');
    this.#free[this.#freeCount++] = buffer;
    return true;
  }
}
