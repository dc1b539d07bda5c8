// The simulated descriptors of one worker: which end of the network a socket is, and which endpoint of the proxy uses it.
// The number given back last is given out first, so that whoever uses a closed socket meets another session's.

import type { SimNetwork } from './sim-network.ts';
import { fail } from './sim-trace.ts';

const UNUSED = -2;

export class SimSockets {
  open = 0;
  readonly #worker: number;
  readonly #descriptorsMax: number;
  /** By socket: its end; -1 = not connected, or UNUSED. */
  readonly #end: Int32Array;
  /** By socket: its endpoint, -1 = none yet. */
  readonly #endpoint: Int32Array;
  /** By endpoint: its socket, -1 = none. */
  readonly #socket: Int32Array;
  /** By end of the network: its socket, -1 = none. */
  readonly #socketOfEnd: Int32Array;
  readonly #free: Int32Array;

  constructor(network: SimNetwork, endpoints: number, descriptorsMax: number, worker: number) {
    this.#worker = worker;
    this.#descriptorsMax = descriptorsMax;
    this.#end = new Int32Array(descriptorsMax).fill(UNUSED);
    this.#endpoint = new Int32Array(descriptorsMax).fill(-1);
    this.#socket = new Int32Array(endpoints).fill(-1);
    this.#socketOfEnd = new Int32Array(network.owner.length).fill(-1);
    this.#free = Int32Array.from({ length: descriptorsMax }, (_, at) => descriptorsMax - 1 - at);
  }

  isFull(): boolean {
    return this.open === this.#descriptorsMax;
  }

  /** A new socket for `end`, or for none yet. */
  take(end: number): number {
    const socket = this.#free[this.#descriptorsMax - 1 - this.open];
    this.open++;
    this.#end[socket] = end;
    this.#endpoint[socket] = -1;
    if (end >= 0) this.#socketOfEnd[end] = socket;
    return socket;
  }

  /** Binds a socket to its endpoint, or checks that it is. Returns its end. */
  attach(endpoint: number, socket: number): number {
    const end = this.endOfSocket(socket);
    if (this.#socket[endpoint] === socket && this.#endpoint[socket] === endpoint) return end;
    if (this.#socket[endpoint] >= 0 || this.#endpoint[socket] >= 0) {
      fail(`Socket ${socket} is not that of endpoint ${endpoint}`, this.#worker, endpoint >> 1);
    }
    this.#socket[endpoint] = socket;
    this.#endpoint[socket] = endpoint;
    return end;
  }

  /** Fails when the socket belongs to another endpoint, or the endpoint has another socket. */
  checkAttached(endpoint: number, socket: number): void {
    const owner = this.#endpoint[socket];
    const own = this.#socket[endpoint];
    if ((owner === endpoint || owner === -1) && (own === socket || own === -1)) return;
    fail(`Socket ${socket} is not that of endpoint ${endpoint}`, this.#worker, endpoint >> 1);
  }

  connected(endpoint: number, end: number): void {
    const socket = this.#socket[endpoint];
    this.#end[socket] = end;
    this.#socketOfEnd[end] = socket;
  }

  /** Gives a closed socket's number back. */
  give(endpoint: number, socket: number): void {
    const end = this.#end[socket];
    if (end >= 0) this.#socketOfEnd[end] = -1;
    if (endpoint >= 0) this.#socket[endpoint] = -1;
    this.#end[socket] = UNUSED;
    this.#endpoint[socket] = -1;
    this.open--;
    this.#free[this.#descriptorsMax - 1 - this.open] = socket;
  }

  endOfSocket(socket: number): number {
    const end = this.#end[socket] ?? UNUSED;
    if (end === UNUSED) fail(`Socket ${socket} is closed`, this.#worker);
    return end;
  }

  /** -1 = the endpoint has no socket, or one not connected. */
  endOf(endpoint: number): number {
    const socket = this.#socket[endpoint];
    return socket < 0 ? -1 : this.#end[socket];
  }

  /** -1 = nobody uses that end now. */
  endpointOf(end: number): number {
    const socket = this.#socketOfEnd[end];
    return socket < 0 ? -1 : this.#endpoint[socket];
  }
}
