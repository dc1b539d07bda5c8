// The listeners of a simulated engine: connections are accepted while an accept runs, and that ends now and then, by an
// error or without one.

import { EAGAIN, ECANCELED, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM } from '../sys/errno.ts';
import type { SimEngineHost, SimEngineOptions } from './sim-engine-host.ts';
import type { SimOperations } from './sim-operations.ts';
import type { SimRandom } from './sim-random.ts';
import type { SimSockets } from './sim-sockets.ts';
import { fail, type SimTrace, traceKind } from './sim-trace.ts';

const TRACE_ACCEPTED = traceKind('accepted');
const TRACE_ERROR = traceKind('accept-error');

export class SimAccepts {
  /** Connections accepted, and errors by errno. */
  count = 0;
  readonly errors = new Int32Array(256);
  /** Taking what waits was ended by an error. */
  interrupted = false;
  readonly #random: SimRandom;
  readonly #trace: SimTrace;
  readonly #host: SimEngineHost;
  readonly #sockets: SimSockets;
  readonly #operations: SimOperations;
  readonly #options: SimEngineOptions;
  /** By tag: an accept runs. */
  readonly #running: Uint8Array;

  constructor(
    random: SimRandom,
    trace: SimTrace,
    host: SimEngineHost,
    sockets: SimSockets,
    operations: SimOperations,
    options: SimEngineOptions,
  ) {
    this.#random = random;
    this.#trace = trace;
    this.#host = host;
    this.#sockets = sockets;
    this.#operations = operations;
    this.#options = options;
    this.#running = new Uint8Array(options.listeners);
  }

  start(tag: number): void {
    if (this.#running[tag] === 1) fail('An accept was started twice', this.#options.worker);
    this.#running[tag] = 1;
    this.arrived(tag);
  }

  /** Some cancels come too late for a connection that is there. */
  cancel(tag: number): void {
    if (this.#running[tag] === 0) return;
    if (this.#random.chance(this.#options.raceChance)) this.arrived(tag);
    if (this.#running[tag] === 1) this.#post(tag, -ECANCELED, 0);
  }

  isClean(): boolean {
    return this.#running.every((running) => running === 0);
  }

  #post(tag: number, result: number, more: number): void {
    if (more === 0) this.#running[tag] = 0;
    if (result >= 0) this.count++;
    else if (result !== -ECANCELED) this.errors[-result]++;
    const kind = result < 0 ? TRACE_ERROR : TRACE_ACCEPTED;
    this.#trace.add(kind, this.#options.worker, -2, result, tag);
    this.#operations.postAccept(tag, result, more);
  }

  /** One connection out of the queue; sometimes an error of it or of the system. */
  takeWaiting(tag: number): number {
    const { acceptErrorChance, worker } = this.#options;
    if (this.#running[tag] === 1) fail('A connection was taken beside an accept', worker);
    let result = -EAGAIN;
    if (this.#random.chance(acceptErrorChance)) {
      result = -this.#random.pick([EMFILE, ENOBUFS, ECONNABORTED]);
    } else if (this.#sockets.isFull()) {
      result = -EMFILE;
    } else {
      const end = this.#host.nextPending(worker, tag);
      if (end >= 0) result = this.#sockets.take(end);
    }
    if (result >= 0) this.count++;
    else if (result !== -EAGAIN) this.errors[-result]++;
    // What stops the taking early leaves connections behind.
    if (result === -EMFILE || result === -ENOBUFS) this.interrupted = true;
    this.#trace.add(result < 0 ? TRACE_ERROR : TRACE_ACCEPTED, worker, -2, result, tag);
    return result;
  }

  /** Connections may be waiting at a listener. */
  arrived(tag: number): void {
    const { acceptErrorChance, endChance, worker } = this.#options;
    while (this.#running[tag] === 1) {
      if (this.#random.chance(acceptErrorChance)) {
        const error = this.#random.pick([EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED]);
        this.#post(tag, -error, 0);
        return;
      }
      if (this.#sockets.isFull()) {
        this.#post(tag, -EMFILE, 0);
        return;
      }
      const end = this.#host.nextPending(worker, tag);
      if (end < 0) return;
      const socket = this.#sockets.take(end);
      this.#post(tag, socket, this.#random.chance(endChance) ? 0 : 1);
    }
  }
}
