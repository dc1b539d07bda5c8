// The pumps of a simulated engine, as splice-pump.ts does it: source to pipe to target inside the kernel, a turn at a time.

import { NO_BUFFER, PUMP_SOURCE, PUMP_TARGET } from '../engine/proactor.ts';
import { EAGAIN, ECANCELED } from '../sys/errno.ts';
import type { SimEngineOptions } from './sim-engine-host.ts';
import type { SimNetwork } from './sim-network.ts';
import { PUMP, type SimOperations } from './sim-operations.ts';
import type { SimRandom } from './sim-random.ts';
import type { SimSockets } from './sim-sockets.ts';
import { checkOrder } from './sim-streams.ts';

const TURN_BYTES = 1 << 20;
/** Chance that a turn that moved something ends there. */
const TURN_END_CHANCE = 0.2;
/** Receive buffers that fit into the pipe. */
const PIPE_BUFFERS = 16;

export class SimPump {
  bytesReceived = 0;
  bytesSent = 0;
  readonly #network: SimNetwork;
  readonly #random: SimRandom;
  readonly #sockets: SimSockets;
  readonly #operations: SimOperations;
  readonly #options: SimEngineOptions;
  // By source endpoint.
  readonly #pipeBytes: Int32Array;
  /** Position in the source's stream of the first byte in the pipe. */
  readonly #pipeStart: Int32Array;
  readonly #stopping: Uint8Array;

  constructor(
    network: SimNetwork,
    random: SimRandom,
    sockets: SimSockets,
    operations: SimOperations,
    options: SimEngineOptions,
  ) {
    this.#network = network;
    this.#random = random;
    this.#sockets = sockets;
    this.#operations = operations;
    this.#options = options;
    this.#pipeBytes = new Int32Array(options.slots * 2);
    this.#pipeStart = new Int32Array(options.slots * 2);
    this.#stopping = new Uint8Array(options.slots * 2);
  }

  start(endpoint: number): void {
    this.#pipeBytes[endpoint] = 0;
    this.#stopping[endpoint] = 0;
    this.turn(endpoint);
  }

  /** True when it may end at once; else it ends when its pipe is empty. */
  stop(endpoint: number): boolean {
    this.#stopping[endpoint] = 1;
    return this.#pipeBytes[endpoint] === 0;
  }

  /** It waits for its target. */
  isBlocked(endpoint: number): boolean {
    return this.#pipeBytes[endpoint] > 0;
  }

  /** What is in the pipe is lost. */
  empty(endpoint: number): void {
    this.#pipeBytes[endpoint] = 0;
  }

  /** The pipe is filled, then emptied, until a side would block. */
  turn(endpoint: number): void {
    let moved = 0;
    while (this.#operations.isRunning(endpoint, PUMP)) {
      if (moved >= TURN_BYTES || (moved > 0 && this.#random.chance(TURN_END_CHANCE))) {
        this.#operations.later(endpoint, PUMP);
        break;
      }
      if (this.#pipeBytes[endpoint] === 0) {
        if (this.#stopping[endpoint] === 1) {
          this.#end(endpoint, moved, -ECANCELED, NO_BUFFER);
          return;
        }
        const result = this.#fill(endpoint);
        if (result === -EAGAIN) break;
        if (result <= 0) {
          this.#end(endpoint, moved, result, PUMP_SOURCE);
          return;
        }
      }
      const result = this.#drain(endpoint);
      if (result === -EAGAIN) break;
      if (result < 0) {
        this.#end(endpoint, moved, result, PUMP_TARGET);
        return;
      }
      moved += result;
    }
    if (moved > 0) this.#operations.report(endpoint, PUMP, moved, NO_BUFFER, 1);
  }

  #fill(endpoint: number): number {
    const end = this.#sockets.endOf(endpoint);
    this.#pipeStart[endpoint] = this.#network.read[end ^ 1];
    const isShort = this.#random.chance(this.#options.shortChance);
    const most = this.#options.bufferBytes * (isShort ? 1 : PIPE_BUFFERS);
    const result = this.#network.receive(end, most);
    if (result > 0) {
      this.#pipeBytes[endpoint] = result;
      this.bytesReceived += result;
    }
    return result;
  }

  #drain(endpoint: number): number {
    const target = endpoint ^ 1;
    const end = this.#sockets.endOf(target);
    const result = this.#network.write(end, this.#pipeBytes[endpoint]);
    if (result <= 0) return result;
    this.bytesSent += result;
    const origin = this.#sockets.endOf(endpoint) ^ 1;
    const start = this.#pipeStart[endpoint];
    checkOrder(this.#network, this.#options.worker, target, end, origin, start, result);
    this.#pipeStart[endpoint] += result;
    this.#pipeBytes[endpoint] -= result;
    return result;
  }

  #end(endpoint: number, moved: number, result: number, side: number): void {
    if (moved > 0) this.#operations.report(endpoint, PUMP, moved, NO_BUFFER, 1);
    this.#operations.report(endpoint, PUMP, result, side, 0);
  }
}
