// The buffers of an engine that nobody uses: a stack, so that those used last, whose memory is there and warm, are used
// first, and the others cost no memory until touched. Memory that a burst touched and that nobody needed since goes back
// to the system, from the bottom of the stack, some at a time.

import { readMonotonic } from '../sys/clock.ts';
import { discardPages, type Mapping, pageBytes } from '../sys/memory.ts';

/** Buffers that keep their memory: enough for the batches of a quiet time, 1 MiB of 16 KiB buffers. */
const WARM_MAX = 64;
const REVIEW_MS = 1000;
/** Buffers whose memory is given back at once: 1 to 2 ms of calls. */
const DISCARDS_PER_REVIEW = 512;

export class IdleBuffers {
  count: number;
  readonly #region: Mapping;
  readonly #bufferBytes: number;
  readonly #stack: Int32Array;
  /** By buffer: it was used since its memory was given back. */
  readonly #isTouched: Uint8Array;
  /** Of those on the stack. */
  #touched = 0;
  /** Touched ones that are nothing to review. Buffers that share a page with others keep it. */
  readonly #warmMax: number;
  /** The fewest on the stack since the last review: those below were not needed meanwhile. */
  #countMin: number;
  readonly #clock = new Float64Array(1);
  readonly #reviewAt = new Float64Array(1);

  /** All buffers of `region` are idle. */
  constructor(region: Mapping, bufferBytes: number, count: number) {
    this.#region = region;
    this.#bufferBytes = bufferBytes;
    this.#stack = Int32Array.from({ length: count }, (_, index) => count - 1 - index);
    this.#isTouched = new Uint8Array(count);
    this.#warmMax = bufferBytes % pageBytes() === 0 ? WARM_MAX : count;
    this.count = count;
    this.#countMin = count;
  }

  push(buffer: number): void {
    this.#stack[this.count++] = buffer;
    this.#isTouched[buffer] = 1;
    this.#touched++;
  }

  /** The one used last; the caller has seen that `count` is above 0. */
  pop(): number {
    const buffer = this.#stack[--this.count];
    if (this.count < this.#countMin) this.#countMin = this.count;
    this.#touched -= this.#isTouched[buffer];
    return buffer;
  }

  /** Called before each wait of `timeoutMs` (-1 = no limit); returns how long it may last. */
  review(timeoutMs: number): number {
    if (this.#touched <= this.#warmMax) return timeoutMs;
    readMonotonic(this.#clock);
    if (this.#clock[0] >= this.#reviewAt[0]) {
      this.#reviewAt[0] = this.#clock[0] + REVIEW_MS;
      this.#discard();
    }
    return timeoutMs < 0 ? REVIEW_MS : timeoutMs;
  }

  #discard(): void {
    let left = Math.min(DISCARDS_PER_REVIEW, this.#touched - this.#warmMax);
    for (let at = 0; at < this.#countMin && left > 0; at++) {
      const buffer = this.#stack[at];
      if (this.#isTouched[buffer] === 0) continue;
      discardPages(this.#region, buffer * this.#bufferBytes, this.#bufferBytes);
      this.#isTouched[buffer] = 0;
      this.#touched--;
      left--;
    }
    this.#countMin = this.count;
  }
}
