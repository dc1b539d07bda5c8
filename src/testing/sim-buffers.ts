// The simulated buffer pool. A buffer's content is named, not stored: which end wrote it first and from which position.
// The pool knows who holds a buffer, and fails the run when one is released twice, while it is sent, or by nobody.

import { isStillScarce } from '../engine/proactor.ts';
import { WriteBuffers } from '../engine/write-buffers.ts';
import type { SimEngineOptions } from './sim-engine-host.ts';
import { fail } from './sim-trace.ts';

const FREE = 0;
/** Filled; its event is not handed out yet. */
const FILLED = 1;
const HELD = 2;
/** The origin of what the proxy wrote itself. */
const WRITTEN = -1;

export class SimBuffers {
  readonly #bufferBytes: number;
  readonly #writes: WriteBuffers;
  readonly #state: Uint8Array;
  readonly #locked: Uint8Array;
  readonly #origin: Int32Array;
  readonly #start: Int32Array;
  readonly #bytes: Int32Array;
  readonly #free: Int32Array;
  readonly #countsEarly: boolean;
  #freeCount: number;
  #isScarce = false;
  #filledCount = 0;
  /** Buffers whose event was handed out and that were not released since. */
  held = 0;

  constructor({ bufferCount, writeBuffers, bufferBytes, likeEpoll }: SimEngineOptions) {
    const all = bufferCount + writeBuffers;
    this.#bufferBytes = bufferBytes;
    this.#writes = new WriteBuffers(bufferCount, writeBuffers);
    this.#state = new Uint8Array(all);
    this.#locked = new Uint8Array(all);
    this.#origin = new Int32Array(all);
    this.#start = new Int32Array(all);
    this.#bytes = new Int32Array(all);
    this.#free = Int32Array.from({ length: bufferCount }, (_, buffer) => buffer);
    this.#freeCount = bufferCount;
    this.#countsEarly = likeEpoll;
  }

  /** A buffer for the proxy to write into, -1 = none. */
  takeWritten(): number {
    const buffer = this.#writes.take();
    if (buffer < 0) return -1;
    this.#state[buffer] = HELD;
    this.#origin[buffer] = WRITTEN;
    this.#bytes[buffer] = this.#bufferBytes;
    this.held++;
    return buffer;
  }

  isWritten(buffer: number): boolean {
    return this.#origin[buffer] === WRITTEN;
  }

  get written(): number {
    return this.#writes.inUse;
  }

  /** A free buffer, -1 = none. The one released last comes first, so that a use after release shows. */
  take(): number {
    return this.#freeCount === 0 ? -1 : this.#free[this.#freeCount - 1];
  }

  /** The buffer just taken holds bytes of `origin` from `start` on. */
  fill(buffer: number, origin: number, start: number, bytes: number): void {
    this.#freeCount--;
    this.#filledCount++;
    this.#state[buffer] = FILLED;
    this.#origin[buffer] = origin;
    this.#start[buffer] = start;
    this.#bytes[buffer] = bytes;
  }

  handOut(buffer: number): void {
    this.#filledCount--;
    this.#state[buffer] = HELD;
    this.held++;
  }

  release(buffer: number): void {
    if (this.#state[buffer] !== HELD) fail(`Buffer ${buffer} was released by nobody who held it`);
    if (this.#locked[buffer] === 1) fail(`Buffer ${buffer} was released while it is sent`);
    this.#state[buffer] = FREE;
    this.held--;
    if (!this.#writes.give(buffer)) this.#free[this.#freeCount++] = buffer;
  }

  isHeld(buffer: number): boolean {
    return this.#state[buffer] === HELD && this.#locked[buffer] === 0;
  }

  /** What is wrong with sending `bytes` at `offset` of a buffer, '' = nothing. */
  refusal(buffer: number, offset: number, bytes: number): string {
    if (!this.isHeld(buffer)) return 'A send from a buffer not held';
    const inside = bytes > 0 && offset >= 0 && offset + bytes <= this.bytesIn(buffer);
    return inside ? '' : 'A send outside what the buffer holds';
  }

  lock(buffer: number): void {
    this.#locked[buffer] = 1;
  }

  unlock(buffer: number): void {
    this.#locked[buffer] = 0;
  }

  originOf(buffer: number): number {
    return this.#origin[buffer];
  }

  startOf(buffer: number): number {
    return this.#start[buffer];
  }

  bytesIn(buffer: number): number {
    return this.#bytes[buffer];
  }

  /** The proxy may have moved bytes of an early buffer into this one. */
  grow(buffer: number): void {
    this.#bytes[buffer] = this.#bufferBytes;
  }

  /** What the engine says is free. */
  countFree(): number {
    return this.#countsEarly ? this.#freeCount : this.#freeCount + this.#filledCount;
  }

  isScarce(): boolean {
    const count = this.#free.length;
    this.#isScarce = isStillScarce(this.#isScarce, count - this.countFree(), count);
    return this.#isScarce;
  }

  allFree(): boolean {
    return this.#freeCount === this.#free.length && this.#writes.inUse === 0;
  }
}
