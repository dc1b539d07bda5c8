// Bulk flows inside the kernel: socket → pipe → socket by splice(2). Against receiving and sending with 128 KiB buffers
// this halves the CPU per byte; for small messages it costs 40 % more, so the relay starts it only for flows that proved
// to be bulk and stops it when they fall quiet. Shared by the uring and epoll engines, which tell it when a side is ready.
//
// splice(2) has no flag that keeps a socket from blocking (tcp_splice_read looks at O_NONBLOCK of the file), so both
// sockets are non-blocking while a pump runs.

import { EAGAIN, ECANCELED } from '../sys/errno.ts';
import { checked, native, num } from '../sys/native.ts';
import { closeDescriptor, openPipe, peekByte, pipeEnds, setNonblocking } from '../sys/socket.ts';
import { NO_BUFFER, OP_PUMP, PUMP_SOURCE, PUMP_TARGET } from './proactor.ts';

/** Pipe capacity: 1 MiB costs a third less CPU per byte than 256 KiB (measured); the kernel's default maximum. */
const PIPE_BYTES = 1 << 20;
/** Bytes one pump may move before other sessions get their turn. */
const TURN_BYTES = 4 << 20;
/** Empty pipes kept for the next bulk flow; more are closed. */
const SPARE_PIPES_MAX = 16;
const SPLICE_FLAGS = 3n; // SPLICE_F_MOVE | SPLICE_F_NONBLOCK
const PIPE_BYTES_N = BigInt(PIPE_BYTES);

const IDLE = 0;
const READING = 1;
const WRITING = 2;

/** What a pump needs of its engine. */
export interface PumpHost {
  /** True when the engine's sockets are always non-blocking, so the pump need not make them so. */
  readonly alwaysNonblocking: boolean;
  /** `ready()` is to be called when `socket` may be read, resp. written; `blocked`: the last try said -EAGAIN. */
  awaitReadable(endpoint: number, generation: number, socket: number, blocked: boolean): void;
  awaitWritable(endpoint: number, generation: number, socket: number, blocked: boolean): void;
  /** `ready(…, true)` is to be called instead of the readable notification awaited. */
  cancelReadable(endpoint: number, generation: number): void;
  emit(
    operation: number,
    endpoint: number,
    generation: number,
    result: number,
    buffer: number,
    more: number,
  ): void;
}

export class SplicePump {
  readonly #host: PumpHost;
  /** By source endpoint. */
  readonly #state: Uint8Array;
  readonly #stopping: Uint8Array;
  readonly #source: Int32Array;
  readonly #target: Int32Array;
  readonly #pipeRead: Int32Array;
  readonly #pipeWrite: Int32Array;
  readonly #pipeBytes: Int32Array;
  readonly #spare: number[] = [];

  constructor(host: PumpHost, endpoints: number) {
    this.#host = host;
    this.#state = new Uint8Array(endpoints);
    this.#stopping = new Uint8Array(endpoints);
    this.#source = new Int32Array(endpoints);
    this.#target = new Int32Array(endpoints);
    this.#pipeRead = new Int32Array(endpoints);
    this.#pipeWrite = new Int32Array(endpoints);
    this.#pipeBytes = new Int32Array(endpoints);
  }

