// The sends of a simulated engine: whole or short, from buffers that must be held, and never another session's bytes, none
// twice and none left out. A send from a buffer that the proxy wrote itself is a PROXY header (sim-headers.ts).

import { NO_BUFFER } from '../engine/proactor.ts';
import { EAGAIN, ECANCELED } from '../sys/errno.ts';
import type { SimBuffers } from './sim-buffers.ts';
import type { SimEngineHost, SimEngineOptions } from './sim-engine-host.ts';
import type { SimNetwork } from './sim-network.ts';
import { SEND, type SimOperations } from './sim-operations.ts';
import type { SimRandom } from './sim-random.ts';
import type { SimSockets } from './sim-sockets.ts';
import { checkOrder } from './sim-streams.ts';
import { fail } from './sim-trace.ts';

export class SimSends {
  /** Of the peers' bytes. */
  bytesSent = 0;
  /** One is being started that may be done at once. */
  #isStarting = false;
  readonly #network: SimNetwork;
  readonly #random: SimRandom;
  readonly #host: SimEngineHost;
  readonly #sockets: SimSockets;
  readonly #buffers: SimBuffers;
  readonly #operations: SimOperations;
  readonly #options: SimEngineOptions;
  // By endpoint.
  readonly #buffer: Int32Array;
  readonly #offset: Int32Array;
  readonly #bytes: Int32Array;
  readonly #done: Int32Array;
  readonly #all: Uint8Array;

  constructor(
    network: SimNetwork,
    random: SimRandom,
    host: SimEngineHost,
    sockets: SimSockets,
    buffers: SimBuffers,
    operations: SimOperations,
    options: SimEngineOptions,
  ) {
    const endpoints = options.slots * 2;
    this.#network = network;
    this.#random = random;
    this.#host = host;
    this.#sockets = sockets;
    this.#buffers = buffers;
    this.#operations = operations;
    this.#options = options;
    this.#buffer = new Int32Array(endpoints);
    this.#offset = new Int32Array(endpoints);
    this.#bytes = new Int32Array(endpoints);
    this.#done = new Int32Array(endpoints);
    this.#all = new Uint8Array(endpoints);
  }

  /** Whether it is done, and no event follows. */
  start(endpoint: number, buffer: number, offset: number, bytes: number): boolean {
    const refusal = this.#buffers.refusal(buffer, offset, bytes);
    if (refusal !== '') {
      fail(`${refusal} (endpoint ${endpoint})`, this.#options.worker, endpoint >> 1);
    }
    this.#buffer[endpoint] = buffer;
    this.#offset[endpoint] = offset;
    this.#bytes[endpoint] = bytes;
    this.#done[endpoint] = 0;
    this.#all[endpoint] = this.#random.chance(0.5) ? 1 : 0;
    this.#buffers.lock(buffer);
    this.#isStarting = this.#options.likeEpoll;
    this.turn(endpoint);
    const isDone = this.#isStarting && !this.#operations.isInFlight(endpoint, SEND);
    this.#isStarting = false;
    return isDone;
  }

  /** As io_uring with MSG_WAITALL, or as a plain non-blocking send, which may be short. */
  turn(endpoint: number): void {
    const end = this.#sockets.endOf(endpoint);
    while (this.#operations.isRunning(endpoint, SEND)) {
      const done = this.#done[endpoint];
      const left = this.#bytes[endpoint] - done;
      const isShort = this.#random.chance(this.#options.shortChance);
      const wanted = isShort ? this.#random.whole(1, left) : left;
      const result = this.#network.write(end, wanted);
      if (result === -EAGAIN) return;
      if (result < 0) {
        this.#end(endpoint, done > 0 ? done : result);
        return;
      }
      this.#wrote(endpoint, end, this.#offset[endpoint] + done, result);
      this.#done[endpoint] = done + result;
      const all = done + result === this.#bytes[endpoint];
      if (all || this.#all[endpoint] === 0) this.#end(endpoint, done + result);
    }
  }

  #wrote(endpoint: number, end: number, offset: number, bytes: number): void {
    const { headers } = this.#host;
    const { worker } = this.#options;
    const buffer = this.#buffer[endpoint];
    if (this.#buffers.isWritten(buffer)) {
      const at = buffer * this.#options.bufferBytes;
      headers.onWritten(worker, endpoint, end, at, offset, bytes);
      return;
    }
    this.bytesSent += bytes;
    const origin = this.#buffers.originOf(buffer);
    if (headers.isStored(origin, end, bytes)) {
      const at = buffer * this.#options.bufferBytes + offset;
      headers.checkContent(worker, endpoint, end, at, bytes);
      return;
    }
    const position = this.#buffers.startOf(buffer) + offset;
    checkOrder(this.#network, worker, endpoint, end, origin, position, bytes);
  }

  cancel(endpoint: number): void {
    this.#end(endpoint, this.#done[endpoint] || -ECANCELED);
  }

  #end(endpoint: number, result: number): void {
    this.#buffers.unlock(this.#buffer[endpoint]);
    const atOnce = this.#isStarting && result === this.#bytes[endpoint];
    if (atOnce) this.#operations.finishAtOnce(endpoint, SEND, result);
    else this.#operations.report(endpoint, SEND, result, NO_BUFFER, 0);
  }
}
