// The simulated network: TCP connections as pairs of ends (an end's peer is end ^ 1), with send buffers, receive windows,
// delays, FIN and RST. Bytes are not stored: a byte is known by the end that wrote it first and its position there, and
// since a link keeps order, three counters per end are its whole content.
//
// An end belongs to a peer's program (client or backend) or to a worker of the proxy. Reading and writing are calls of the
// owner, results as the kernel has them; the network tells the owner when trying again may do.

import { EAGAIN, ECONNRESET, EPIPE } from '../sys/errno.ts';
import { SimQueue } from './sim-queue.ts';
import type { SimRandom } from './sim-random.ts';
import { fail } from './sim-trace.ts';

/** Owners of an end; a worker of the proxy is OWNER_PROXY + its index. */
export const OWNER_CLIENT = 1;
export const OWNER_BACKEND = 2;
export const OWNER_PROXY = 3;

/** FIN of an end. */
export const FIN_NONE = 0;
export const FIN_WRITTEN = 1;
export const FIN_ARRIVED = 2;

/** Events of the world's queue: the word that says what happens. The others say where. */
export const WORLD_DELIVER = 1;
export const WORLD_PEER = 2;
export const WORLD_KERNEL = 3;
export const WORLD_CLIENT = 4;
export const WORLD_CONNECT = 5;
export const WORLD_CONTROL = 6;
export const WORLD_FAULT = 7;
export const WORLD_BACKLOG = 8;
export const WORLD_DRAIN = 9;
export const WORLD_SUBMIT = 10;

export class SimNetwork {
  readonly random: SimRandom;
  readonly queue = new SimQueue();
  /** Virtual time, ms. */
  readonly clock = Float64Array.of(1000);
  /** Called when an owner may try again. */
  onReady: (end: number) => void = () => {};
  /** Called when an RST arrived at an end. */
  onReset: (end: number) => void = () => {};
  ends = 0;

  readonly owner: Uint8Array;
  /** Bytes the owner wrote, of which arrived at the peer, of which read by the peer. */
  readonly wrote: Int32Array;
  readonly arrived: Int32Array;
  readonly read: Int32Array;
  readonly fin: Uint8Array;
  /** The owner has read the end of the peer's stream. */
  readonly sawEnd: Uint8Array;
  /** 1: an RST of the owner's side is under way, 2: it arrived. */
  readonly rst: Uint8Array;
  /** What was written beyond this is lost with the RST; -1 = all arrives. */
  readonly cutAt: Int32Array;
  /** Error not yet reported, 0 = none. */
  readonly error: Uint8Array;
  /** The connection is over for this end: RST received or sent, or given up. */
  readonly over: Uint8Array;
  /** The owner has closed the descriptor. */
  readonly closed: Uint8Array;
  /** The owner has sent FIN, or tried to. */
  readonly shut: Uint8Array;
  /** For ends of the proxy: its other end of the same session, -1 until known. */
  readonly pair: Int32Array;
  /** For ends of peers: bytes at the start that are for the proxy alone. For ends of the proxy: bytes it put in front. */
  readonly skip: Int32Array;
  readonly front: Int32Array;
  /** For ends of the proxy: a PROXY header must be written here first, and is not yet. */
  readonly owed: Uint8Array;
  readonly sendBytesMax: Int32Array;
  readonly windowBytes: Int32Array;
  readonly #delivering: Uint8Array;
  readonly #delayMs: Float32Array;

