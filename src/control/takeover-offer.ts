// The side that is replaced: offers its listening sockets to a new proxy of the same user or of root, and lets go of them
// only once that one accepts. Until then nothing changes here, whatever becomes of the other. It looks for one on a timer:
// Node can watch neither a descriptor of ours nor pass one on, and a look is one short call.

import type { Logger } from '../base/log.ts';
import { monotonicMs } from '../sys/clock.ts';
import { addWatch, EPOLLIN, openEpoll, waitEpoll } from '../sys/epoll.ts';
import { EADDRINUSE, EAGAIN, errnoName } from '../sys/errno.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { closeDescriptor } from '../sys/socket.ts';
import {
  acceptUnix,
  type Credentials,
  listenUnix,
  openUnixSocket,
  PASSED_MAX,
  peerCredentials,
  receivePacket,
  sendPacket,
} from '../sys/unix-socket.ts';
import type { Listener } from './listeners.ts';
import {
  decodeMessage,
  encodeMessage,
  READY_MS_MAX,
  type TakeoverMessage,
  takeoverName,
} from './takeover-protocol.ts';

const LOOK_MS = 100;
/** The same while a new process is on its way. */
const LOOK_SUCCESSOR_MS = 5;
/** A name may be its predecessor's for a moment. */
const NAME_RETRY_LOOKS = 10;
const BACKLOG = 8;
/** epoll events are read for nothing but their number. */
const EVENTS_MAX = 16;
const EVENT_BYTES = 16;

interface OfferOptions {
  readonly listeners: readonly Listener[];
  readonly logger: Logger;
  /** The new process accepts: lets go of everything but the sessions. Ends with the `notify` of the message. */
  /** How long a new process may take to be ready. */
  readonly readyMs?: number;
  readonly onTaken: (pid: number) => Promise<string>;
}

interface Successor extends Credentials {
  readonly socket: number;
  /** When it must be ready. */
  readonly deadlineMs: number;
}

export class TakeoverOffer {
  readonly #options: OfferOptions;
  /** Its unix socket by address, null while another process has the name. */
  readonly #names = new Map<string, number | null>();
  readonly #epoll = openEpoll();
  readonly #events: Mapping = mapMemory(EVENTS_MAX * EVENT_BYTES, 'takeover events');
  readonly #refused = new Set<number>();
  #successor: Successor | null = null;
  #timer: NodeJS.Timeout | undefined;
  #looks = 0;
  #closed = false;

  constructor(options: OfferOptions) {
    this.#options = options;
    for (const { address } of options.listeners) this.#names.set(address, null);
    this.#takeNames();
    this.#look();
  }

  #takeNames(): void {
    for (const [address, name] of this.#names) {
      if (name !== null) continue;
      const socket = openUnixSocket('packets');
      const result = socket < 0 ? socket : listenUnix(socket, takeoverName(address), BACKLOG);
      if (result === 0) {
        this.#names.set(address, socket);
        addWatch(BigInt(this.#epoll), socket, EPOLLIN, 0, 0);
        continue;
      }
      if (socket >= 0) closeDescriptor(socket);
      if (this.#looks !== NAME_RETRY_LOOKS) continue;
      const taken = result === -EADDRINUSE;
      this.#options.logger.warn('A listener cannot be offered to a new process', {
        address,
        reason: taken ? `another process has the name ${takeoverName(address)}` : errnoName(result),
      });
    }
  }

  #look(): void {
    if (this.#closed) return;
    this.#looks++;
    if (this.#looks % NAME_RETRY_LOOKS === 0) this.#takeNames();
    const ready = waitEpoll(BigInt(this.#epoll), this.#events.address, EVENTS_MAX, 0);
    if (ready > 0) {
      for (const name of this.#names.values()) if (name !== null) this.#welcomeAll(name);
    }
    if (this.#successor !== null) this.#hear(this.#successor);
    if (this.#closed) return;
    const wait = this.#successor === null ? LOOK_MS : LOOK_SUCCESSOR_MS;
    this.#timer = setTimeout(() => this.#look(), wait);
    this.#timer.unref();
  }

  #welcomeAll(name: number): void {
    for (let socket = acceptUnix(name); socket >= 0; socket = acceptUnix(name)) {
      if (!this.#welcome(socket)) closeDescriptor(socket);
    }
  }

  /** False: it is not the successor. */
  #welcome(socket: number): boolean {
    const { logger, listeners } = this.#options;
    const peer = peerCredentials(socket);
    if (peer === null) return false;
    const refuse = (reason: string): false => {
      sendPacket(socket, encodeMessage({ type: 'refused', reason }));
      return false;
    };
    if (peer.uid !== 0 && peer.uid !== process.geteuid?.()) {
      if (!this.#refused.has(peer.uid)) {
        this.#refused.add(peer.uid);
        logger.warn('A process of another user may not take over', { ...peer });
      }
      return refuse('it belongs to another user');
    }
    if (this.#successor !== null) return refuse('another process is taking over from it right now');
    const sockets = listeners.flatMap((listener) => listener.sockets);
    let result = sendPacket(socket, encodeMessage({ type: 'offer', sockets: sockets.length }));
    for (let at = 0; at < sockets.length && result > 0; at += PASSED_MAX) {
      const message = encodeMessage({ type: 'sockets' });
      result = sendPacket(socket, message, sockets.slice(at, at + PASSED_MAX));
    }
    if (result <= 0) {
      const fields = { event: 'takeover_failed', ...peer, reason: errnoName(result) };
      logger.warn('The listeners cannot be passed on', fields);
      return false;
    }
    logger.info('A new process prepares to take over', { event: 'takeover_offered', ...peer });
    const { readyMs = READY_MS_MAX } = this.#options;
    this.#successor = { ...peer, socket, deadlineMs: monotonicMs() + readyMs };
    return true;
  }

  #hear(successor: Successor): void {
    const { pid, socket } = successor;
    const packet = receivePacket(socket);
    if (packet === -EAGAIN) {
      if (monotonicMs() < successor.deadlineMs) return;
      sendPacket(socket, encodeMessage({ type: 'expired' }));
      this.#forget('it was not ready in time');
      return;
    }
    if (typeof packet === 'number') {
      this.#forget(errnoName(packet));
      return;
    }
    packet.descriptors.forEach(closeDescriptor);
    const message: TakeoverMessage | string =
      packet.text === '' ? 'it ended' : decodeMessage(packet.text);
    if (typeof message === 'string' || message.type !== 'ready') {
      this.#forget(typeof message === 'string' ? message : `it said ${message.type}`);
      return;
    }
    this.#release();
    void this.#options.onTaken(pid).then((notify) => {
      sendPacket(socket, encodeMessage({ type: 'released', notify }));
      closeDescriptor(socket);
    });
  }

  /** The offer stands again. */
  #forget(reason: string): void {
    if (this.#successor === null) return;
    const { pid, uid, socket } = this.#successor;
    closeDescriptor(socket);
    this.#successor = null;
    const { logger } = this.#options;
    const fields = { event: 'takeover_failed', pid, uid, reason };
    logger.warn('The new process did not take over, this one goes on', fields);
  }

  #release(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const name of this.#names.values()) if (name !== null) closeDescriptor(name);
    closeDescriptor(this.#epoll);
    unmap(this.#events);
  }

  /** Withdraws the offer. A process that had accepted it goes on with the sockets it has. */
  close(): void {
    if (this.#closed) return;
    this.#release();
    if (this.#successor !== null) closeDescriptor(this.#successor.socket);
  }
}
