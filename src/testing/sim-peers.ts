// The programs at the far ends, clients and backends: each end plays a part drawn at its start. They send and read at
// their own pace, close in every order, reset, fall silent, never read.

import { EAGAIN } from '../sys/errno.ts';
import { type SimNetwork, WORLD_PEER } from './sim-network.ts';
import type { SimRandom } from './sim-random.ts';
import { type SimTrace, traceKind } from './sim-trace.ts';

/** What a peer does once it has sent everything. */
const CLOSE_HALF = 0;
const CLOSE_AFTER_PEER = 1;
const CLOSE_AT_ONCE = 2;
const CLOSE_RESET = 3;
const CLOSE_NEVER = 4;

/** How a peer reads. */
const READ_ALL = 0;
const READ_SLOWLY = 1;
const READ_NEVER = 2;

const TRACE = {
  fin: traceKind('peer-fin'),
  close: traceKind('peer-close'),
  reset: traceKind('peer-reset'),
};

/** How the peers of one run behave; shares of 1. */
export interface PeerOptions {
  readonly bulkShare: number;
  readonly resetShare: number;
  readonly silentShare: number;
  readonly slowShare: number;
  readonly neverReadShare: number;
  readonly abruptShare: number;
  readonly smallBytesMax: number;
  readonly bulkBytesMax: number;
  readonly paceMsMax: number;
  readonly bufferBytes: number;
}

export class SimPeers {
  readonly #network: SimNetwork;
  readonly #random: SimRandom;
  readonly #trace: SimTrace;
  readonly #options: PeerOptions;
  readonly #left: Int32Array;
  /** Bytes of the PROXY header that are left, and how it is spread. */
  readonly #head: Int32Array;
  readonly #headPaceMs: Float32Array;
  /** Below this many bytes left, a bulk sender trickles. */
  readonly #trickleAt: Int32Array;
  readonly #chunk: Int32Array;
  readonly #paceMs: Float32Array;
  readonly #closing: Uint8Array;
  readonly #reading: Uint8Array;
  readonly #resetAt: Float64Array;
  readonly #scheduled: Uint8Array;
  /** The peer reset its connection itself, or fell from the network: any end is fine with it. */
  readonly gaveUp: Uint8Array;

  constructor(network: SimNetwork, random: SimRandom, trace: SimTrace, options: PeerOptions) {
    const ends = network.owner.length;
    this.#network = network;
    this.#random = random;
    this.#trace = trace;
    this.#options = options;
    this.#left = new Int32Array(ends);
    this.#head = new Int32Array(ends);
    this.#headPaceMs = new Float32Array(ends);
    this.#trickleAt = new Int32Array(ends);
    this.#chunk = new Int32Array(ends);
    this.#paceMs = new Float32Array(ends);
    this.#closing = new Uint8Array(ends);
    this.#reading = new Uint8Array(ends);
    this.#resetAt = new Float64Array(ends);
    this.#scheduled = new Uint8Array(ends);
    this.gaveUp = new Uint8Array(ends);
  }