  constructor(random: SimRandom, endsMax: number) {
    this.random = random;
    this.owner = new Uint8Array(endsMax);
    this.wrote = new Int32Array(endsMax);
    this.arrived = new Int32Array(endsMax);
    this.read = new Int32Array(endsMax);
    this.fin = new Uint8Array(endsMax);
    this.sawEnd = new Uint8Array(endsMax);
    this.rst = new Uint8Array(endsMax);
    this.cutAt = new Int32Array(endsMax).fill(-1);
    this.error = new Uint8Array(endsMax);
    this.over = new Uint8Array(endsMax);
    this.closed = new Uint8Array(endsMax);
    this.shut = new Uint8Array(endsMax);
    this.pair = new Int32Array(endsMax).fill(-1);
    this.skip = new Int32Array(endsMax);
    this.front = new Int32Array(endsMax);
    this.owed = new Uint8Array(endsMax);
    this.sendBytesMax = new Int32Array(endsMax);
    this.windowBytes = new Int32Array(endsMax);
    this.#delivering = new Uint8Array(endsMax);
    this.#delayMs = new Float32Array(endsMax);
  }

  /** Makes two ends the ends of one session for good: 1 = now, 0 = they were already, -1 = one is another session's. */
  join(end: number, other: number): number {
    const { pair } = this;
    if (pair[end] === other && pair[other] === end) return 0;
    if (pair[end] >= 0 || pair[other] >= 0) return -1;
    pair[end] = other;
    pair[other] = end;
    return 1;
  }

  /** A connection; returns its even end, the one that connected. */
  connection(connecting: number, accepting: number, bufferMax: number, delayMs: number): number {
    const end = this.ends;
    if (end + 2 > this.owner.length) fail('The simulated network has too few ends');
    this.ends += 2;
    this.owner[end] = connecting;
    this.owner[end + 1] = accepting;
    for (let at = end; at < end + 2; at++) {
      this.sendBytesMax[at] = this.#bufferBytes(bufferMax);
      this.windowBytes[at] = this.#bufferBytes(bufferMax);
      this.#delayMs[at] = delayMs;
    }
    return end;
  }

