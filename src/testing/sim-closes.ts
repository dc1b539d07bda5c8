// Closes that a simulated engine has queued: as on a ring, they reach the network only after the batch they were made in,
// and by then other workers may have connected. It also counts the connections a backend really has, for those that have a
// hard limit: a backend must never have more.

import type { WorkerState } from '../proxy/worker-state.ts';
import { BACKEND_INDEXES_MAX } from './sim-control.ts';
import type { SimNetwork } from './sim-network.ts';
import { fail } from './sim-trace.ts';

/** By backend index, over all workers. */
export class BackendConnections {
  readonly #open = new Int32Array(BACKEND_INDEXES_MAX);

  /** `limit` 0 = none. */
  connecting(backend: number, limit: number, worker: number, slot: number): void {
    const open = ++this.#open[backend];
    if (limit === 0 || open <= limit) return;
    fail(`Backend ${backend} got connection ${open}, its hard limit is ${limit}`, worker, slot);
  }

  closed(backend: number): void {
    this.#open[backend]--;
  }

  /**
   * A socket is being closed: the backend whose connection ends with it, -1 = none. Where there is no limit it does not
   * matter when it ends, and the count is let go at once: another worker may know of a limit already.
   */
  leaving({ sessions, selector }: WorkerState, endpoint: number): number {
    const backend = (endpoint & 1) === 1 ? sessions.backend[endpoint >> 1] - 1 : -1;
    if (backend < 0) return -1;
    if ((selector.snapshot?.hardLimit[backend] ?? 0) !== 0) return backend;
    this.closed(backend);
    return -1;
  }
}

interface QueuedClose {
  /** -1 = never connected. */
  readonly end: number;
  readonly reset: boolean;
  /** Whose connection it is; -1 = nobody counts it any more. */
  readonly backend: number;
}

export class SimCloses {
  readonly #network: SimNetwork;
  readonly #connections: BackendConnections;
  #queued: QueuedClose[] = [];

  constructor(network: SimNetwork, connections: BackendConnections) {
    this.#network = network;
    this.#connections = connections;
  }

  get count(): number {
    return this.#queued.length;
  }

  add(end: number, reset: boolean, backend: number): void {
    this.#queued.push({ end, reset, backend });
  }

  carryOut(): void {
    for (const { end, reset, backend } of this.#queued.splice(0)) this.now(end, reset, backend);
  }

  now(end: number, reset: boolean, backend: number): void {
    if (backend >= 0) this.#connections.closed(backend);
    if (end < 0) return;
    if (reset) this.#network.reset(end);
    else this.#network.close(end);
  }
}