  /** A peer starts to act at `end`: `head` bytes of a PROXY header, in pieces, then all the rest unless it is not `whole`. */
  start(end: number, head = 0, headPaceMs = 0, whole = true): void {
    const random = this.#random;
    const options = this.#options;
    const bulk = random.chance(options.bulkShare);
    const bytes = bulk
      ? random.spread(options.bulkBytesMax / 8, options.bulkBytesMax)
      : random.spread(1, options.smallBytesMax) - 1;
    this.#left[end] = whole ? bytes + head : head;
    this.#head[end] = head;
    this.#headPaceMs[end] = headPaceMs;
    this.#chunk[end] = bulk ? options.bulkBytesMax : random.spread(1, options.smallBytesMax);
    if (!bulk && bytes / this.#chunk[end] > 12) this.#chunk[end] = Math.ceil(bytes / 12);
    this.#trickleAt[end] = bulk && random.chance(0.3) ? random.whole(40, 120) : 0;
    this.#paceMs[end] = bulk ? 0.5 : random.spread(1, options.paceMsMax * 100) / 100;
    this.#closing[end] = random.chance(options.silentShare)
      ? CLOSE_NEVER
      : random.chance(options.abruptShare)
        ? random.pick([CLOSE_AT_ONCE, CLOSE_RESET])
        : random.pick([CLOSE_HALF, CLOSE_HALF, CLOSE_HALF, CLOSE_AFTER_PEER]);
    this.#reading[end] = random.chance(options.neverReadShare)
      ? READ_NEVER
      : random.chance(options.slowShare)
        ? READ_SLOWLY
        : READ_ALL;
    this.#resetAt[end] = random.chance(options.resetShare)
      ? this.#network.clock[0] + random.spread(1, 3000) / 10
      : Number.POSITIVE_INFINITY;
    if (this.#resetAt[end] < Number.POSITIVE_INFINITY) {
      this.#network.schedule(this.#resetAt[end] - this.#network.clock[0], WORLD_PEER, end);
    }
    this.ready(end);
  }

  /** Something changed: act soon. */
  ready(end: number): void {
    this.#actIn(end, this.#random.between(0, 0.5));
  }

  #actIn(end: number, delayMs: number): void {
    if (this.#scheduled[end] === 1 || this.#network.closed[end] === 1) return;
    this.#scheduled[end] = 1;
    this.#network.schedule(delayMs, WORLD_PEER, end);
  }

  act(end: number): void {
    this.#scheduled[end] = 0;
    const network = this.#network;
    if (network.closed[end] === 1) return;
    if (network.clock[0] >= this.#resetAt[end]) {
      this.#reset(end);
      return;
    }
    if (this.#reading[end] !== READ_NEVER && !this.#read(end)) return;
    if (this.#left[end] > 0 && !this.#write(end)) return;
    if (this.#left[end] <= 0) this.#maybeClose(end);
  }

  #reset(end: number): void {
    this.#trace.add(TRACE.reset, -1, -2, end, 0);
    this.gaveUp[end] = 1;
    this.#network.reset(end);
  }

  #close(end: number): void {
    this.#trace.add(TRACE.close, -1, -2, end, 0);
    const network = this.#network;
    // Closing with the other stream not read to its end gives up on it.
    if (network.sawEnd[end] === 0) this.gaveUp[end] = 1;
    network.close(end);
  }

  /** False when the connection failed and is closed. */
  #read(end: number): boolean {
    const network = this.#network;
    const slow = this.#reading[end] === READ_SLOWLY;
    for (;;) {
      const most = slow ? Math.ceil(this.#options.bufferBytes / 2) : 1 << 30;
      const result = network.receive(end, most);
      if (result > 0 && slow) {
        this.#actIn(end, this.#random.between(0, this.#options.paceMsMax));
        return true;
      }
      if (result > 0) continue;
      if (result === 0 && network.over[end] === 0) return true;
      if (result === -EAGAIN) return true;
      if (result === 0 && network.sawEnd[end] === 1 && this.#left[end] > 0) return true;
      this.#close(end);
      return false;
    }
  }

  #write(end: number): boolean {
    const network = this.#network;
    const head = this.#head[end];
    const trickle = this.#left[end] <= this.#trickleAt[end];
    const some = trickle ? 1 : Math.min(this.#chunk[end], this.#left[end]);
    // Half of the headers come with what follows them, the others in pieces.
    const pieces = head > 0 && this.#random.chance(0.5);
    const wanted = pieces ? this.#random.whole(1, head) : Math.min(this.#left[end], some + head);
    const result = network.write(end, wanted);
    if (result === -EAGAIN) return true;
    if (result < 0) {
      this.#close(end);
      return false;
    }
    this.#left[end] -= result;
    this.#head[end] = Math.max(0, head - result);
    const paceMs = this.#head[end] > 0 ? this.#headPaceMs[end] : this.#paceMs[end];
    if (this.#left[end] > 0) this.#actIn(end, this.#random.between(0, paceMs));
    return true;
  }

  /** Everything is sent. */
  #maybeClose(end: number): void {
    const network = this.#network;
    const sawEnd = network.sawEnd[end] === 1;
    switch (this.#closing[end]) {
      case CLOSE_RESET:
        this.#reset(end);
        return;
      case CLOSE_AT_ONCE:
        this.#close(end);
        return;
      case CLOSE_AFTER_PEER:
        if (sawEnd) this.#close(end);
        return;
      case CLOSE_HALF:
        if (sawEnd) {
          this.#close(end);
        } else if (network.fin[end] === 0 && network.over[end] === 0) {
          this.#trace.add(TRACE.fin, -1, -2, end, network.wrote[end]);
          network.shutdown(end);
        }
        return;
      default:
    }
  }
}
