// The engine interface: a proactor. The data plane starts operations; the engine reports completions, in batches.
//
// Identity: an operation belongs to an *endpoint* (slot * 2 + side: one socket of a session) and a 24-bit *generation* of
// its slot, so a late completion for a reused slot is recognised. Results are numbers: negative is -errno (as the kernel
// has it), for every engine. At most one connect, one receive, one send and one pump are in flight per endpoint: more than
// one send would reorder the stream. Every started operation reports exactly one event with `more` 0, cancelled or not,
// but for a `send` that said it is done already; `close`, `reset`, `shutdownWrite` and the `cancel…` calls report nothing.
//
// Events of one socket come in the order in which the engine did the work: an end of stream never overtakes the failed
// send that explains it.
//
// Sockets are numbers that only the engine interprets (descriptors, on Linux).

import type { PeerAddress } from '../sys/socket.ts';

export type EngineName = 'uring' | 'epoll' | 'portable' | 'simulated';

/** Result: a socket or -errno. Endpoint: the caller's listener tag. `more` 0: accepting has stopped, start it again. */
export const OP_ACCEPT = 1;
/** Result: 0 or -errno. */
export const OP_CONNECT = 2;
/** Result: bytes in `buffer` (the caller must release it), 0 = end of stream, or -errno with `buffer` -1. */
export const OP_RECEIVE = 3;
/** Result: bytes sent (may be fewer than asked) or -errno. */
export const OP_SEND = 4;
/**
 * Result: bytes moved; with `more` 0: 0 = end of stream and all delivered, or -errno with `buffer` PUMP_SOURCE or
 * PUMP_TARGET.
 */
export const OP_PUMP = 5;

/** In `buffer` of a failed pump: which side failed. */
export const PUMP_SOURCE = 0;
export const PUMP_TARGET = 1;

/** Words of one event in `Proactor.events`. */
export const EVENT_WORDS = 6;
export const EVENT_OP = 0;
export const EVENT_ENDPOINT = 1;
export const EVENT_GENERATION = 2;
export const EVENT_RESULT = 3;
export const EVENT_BUFFER = 4;
export const EVENT_MORE = 5;

/** No buffer, in EVENT_BUFFER. */
export const NO_BUFFER = -1;

/** Buffers are scarce from when the last one is taken (`inUse` = `count`) until three quarters are free again. */
export function isStillScarce(wasScarce: boolean, inUse: number, count: number): boolean {
  return inUse === count || (wasScarce && inUse * 4 > count);
}

/** What an engine is opened with. */
export interface EngineOptions {
  /** Sessions at most; endpoints are twice as many. */
  readonly slots: number;
  /** eventfd whose signal ends a wait. */
  readonly wakeFd: number;
  readonly bufferBytes: number;
  readonly bufferCount: number;
}

export interface Proactor {
  readonly name: EngineName;
  /** Completions of the last `wait`: EVENT_WORDS words each. Valid until the next `wait`. */
  readonly events: Int32Array;
  /** Size of a receive buffer in bytes: a receive that fills it is a sign of a bulk flow. */
  readonly bufferBytes: number;
  /** Buffers that receives fill; their numbers are 0..bufferCount-1. Those to write into (`takeBuffer`) follow. */
  readonly bufferCount: number;
  /** All buffers: number n is at n * bufferBytes. Only what the caller holds may be looked at or written. */
  readonly memory: Uint8Array;
  /** Whether `pump` exists here (splice). */
  readonly canPump: boolean;

  /** Puts the one monotonic clock, ms with a fraction, into `target[0]` (a returned fraction would be boxed). */
  readClock(target: Float64Array): void;
  /**
   * Submits what was started and waits for at least one completion, a wake-up, or about `timeoutMs` (-1 = no limit; the
   * timer of an earlier wait may end a later one). Returns the number of events.
   */
  wait(timeoutMs: number): number;