  /** False when no pipe can be had (descriptors are short): the flow stays with buffers. */
  start(endpoint: number, generation: number, source: number, target: number): boolean {
    if (!this.#takePipe(endpoint)) return false;
    if (!this.#host.alwaysNonblocking) {
      setNonblocking(source, true);
      setNonblocking(target, true);
    }
    this.#source[endpoint] = source;
    this.#target[endpoint] = target;
    this.#pipeBytes[endpoint] = 0;
    this.#stopping[endpoint] = 0;
    this.#awaitReadable(endpoint, generation, false);
    return true;
  }

  stop(endpoint: number, generation: number): void {
    if (this.#state[endpoint] === IDLE) return;
    this.#stopping[endpoint] = 1;
    if (this.#state[endpoint] === READING) {
      this.#host.cancelReadable(endpoint, generation);
    }
  }

  /** Whether the pump of `endpoint` waits for its target. */
  isBlocked(endpoint: number): boolean {
    return this.#state[endpoint] === WRITING;
  }

  /** A poll of this pump completed: one side is ready, in error, or the poll was cancelled. */
  ready(endpoint: number, generation: number, cancelled: boolean): void {
    if (cancelled) {
      this.#finish(endpoint, generation, -ECANCELED, NO_BUFFER);
      return;
    }
    let moved = 0;
    let blocked = false;
    while (moved < TURN_BYTES) {
      if (this.#pipeBytes[endpoint] === 0) {
        if (this.#stopping[endpoint] === 1) {
          this.#report(endpoint, generation, moved);
          this.#finish(endpoint, generation, -ECANCELED, NO_BUFFER);
          return;
        }
        const filled = this.#splice(
          this.#source[endpoint],
          this.#pipeWrite[endpoint],
          PIPE_BYTES_N,
        );
        blocked = filled === -EAGAIN;
        if (blocked) break;
        if (filled <= 0) {
          this.#report(endpoint, generation, moved);
          const result = filled === 0 ? this.#whyNothing(endpoint) : filled;
          this.#finish(endpoint, generation, result, PUMP_SOURCE);
          return;
        }
        this.#pipeBytes[endpoint] = filled;
      }
      const drained = this.#drain(endpoint);
      blocked = drained === -EAGAIN;
      if (blocked) break;
      if (drained < 0) {
        this.#report(endpoint, generation, moved);
        this.#finish(endpoint, generation, drained, PUMP_TARGET);
        return;
      }
      moved += drained;
    }
    this.#report(endpoint, generation, moved);
    if (this.#pipeBytes[endpoint] > 0) this.#awaitWritable(endpoint, generation, blocked);
    else this.#awaitReadable(endpoint, generation, blocked);
  }

  /**
   * splice(2) gives nothing at the end of the stream, and also before an urgent byte (tcp_splice_read()), which is no end:
   * there the pump gives up, for receives can read on.
   */
  #whyNothing(endpoint: number): number {
    const peeked = peekByte(this.#source[endpoint]);
    return peeked > 0 || peeked === -EAGAIN ? -ECANCELED : peeked;
  }

  #report(endpoint: number, generation: number, moved: number): void {
    if (moved > 0) this.#host.emit(OP_PUMP, endpoint, generation, moved, NO_BUFFER, 1);
  }

  /** Closes every pipe; the sockets belong to others. */
  end(): void {
    for (let endpoint = 0; endpoint < this.#state.length; endpoint++) {
      if (this.#state[endpoint] !== IDLE) this.#closePipe(endpoint);
    }
    for (const fd of this.#spare.splice(0)) closeDescriptor(fd);
  }

  #drain(endpoint: number): number {
    const waiting = this.#pipeBytes[endpoint];
    const sent = this.#splice(this.#pipeRead[endpoint], this.#target[endpoint], num(waiting));
    if (sent > 0) this.#pipeBytes[endpoint] = waiting - sent;
    return sent === 0 ? -EAGAIN : sent;
  }

  #splice(from: number, to: number, bytes: bigint): number {
    return checked(native.splice(num(from), 0n, num(to), 0n, bytes, SPLICE_FLAGS));
  }

  #awaitReadable(endpoint: number, generation: number, blocked: boolean): void {
    this.#state[endpoint] = READING;
    this.#host.awaitReadable(endpoint, generation, this.#source[endpoint], blocked);
  }

  #awaitWritable(endpoint: number, generation: number, blocked: boolean): void {
    this.#state[endpoint] = WRITING;
    this.#host.awaitWritable(endpoint, generation, this.#target[endpoint], blocked);
  }

  #finish(endpoint: number, generation: number, result: number, side: number): void {
    this.#state[endpoint] = IDLE;
    this.#givePipe(endpoint);
    // The other direction is numbered endpoint ^ 1; while it pumps, the sockets must stay non-blocking.
    const restore = result === -ECANCELED && !this.#host.alwaysNonblocking;
    if (restore && this.#state[endpoint ^ 1] === IDLE) {
      setNonblocking(this.#source[endpoint], false);
      setNonblocking(this.#target[endpoint], false);
    }
    this.#host.emit(OP_PUMP, endpoint, generation, result, side, 0);
  }

  #takePipe(endpoint: number): boolean {
    if (this.#spare.length > 0) {
      this.#pipeWrite[endpoint] = this.#spare.pop() as number;
      this.#pipeRead[endpoint] = this.#spare.pop() as number;
      return true;
    }
    if (openPipe(PIPE_BYTES) < 0) return false;
    this.#pipeRead[endpoint] = pipeEnds.read;
    this.#pipeWrite[endpoint] = pipeEnds.write;
    return true;
  }

  /** A pipe with bytes left in it would hand them to the next session: it is closed, not kept. */
  #givePipe(endpoint: number): void {
    if (this.#pipeBytes[endpoint] === 0 && this.#spare.length < SPARE_PIPES_MAX * 2) {
      this.#spare.push(this.#pipeRead[endpoint], this.#pipeWrite[endpoint]);
    } else {
      this.#closePipe(endpoint);
    }
  }

  #closePipe(endpoint: number): void {
    closeDescriptor(this.#pipeRead[endpoint]);
    closeDescriptor(this.#pipeWrite[endpoint]);
  }
}
