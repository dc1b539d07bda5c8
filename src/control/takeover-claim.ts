// The new side of a takeover: gets the listening sockets of a proxy that runs at the wanted addresses, and tells it to let
// go once this process accepts on them. The same sockets have the same queues, so no connection notices.

import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import { ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { monotonicMs } from '../sys/clock.ts';
import { EAGAIN, ECONNREFUSED, errnoName } from '../sys/errno.ts';
import { formatSocketAddress } from '../sys/sockaddr.ts';
import { closeDescriptor, inspectListener } from '../sys/socket.ts';
import {
  type Credentials,
  connectUnix,
  openUnixSocket,
  peerCredentials,
  receivePacket,
  sendPacket,
} from '../sys/unix-socket.ts';
import {
  decodeMessage,
  encodeMessage,
  type TakeoverMessage,
  takeoverName,
} from './takeover-protocol.ts';

const POLL_MS = 2;
/** A proxy answers within a tenth of a second unless its main thread is stuck, or the machine is. */
const ANSWER_MS_MAX = 10_000;

/** Sockets of another process that listen at one address. */
export interface ClaimedSockets {
  readonly sockets: readonly number[];
  readonly v6Only: boolean;
  readonly pid: number;
}

interface Predecessor extends Credentials {
  readonly socket: number;
}

type Heard = { readonly message: TakeoverMessage; readonly descriptors: readonly number[] };

/** Why there is nothing to claim. */
class ClaimRefused extends Error {}

export class TakeoverClaim {
  readonly #logger: Logger;
  readonly #predecessors: Predecessor[] = [];
  /** Not asked for yet, by address. */
  readonly #offered = new Map<string, ClaimedSockets>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** Whether some process waits for this one to be ready. */
  get isPending(): boolean {
    return this.#predecessors.length > 0;
  }

  /** The sockets another proxy has at `address`, the caller's from now on; or why not ('': nobody offers them). */
  async socketsAt(address: string): Promise<ClaimedSockets | string> {
    if (!this.#offered.has(address)) {
      try {
        await this.#ask(address);
      } catch (error) {
        if (error instanceof ClaimRefused) return error.message;
        throw error;
      }
    }
    const claimed = this.#offered.get(address);
    this.#offered.delete(address);
    return claimed ?? 'the process that offers it does not listen there';
  }

  async #ask(address: string): Promise<void> {
    const socket = openUnixSocket('packets');
    if (socket < 0) throw new ClaimRefused(errnoName(socket));
    try {
      const result = connectUnix(socket, takeoverName(address));
      // Nobody, or too many at once: both may be over in a moment.
      const isPassing = result === -ECONNREFUSED || result === -EAGAIN;
      if (result < 0) throw new ClaimRefused(isPassing ? '' : errnoName(result));
      const peer = peerCredentials(socket);
      const own = process.geteuid?.();
      if (peer === null || (own !== 0 && peer.uid !== 0 && peer.uid !== own)) {
        throw new ClaimRefused('it belongs to another user');
      }
      await this.#receiveSockets(socket, peer.pid);
      this.#predecessors.push({ ...peer, socket });
      const isOwn = peer.uid === own || peer.uid === 0;
      // Root may; but it should be seen, as whoever held the address before this start would be.
      this.#logger[isOwn ? 'info' : 'warn']('Taking over from a running process', { ...peer });
    } catch (error) {
      closeDescriptor(socket);
      throw error;
    }
  }

  async #receiveSockets(socket: number, pid: number): Promise<void> {
    const { message } = await hear(socket);
    if (message.type === 'refused') throw new ClaimRefused(message.reason);
    if (message.type !== 'offer') throw new ClaimRefused('it says something else');
    const sockets: number[] = [];
    try {
      while (sockets.length < message.sockets) {
        const { descriptors } = await hear(socket);
        if (descriptors.length === 0)
          throw new ClaimRefused('it passes fewer sockets than it says');
        sockets.push(...descriptors);
      }
    } catch (error) {
      sockets.forEach(closeDescriptor);
      throw error;
    }
    for (const descriptor of sockets) this.#sort(descriptor, pid);
  }

  #sort(descriptor: number, pid: number): void {
    const found = inspectListener(descriptor);
    if (found === null) {
      closeDescriptor(descriptor);
      return;
    }
    const address = formatSocketAddress(found.address);
    const sockets = [...(this.#offered.get(address)?.sockets ?? []), descriptor];
    this.#offered.set(address, { sockets, v6Only: found.v6Only, pid });
  }

  /** Fails when a predecessor has given up waiting: it would go on beside this process. */
  confirm(): void {
    for (const { socket, pid } of this.#predecessors) {
      const packet = receivePacket(socket);
      if (typeof packet === 'number' || packet.text === '') continue;
      packet.descriptors.forEach(closeDescriptor);
      throw expired(pid);
    }
    // Addresses that are not wanted: those who wait there are their owner's.
    for (const { sockets } of this.#offered.values()) sockets.forEach(closeDescriptor);
    this.#offered.clear();
  }

  /**
   * This process accepts: the predecessors let go. Ends with where to notify the service manager, '' = nowhere. One that
   * is gone, or does not answer, holds nobody up.
   */
  async release(): Promise<string> {
    let notify = '';
    for (const { socket, pid, uid } of this.#predecessors.splice(0)) {
      sendPacket(socket, encodeMessage({ type: 'ready' }));
      try {
        const { message } = await hear(socket);
        if (message.type === 'expired') throw expired(pid);
        if (message.type === 'released' && message.notify !== '') notify = message.notify;
        this.#logger.info('Took over', { event: 'took_over', pid, uid });
      } catch (error) {
        if (!(error instanceof ClaimRefused)) throw error;
        this.#logger.warn('The process before this one has not let go', {
          pid,
          uid,
          reason: error.message,
        });
      }
      closeDescriptor(socket);
    }
    return notify;
  }
}

function expired(pid: number): ProxyError {
  return new ProxyError('ERR_LISTEN', `Cannot take over: process ${pid} did not wait so long`);
}

/** The next message. */
async function hear(socket: number): Promise<Heard> {
  const deadlineMs = monotonicMs() + ANSWER_MS_MAX;
  while (monotonicMs() < deadlineMs) {
    const packet = receivePacket(socket);
    if (packet === -EAGAIN) {
      await setTimeoutPromise(POLL_MS);
      continue;
    }
    if (typeof packet === 'number') throw new ClaimRefused(errnoName(packet));
    const message = packet.text === '' ? 'it ended' : decodeMessage(packet.text);
    if (typeof message !== 'string' && !packet.isCut) {
      return { message, descriptors: packet.descriptors };
    }
    packet.descriptors.forEach(closeDescriptor);
    throw new ClaimRefused(
      typeof message === 'string' ? message : 'more sockets than this process may have open',
    );
  }
  throw new ClaimRefused('it does not answer');
}