  /**
   * Accepts on a listening socket until told otherwise; each event has endpoint `tag`. `shared`: others accept on the same
   * socket, and this engine lets them have their turn.
   */
  accept(listener: number, tag: number, shared: boolean): void;
  /** Stops accepting; the accept's last event has `more` 0. */
  cancelAccept(tag: number): void;
  /**
   * Takes one connection out of a listener's queue, while no accept is in flight there: a socket, or -errno (-EAGAIN: the
   * queue is empty). Never waits.
   */
  acceptWaiting(listener: number, tag: number): number;
  /** A new socket of family 4 or 6, or -errno. */
  openSocket(family: number): number;
  /** Connects `socket`; the address is `words[offset..offset+3]` (sys/sockaddr.ts) and `port`. */
  connect(
    endpoint: number,
    generation: number,
    socket: number,
    family: number,
    words: Uint32Array,
    offset: number,
    port: number,
  ): void;
  /**
   * Receives into pooled buffers until an event with `more` 0, which may have a buffer. -ENOBUFS: none is free,
   * start again after a release.
   */
  receive(endpoint: number, generation: number, socket: number): void;
  /** Ends a receive early: its last event has result -ECANCELED (or what arrived before). */
  cancelReceive(endpoint: number, generation: number): void;
  /**
   * Sends `bytes` at `offset` of a pooled buffer, which the caller keeps until the event. True: all of it is sent already,
   * and no event follows.
   */
  send(
    endpoint: number,
    generation: number,
    socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean;
  /** Moves bytes from `source` to `target` inside the kernel until an event with `more` 0. False: not possible now. */
  pump(endpoint: number, generation: number, source: number, target: number): boolean;
  /** Ends a pump once nothing waits in its pipe: last event -ECANCELED. */
  stopPump(endpoint: number, generation: number): void;
  /**
   * Cancels everything in flight on `socket` of `endpoint`, a pump from there included: each operation still reports its
   * last event. A pump towards it may end too. Bytes in a cancelled pump's pipe are lost: for sessions that end.
   */
  cancel(endpoint: number, generation: number, socket: number): void;

  /** A buffer to write into and send, which the caller releases; -1 = none is free now. Receives never use these. */
  takeBuffer(): number;
  /** Takes a buffer back. */
  releaseBuffer(buffer: number): void;
  /** Whether a receive started now would find a buffer. */
  hasBuffer(): boolean;
  /** Whether buffers are short (isStillScarce): a receive then ends with its first one, to leave others theirs. */
  isScarce(): boolean;
  /** Buffers held by the data plane now. */
  buffersInUse(): number;

  /** Fills `peer` with the client's address; 0 or -errno. */
  readPeer(socket: number, peer: PeerAddress): number;
  /** Fills `local` with the address the client connected to, as `readPeer` does; 0 or -errno. */
  readLocal(socket: number, local: PeerAddress): number;
  /** TCP_NODELAY; accepted sockets have it already. */
  setNoDelay(socket: number): void;
  /** Options that matter only to sessions that last: keepalive and TCP_USER_TIMEOUT, in seconds, 0 = leave. */
  setLongLived(socket: number, keepaliveSecs: number, userTimeoutSecs: number): void;
  /** Sends FIN after what is queued; the other direction stays open. */
  shutdownWrite(socket: number): void;
  /** Closes with FIN. Nothing may be in flight on the socket. `endpoint` -1: it never had one. */
  close(endpoint: number, socket: number): void;
  /** Closes with RST, else like `close`. */
  reset(endpoint: number, socket: number): void;
  /**
   * Like `reset` (`how` 1) or `close` (0), but done when it returns: what is started later reaches the network later.
   * `close` and `reset` may only be queued, and carried out after a connect that this thread or another starts next.
   */
  closeNow(endpoint: number, socket: number, how: number): void;
  /** Frees the engine. What is in flight is abandoned. */
  end(): void;
}
