// What a simulated engine is opened with, and what it asks of the world it is in.

import type { BackendConnections } from './sim-closes.ts';
import type { SimHeaders } from './sim-headers.ts';

/** How hostile this engine is; drawn from the seed. */
export interface SimEngineOptions {
  readonly worker: number;
  readonly slots: number;
  readonly listeners: number;
  readonly bufferBytes: number;
  readonly bufferCount: number;
  /** Buffers that the proxy may write into, beside those. */
  readonly writeBuffers: number;
  readonly canPump: boolean;
  /** Completions are held back up to this, ms; and how many are not. */
  readonly lateMsMax: number;
  readonly promptShare: number;
  readonly batchMax: number;
  /** Chances of a short read or write, of a receive or accept that ends, of a cancel that comes too late. */
  readonly shortChance: number;
  readonly endChance: number;
  readonly raceChance: number;
  readonly noBuffersChance: number;
  readonly pumpRefusedChance: number;
  readonly descriptorErrorChance: number;
  readonly acceptErrorChance: number;
  /** Descriptors this worker may have open. */
  readonly descriptorsMax: number;
  /**
   * Buffers count as used when the kernel takes them rather than when their event is handed out, and a send that went out
   * whole at once has no event.
   */
  readonly likeEpoll: boolean;
}

/** What the world does for the engine, and is told of. */
export interface SimEngineHost {
  readonly connections: BackendConnections;
  /** The backend whose connection ends with this endpoint's socket, -1 = none that counts. */
  leaving(worker: number, endpoint: number): number;
  readonly headers: SimHeaders;
  /** The socket that the session has at its other endpoint, -1 = none. */
  socketAcross(worker: number, endpoint: number): number;
  /** Starts connecting: the result comes by connectDone(). */
  connectTo(worker: number, endpoint: number, generation: number, uid: number): void;
  /** A connection waiting at a listener: its end, or -1. */
  nextPending(worker: number, tag: number): number;
  /** The backend a connect goes to, from its address; fails when there is none such. */
  backendAt(worker: number, endpoint: number, words: Uint32Array, offset: number): number;
  /** A session's two sockets are known: they must stay a pair. */
  paired(worker: number, slot: number): void;
  /** Everything in flight on an endpoint is about to be cancelled. */
  cancelling(worker: number, endpoint: number): void;
  /** A connect that is being cancelled gets its result just before. */
  connectNow(worker: number, endpoint: number, generation: number): void;
  /** An event of an endpoint is handed out. */
  reported(worker: number, endpoint: number, op: number, result: number, more: number): void;
  /** A socket is closed or reset; called before. */
  closing(worker: number, endpoint: number, socket: number, end: number, reset: boolean): void;
}
