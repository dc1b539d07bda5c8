// The operations of a simulated engine: which are in flight at an endpoint, and their completions, which become visible
// late and shuffled. It fails the run when an operation is started twice or reports after its end.

import {
  EVENT_ENDPOINT,
  EVENT_GENERATION,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  NO_BUFFER,
  OP_ACCEPT,
  OP_CONNECT,
} from '../engine/proactor.ts';
import type { SimEngineOptions } from './sim-engine-host.ts';
import { type SimNetwork, WORLD_KERNEL } from './sim-network.ts';
import { SimQueue } from './sim-queue.ts';
import type { SimRandom } from './sim-random.ts';
import { fail, type SimTrace, traceKind } from './sim-trace.ts';

/** The operations of an endpoint; their codes in events are OP_CONNECT and the following. */
export const CONNECT = 0;
export const RECEIVE = 1;
export const SEND = 2;
export const PUMP = 3;
export const OPERATIONS = 4;

/** States of an operation. */
const NONE = 0;
const RUNNING = 1;
/** Its last event is on its way. */
const REPORTED = 2;

const GENERATION_MAX = 0xff_ffff;
/** Completions of one socket are at least this far apart, ms: they keep their order. */
const STEP_MS = 1e-6;

const TRACE_EVENTS = [
  traceKind('event-connect'),
  traceKind('event-receive'),
  traceKind('event-send'),
  traceKind('event-pump'),
];

export class SimOperations {
  readonly #network: SimNetwork;
  readonly #random: SimRandom;
  readonly #trace: SimTrace;
  readonly #options: SimEngineOptions;
  readonly #completions = new SimQueue();
  /** By endpoint, then by listener: when its last event becomes visible. */
  readonly #visibleAt: Float64Array;
  /** By operation of an endpoint. */
  readonly #state: Uint8Array;
  readonly #generation: Int32Array;

  constructor(network: SimNetwork, random: SimRandom, trace: SimTrace, options: SimEngineOptions) {
    const endpoints = options.slots * 2;
    this.#network = network;
    this.#random = random;
    this.#trace = trace;
    this.#options = options;
    this.#visibleAt = new Float64Array(endpoints + options.listeners);
    this.#state = new Uint8Array(endpoints * OPERATIONS);
    this.#generation = new Int32Array(endpoints * OPERATIONS);
  }

  start(endpoint: number, generation: number, operation: number): void {
    const at = endpoint * OPERATIONS + operation;
    if (this.#state[at] !== NONE) this.#misuse('An operation was started twice', endpoint);
    if (generation <= 0 || generation > GENERATION_MAX) this.#misuse('No generation', endpoint);
    this.#state[at] = RUNNING;
    this.#generation[at] = generation;
  }

  #misuse(message: string, endpoint: number): never {
    fail(`${message} (endpoint ${endpoint})`, this.#options.worker, endpoint >> 1);
  }

  isRunning(endpoint: number, operation: number): boolean {
    return this.#state[endpoint * OPERATIONS + operation] === RUNNING;
  }

  /** Runs, and was started with this generation. */
  isCurrent(endpoint: number, generation: number, operation: number): boolean {
    const at = endpoint * OPERATIONS + operation;
    return this.#state[at] === RUNNING && this.#generation[at] === generation;
  }

  /** Its last event is not handed out. */
  isInFlight(endpoint: number, operation: number): boolean {
    return this.#state[endpoint * OPERATIONS + operation] !== NONE;
  }

  /** Operations of an endpoint that are in flight. */
  inFlight(endpoint: number): number {
    let count = 0;
    for (let operation = 0; operation < OPERATIONS; operation++) {
      if (this.isInFlight(endpoint, operation)) count++;
    }
    return count;
  }

  isClean(): boolean {
    return this.#completions.count === 0 && this.#state.every((state) => state === NONE);
  }

  /** When the next completion becomes visible, Infinity = none is on its way. */
  nextEventAt(): number {
    return this.#completions.nextTime();
  }

  report(endpoint: number, operation: number, result: number, buffer: number, more: number): void {
    const at = endpoint * OPERATIONS + operation;
    if (this.#state[at] !== RUNNING) this.#misuse('Reported after its end', endpoint);
    if (more === 0) this.#state[at] = REPORTED;
    const time = this.#visible(endpoint, operation === PUMP ? endpoint ^ 1 : endpoint);
    const op = OP_CONNECT + operation;
    const generation = this.#generation[at];
    this.#completions.push(time, op, endpoint, generation, result, buffer, more);
  }

  /** Its result is known to the caller already: no event follows. */
  finishAtOnce(endpoint: number, operation: number, result: number): void {
    const at = endpoint * OPERATIONS + operation;
    if (this.#state[at] !== RUNNING) this.#misuse('Done after its end', endpoint);
    this.#state[at] = NONE;
    const kind = TRACE_EVENTS[operation] as number;
    this.#trace.add(
      kind,
      this.#options.worker,
      endpoint,
      result,
      this.#generation[at] as number,
      0,
    );
  }

  postAccept(tag: number, result: number, more: number): void {
    const lane = this.#options.slots * 2 + tag;
    const time = this.#visible(lane, lane);
    this.#completions.push(time, OP_ACCEPT, tag, 0, result, NO_BUFFER, more);
  }

  /**
   * When an event becomes visible: after a random delay, but not before earlier ones of the same socket. The kernel
   * completes the operations of a socket one after the other, and an end of stream behind an error that a send was told
   * must not be heard first. A pump uses two sockets.
   */
  #visible(lane: number, other: number): number {
    const { lateMsMax, promptShare } = this.#options;
    const late = this.#random.chance(promptShare) ? 0 : this.#random.between(0, lateMsMax);
    const visibleAt = this.#visibleAt;
    const after = Math.max(visibleAt[lane], visibleAt[other]) + STEP_MS;
    const time = Math.max(this.#network.clock[0] + late, after);
    visibleAt[lane] = time;
    visibleAt[other] = time;
    return time;
  }

  /** Moves what is visible now into `events`; returns how many. */
  handOut(events: Int32Array, countMax: number): number {
    const now = this.#network.clock[0];
    const completions = this.#completions;
    let count = 0;
    while (count < countMax && completions.nextTime() <= now) {
      completions.take();
      const from = completions.taken;
      const at = count++ * EVENT_WORDS;
      for (let word = 0; word < EVENT_WORDS; word++) {
        events[at + word] = completions.words[from + word];
      }
      if (events[at + EVENT_OP] !== OP_ACCEPT) this.#ended(events, at);
    }
    return count;
  }

  #ended(events: Int32Array, at: number): void {
    const endpoint = events[at + EVENT_ENDPOINT];
    const operation = events[at + EVENT_OP] - OP_CONNECT;
    const more = events[at + EVENT_MORE];
    if (more === 0) this.#state[endpoint * OPERATIONS + operation] = NONE;
    const kind = TRACE_EVENTS[operation] as number;
    const result = events[at + EVENT_RESULT];
    const generation = events[at + EVENT_GENERATION];
    this.#trace.add(kind, this.#options.worker, endpoint, result, generation, more);
  }

  /** The kernel goes on with an operation a little later. */
  later(endpoint: number, operation: number): void {
    const delay = this.#random.between(0, 1);
    const at = endpoint * OPERATIONS + operation;
    this.#network.schedule(delay, WORLD_KERNEL, this.#options.worker, at);
  }
}
