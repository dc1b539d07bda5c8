// The listening sockets of one epoll engine: level-triggered, each watched only while it accepts.

import * as os from '../sys/epoll.ts';
import { EAGAIN, ECANCELED } from '../sys/errno.ts';
import { NO_BUFFER, OP_ACCEPT } from './proactor.ts';
import type { PumpHost } from './splice-pump.ts';

/** Connections accepted per listener and wait, so that relaying is not starved by a flood. */
const ACCEPTS_PER_WAIT = 64;
/** The same where others accept on the same socket. */
const ACCEPTS_PER_TURN = 4;

export class EpollListeners {
  readonly #epoll: bigint;
  readonly #host: Pick<PumpHost, 'emit'>;
  /** What the data word of a listener's registration says; the other word is its tag. */
  readonly #kind: number;
  /** By listener tag: its socket while it accepts, else -1. */
  readonly #sockets: number[] = [];
  /** By listener tag. */
  readonly #shared: boolean[] = [];

  constructor(epoll: bigint, host: Pick<PumpHost, 'emit'>, kind: number) {
    this.#epoll = epoll;
    this.#host = host;
    this.#kind = kind;
  }

  accept(listener: number, tag: number, shared: boolean): void {
    this.#sockets[tag] = listener;
    this.#shared[tag] = shared;
    const result = this.#watch(tag);
    if (result < 0) this.#end(tag, result);
  }

  #watch(tag: number): number {
    const mask = this.#shared[tag] ? os.EPOLLIN | os.EPOLLEXCLUSIVE : os.EPOLLIN;
    return os.addWatch(this.#epoll, this.#sockets[tag], mask, tag, this.#kind);
  }

  cancel(tag: number): void {
    if (this.#isAccepting(tag)) this.#end(tag, -ECANCELED);
  }

  #isAccepting(tag: number): boolean {
    return (this.#sockets[tag] ?? -1) >= 0;
  }

  /** The listener is level-triggered, so it must not stay registered while nobody accepts. */
  #end(tag: number, result: number): void {
    os.removeWatch(this.#epoll, this.#sockets[tag]);
    this.#sockets[tag] = -1;
    this.#host.emit(OP_ACCEPT, tag, 0, result, NO_BUFFER, 0);
  }

  /** Connections wait. */
  ready(tag: number): void {
    const most = this.#shared[tag] ? ACCEPTS_PER_TURN : ACCEPTS_PER_WAIT;
    for (let count = 0; count < most && this.#isAccepting(tag); count++) {
      const socket = os.acceptNonblocking(this.#sockets[tag]);
      if (socket === -EAGAIN) break;
      if (socket < 0) this.#end(tag, socket);
      else this.#host.emit(OP_ACCEPT, tag, 0, socket, NO_BUFFER, 1);
    }
    if (this.#shared[tag] && this.#isAccepting(tag)) this.#goToTheEnd(tag);
  }

  /** The kernel wakes the first who watches a socket exclusively: now it is another's turn. */
  #goToTheEnd(tag: number): void {
    os.removeWatch(this.#epoll, this.#sockets[tag]);
    const result = this.#watch(tag);
    if (result < 0) this.#end(tag, result);
  }
}
