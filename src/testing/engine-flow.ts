// One direction of bytes through an engine: receive at one link, send at the other, with back-pressure by cancelled
// receives, as a relay does it. The engine never shows the bytes of a buffer, so content is checked at the target's peer.

import assert from 'node:assert/strict';
import { OP_RECEIVE, OP_SEND } from '../engine/proactor.ts';
import { ECANCELED, ENOBUFS } from '../sys/errno.ts';
import type { EngineDriver, EngineEvent, Link } from './engine-driver.ts';

const QUEUE_MAX = 4;
const PATTERN_BYTES = 1 << 24;
const pattern = makePattern();

/** Bytes that differ from place to place, so that one lost, doubled or swapped shows. */
function makePattern(): Buffer {
  const words = new Uint32Array(PATTERN_BYTES / 4);
  let state = 0x2545_f491;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer);
}

/** `bytes` of the stream of the suite, from `offset`. */
export function streamBytes(bytes: number, offset = 0): Buffer {
  assert(offset + bytes <= PATTERN_BYTES);
  return pattern.subarray(offset, offset + bytes);
}

/** Without a dump of megabytes when it fails. */
export function assertContent(actual: Buffer, expected: Buffer): void {
  if (actual.equals(expected)) return;
  const length = Math.min(actual.length, expected.length);
  let at = 0;
  while (at < length && actual[at] === expected[at]) at++;
  assert.fail(`${actual.length} of ${expected.length} bytes arrived, the first wrong at ${at}`);
}

interface Chunk {
  readonly buffer: number;
  offset: number;
  bytes: number;
}

export class Flow {
  readonly source: Link;
  readonly target: Link;
  /** The receive's last result when the direction ended: 0 or -errno; null before. */
  end: number | null = null;
  /** -errno of a send that failed. */
  sendFailure = 0;
  receivedBytes = 0;
  sentBytes = 0;
  starved = 0;
  readonly #driver: EngineDriver;
  readonly #queue: Chunk[] = [];
  readonly #taker = (event: EngineEvent): boolean => this.#take(event);
  /** Only events of operations that this flow started are its own. */
  #receiving = false;
  #sending = false;
  /** A stopped flow is not armed again. */
  #stopped = false;

  constructor(driver: EngineDriver, source: Link, target: Link) {
    this.#driver = driver;
    this.source = source;
    this.target = target;
    driver.takers.add(this.#taker);
  }

  /** The sender is busy, or bytes wait for it. */
  get busy(): boolean {
    return this.#queue.length > 0;
  }

  get receiving(): boolean {
    return this.#receiving;
  }

  /** Receives when nothing prevents it; call it now and then for a flow that may have starved. */
  start(): this {
    this.#stopped = false;
    const ready = this.end === null && this.#queue.length < QUEUE_MAX && this.sendFailure === 0;
    if (ready && !this.#receiving && this.#driver.engine.hasBuffer()) {
      this.#receiving = true;
      this.#driver.receive(this.source);
    }
    return this;
  }

  /** Cancels the receive in flight; it is started again after its last event. */
  interrupt(): void {
    if (this.#receiving) this.#driver.cancelReceive(this.source);
  }

  /** Cancels the receive in flight for good. */
  stop(): void {
    this.#stopped = true;
    this.interrupt();
  }

  /** The events of what is still in flight go to the case. */
  detach(): void {
    this.#driver.takers.delete(this.#taker);
  }

  #take(event: EngineEvent): boolean {
    const { source, target } = this;
    const isAt = (link: Link): boolean =>
      event.endpoint === link.endpoint && event.generation === link.generation;
    if (event.operation === OP_RECEIVE && this.#receiving && isAt(source)) {
      if (event.more === 0) this.#receiving = false;
      this.#received(event);
      return true;
    }
    if (event.operation === OP_SEND && this.#sending && isAt(target)) {
      this.#sending = false;
      this.#sent(event);
      return true;
    }
    return false;
  }

  #received({ result, buffer, more }: EngineEvent): void {
    if (result > 0) {
      this.receivedBytes += result;
      this.#queue.push({ buffer, offset: 0, bytes: result });
      if (this.#queue.length === 1) this.#sendHead();
      if (this.#queue.length >= QUEUE_MAX && more === 1) this.interrupt();
    } else if (result === -ENOBUFS) {
      this.starved++;
    } else if (result !== -ECANCELED) {
      this.end = result;
    }
    if (more === 0 && !this.#stopped) this.start();
  }

  #sendHead(): void {
    const head = this.#queue[0];
    if (head === undefined) return;
    if (this.sendFailure === 0) {
      this.#sending = true;
      this.#driver.send(this.target, head.buffer, head.offset, head.bytes);
      return;
    }
    for (const { buffer } of this.#queue.splice(0)) this.#driver.release(buffer);
  }

  #sent({ result }: EngineEvent): void {
    const head = this.#queue[0] as Chunk;
    if (result < 0) this.sendFailure = result;
    else this.sentBytes += result;
    head.offset += Math.max(0, result);
    head.bytes -= Math.max(0, result);
    if (result >= 0 && head.bytes === 0) {
      this.#driver.release(head.buffer);
      this.#queue.shift();
    }
    this.#sendHead();
    if (!this.#stopped) this.start();
  }
}

/** Sends back whatever the link receives. */
export function echo(driver: EngineDriver, link: Link): Flow {
  return new Flow(driver, link, link).start();
}

/** One buffer filled with the first `bytes` of the stream, received at `link` from its peer. */
export async function fillBuffer(driver: EngineDriver, link: Link, bytes: number): Promise<number> {
  link.peer.write(streamBytes(bytes));
  await driver.turns(2);
  driver.receive(link);
  const event = await driver.next(OP_RECEIVE, link.endpoint);
  assert.equal(event.result, bytes, 'The bytes came in pieces');
  if (event.more === 1) {
    driver.cancelReceive(link);
    assert.equal((await driver.next(OP_RECEIVE, link.endpoint)).more, 0);
  }
  return event.buffer;
}