  #bufferBytes(bytesMax: number): number {
    const tiny = this.random.chance(0.02);
    return tiny ? this.random.whole(1, 50) : this.random.spread(Math.ceil(bytesMax / 8), bytesMax);
  }

  schedule(delayMs: number, what: number, where: number, more = 0, extra = 0): void {
    this.queue.push(this.clock[0] + delayMs, what, where, more, extra);
  }

  /** Bytes taken into the send buffer, at most `bytes`, or -errno. */
  write(end: number, bytes: number): number {
    if (this.closed[end] === 1) fail('A write on a closed socket');
    if (this.over[end] === 1 || this.fin[end] !== FIN_NONE) return this.#takeError(end, -EPIPE);
    const room = this.sendBytesMax[end] - (this.wrote[end] - this.arrived[end]);
    if (room <= 0) return -EAGAIN;
    const taken = Math.min(room, bytes);
    this.wrote[end] += taken;
    this.#deliverLater(end);
    return taken;
  }

  /** Where in the stream of the session's other peer the proxy is that has written `bytes` at `end`. */
  positionOf(end: number, bytes: number): number {
    return bytes - this.front[end] + this.skip[this.pair[end] ^ 1];
  }

  /** Whether a write would take anything or fail, as poll(2) says it. */
  isWritable(end: number): boolean {
    if (this.over[end] === 1) return true;
    return this.sendBytesMax[end] > this.wrote[end] - this.arrived[end];
  }

  /** Bytes waiting to be read. */
  readableBytes(end: number): number {
    return this.arrived[end ^ 1] - this.read[end ^ 1];
  }

  /** Bytes read, at most `bytesMax`; 0 at the end of the stream; or -errno. Order of tests as tcp_recvmsg has it. */
  receive(end: number, bytesMax: number): number {
    if (this.closed[end] === 1) fail('A read on a closed socket');
    const link = end ^ 1;
    const waiting = this.arrived[link] - this.read[link];
    if (waiting > 0) {
      const bytes = Math.min(waiting, bytesMax);
      this.read[link] += bytes;
      if (this.over[end] === 0 && this.wrote[link] > this.arrived[link]) this.#deliverLater(link);
      return bytes;
    }
    if (this.fin[link] === FIN_ARRIVED) {
      this.sawEnd[end] = 1;
      return 0;
    }
    if (this.error[end] !== 0 || this.over[end] === 1) return this.#takeError(end, 0);
    return -EAGAIN;
  }

  /** An error is reported once; after it the socket reads as ended and writing breaks the pipe. */
  #takeError(end: number, otherwise: number): number {
    const error = this.error[end];
    this.error[end] = 0;
    return error === 0 ? otherwise : -error;
  }

  /** FIN after what was written. On a connection that is over it does nothing (ENOTCONN). */
  shutdown(end: number): void {
    this.shut[end] = 1;
    if (this.over[end] === 1 || this.fin[end] !== FIN_NONE) return;
    this.fin[end] = FIN_WRITTEN;
    this.#deliverLater(end);
  }

  /** close(2): FIN, but RST when received bytes were not read. */
  close(end: number): void {
    if (this.closed[end] === 1) fail('A socket was closed twice');
    if (this.over[end] === 0 && this.readableBytes(end) > 0) {
      this.reset(end);
      return;
    }
    this.closed[end] = 1;
    this.shutdown(end);
  }

  /** close(2) with SO_LINGER 0: RST; what had not arrived yet may be lost, and what arrives here is thrown away. */
  reset(end: number): void {
    if (this.closed[end] === 1) fail('A socket was closed twice');
    this.closed[end] = 1;
    if (this.over[end] === 0) this.#sendReset(end);
  }

  #sendReset(end: number): void {
    this.over[end] = 1;
    this.rst[end] = 1;
    this.cutAt[end] = this.random.whole(this.arrived[end], this.wrote[end]);
    if (this.cutAt[end] < this.wrote[end] && this.fin[end] === FIN_WRITTEN) {
      this.fin[end] = FIN_NONE;
    }
    this.#deliverLater(end);
  }

  /** The peer vanished: after a while the kernel gives the connection up with `error`. */
  lose(end: number, error: number): void {
    if (this.over[end] === 1 || this.closed[end] === 1) return;
    this.over[end] = 1;
    this.error[end] = error;
    this.over[end ^ 1] = 1;
    this.onReady(end);
  }

  #deliverLater(link: number): void {
    if (this.#delivering[link] === 1) return;
    this.#delivering[link] = 1;
    const delay = this.#delayMs[link];
    const late = this.random.chance(0.02) ? 20 : 1;
    this.schedule(this.random.between(delay * 0.5, delay * 1.5) * late, WORLD_DELIVER, link);
  }

  /** Some of what `link` sent arrives at its peer. */
  deliver(link: number): void {
    this.#delivering[link] = 0;
    const end = link ^ 1;
    if (this.rst[link] === 0 && this.over[link] === 1) return;
    if (this.over[end] === 1) return;
    const written = this.cutAt[link] >= 0 ? this.cutAt[link] : this.wrote[link];
    const window = this.windowBytes[end] - (this.arrived[link] - this.read[link]);
    // An RST does not wait for the window: what does not fit is lost.
    let bytes = Math.min(written - this.arrived[link], window);
    if (bytes > 1 && this.random.chance(0.25)) bytes = this.random.whole(1, bytes);
    this.arrived[link] += bytes;
    if (bytes > 0 && this.closed[end] === 1) {
      // Nobody reads here any more: the kernel answers with RST.
      this.#sendReset(end);
      return;
    }
    const all = this.arrived[link] === written;
    if (all && this.fin[link] === FIN_WRITTEN) this.fin[link] = FIN_ARRIVED;
    if (this.rst[link] === 1 && (all || bytes <= 0)) {
      this.#resetArrives(link);
      return;
    }
    if (!all && (bytes < window || this.rst[link] === 1)) this.#deliverLater(link);
    if (bytes > 0) this.onReady(link);
    this.onReady(end);
  }

  #resetArrives(link: number): void {
    const end = link ^ 1;
    this.rst[link] = 2;
    this.over[end] = 1;
    if (this.closed[end] === 1) return;
    this.error[end] = this.fin[link] === FIN_ARRIVED ? EPIPE : ECONNRESET;
    this.onReset(end);
    this.onReady(end);
  }
}
