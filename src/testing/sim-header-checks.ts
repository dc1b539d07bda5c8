// What must hold of PROXY headers in a simulation: nobody is admitted without the header he owes or as someone he is not,
// nobody is turned away for a header that is good, and every backend gets the one it expects, whole, once and first.

import {
  CLOSE_REASONS,
  REJECT_ACCESS_DENIED,
  REJECT_CLIENT_GONE,
  REJECT_HARD_LIMIT,
  REJECT_NO_BACKEND,
  REJECT_PROXY_HEADER_INVALID,
  REJECT_PROXY_HEADER_TIMEOUT,
  REJECT_REASONS,
  REJECTED,
} from '../proxy/close-reason.ts';
import { HEADER_NONE, loadAddress, STATE_CLOSING, STATE_HEADER } from '../proxy/sessions.ts';
import { isLetIn } from './sim-access.ts';
import { CLIENT_PORT, fillAddress, showAddress } from './sim-clients.ts';
import {
  emptyAddress,
  HEAD_BROKEN,
  HEAD_NONE,
  HEAD_PARTIAL,
  type SimHeaders,
} from './sim-headers.ts';
import { fail } from './sim-trace.ts';
import type { SimWorker, SimWorld } from './sim-world.ts';

export class SimHeaderChecks {
  readonly #world: SimWorld;
  readonly #headers: SimHeaders;
  /** By worker and endpoint: the version its backend expects. */
  readonly #wanted: Uint8Array[];
  /** By end: length of the header being written there. */
  readonly #bytes = new Map<number, number>();

  constructor(world: SimWorld) {
    this.#world = world;
    this.#headers = world.headers;
    this.#wanted = world.workers.map(() => new Uint8Array(world.options.slots * 2));
    this.#headers.onWritten = (...written) => this.#wrote(...written);
  }

  #worker(index: number): SimWorker {
    return this.#world.workers[index] as SimWorker;
  }

  /** A session connects to a backend: by now it must be known whose it is. */
  connecting(index: number, endpoint: number, backend: number): void {
    const { state, engine } = this.#worker(index);
    const { sessions, selector } = state;
    const slot = endpoint >> 1;
    const { network, clientOf, options } = this.#world;
    (this.#wanted[index] as Uint8Array)[endpoint] = selector.snapshot?.proxyProtocol[backend] ?? 0;
    const socket = (sessions.sockets[slot * 2] as number) - 1;
    const client = engine.sockets.endOfSocket(socket) ^ 1;
    if (this.#isBad(client)) fail('Admitted without a PROXY header', index, slot);
    if ((network.skip[client] as number) > (network.read[client] as number)) {
      fail('Admitted before the PROXY header was there', index, slot);
    }
    const [taken, real] = [emptyAddress(), emptyAddress()];
    loadAddress(sessions.clientWords, slot * 4, sessions.clientPort[slot] as number, taken);
    fillAddress(clientOf[client] as number, options.clients, real);
    real.port = CLIENT_PORT;
    if (showAddress(taken) === showAddress(real)) return;
    fail(`${showAddress(real)} was taken for ${showAddress(taken)}`, index, slot);
  }

  #isBad(client: number): boolean {
    const head = this.#headers.head[client];
    return head === HEAD_BROKEN || head === HEAD_PARTIAL;
  }

  /** A backend's connection stands at `end`. */
  connected(index: number, endpoint: number, end: number): void {
    const wanted = (this.#wanted[index] as Uint8Array)[endpoint] as number;
    this.#world.network.owed[end] = wanted > 0 ? 1 : 0;
  }

  /** The proxy wrote `bytes` of a header, from `offset` on, to `end`. */
  #wrote(
    index: number,
    endpoint: number,
    end: number,
    at: number,
    offset: number,
    bytes: number,
  ): void {
    const { network, clientOf } = this.#world;
    const slot = endpoint >> 1;
    const before = (network.wrote[end] as number) - bytes;
    if (before !== offset || before !== network.front[end] || network.owed[end] === 0) {
      fail('A PROXY header where none belongs', index, slot);
    }
    if (offset === 0) {
      const wanted = (this.#wanted[index] as Uint8Array)[endpoint] as number;
      const [text, length] = this.#headers.parseWritten(index, at, wanted);
      const client = (network.pair[end] as number) ^ 1;
      const expected = this.#headers.expected(client, clientOf[client] as number);
      if (text !== expected) fail(`A PROXY header of ${text}, not ${expected}`, index, slot);
      this.#bytes.set(end, length);
    }
    network.front[end] += bytes;
    const left = (this.#bytes.get(end) as number) - (network.front[end] as number);
    if (left < 0) fail('More than the PROXY header was written', index, slot);
    if (left === 0) network.owed[end] = 0;
  }

  /** A connection that had a slot was turned away: rightly so? */
  judge(index: number, slot: number, end: number): void {
    const { network, options } = this.#world;
    const { sessions } = this.#worker(index).state;
    const reason = (sessions.reason[slot] as number) - REJECTED;
    const client = end ^ 1;
    const waited = (network.clock[0] as number) - (sessions.acceptedAt[slot] as number);
    let right = false;
    switch (reason) {
      case REJECT_PROXY_HEADER_INVALID:
        right = this.#isBad(client);
        break;
      case REJECT_PROXY_HEADER_TIMEOUT:
        right = waited >= (options.headers?.proxyIn.timeoutMs ?? 0);
        break;
      case REJECT_CLIENT_GONE:
        right = network.over[end] === 1 || network.sawEnd[end] === 1;
        break;
      case REJECT_ACCESS_DENIED:
        right = !this.#isBad(client) && !isLetIn(this.#world, index, end);
        break;
      case REJECT_NO_BACKEND:
      case REJECT_HARD_LIMIT:
        right = !this.#isBad(client);
    }
    const name = REJECT_REASONS[reason]?.name ?? '';
    const owes = this.#headers.head[client] !== HEAD_NONE;
    if (!right || !owes) fail(`Turned away for ${name}, which it is not`, index, slot);
  }

  /** What must hold of a slot whose header is waited for. */
  checkWaiting(index: number, slot: number, lateMs: number): void {
    const { sessions } = this.#worker(index).state;
    if (sessions.headerIn[slot] !== HEADER_NONE) return;
    const waited = (this.#world.network.clock[0] as number) - (sessions.acceptedAt[slot] as number);
    if (waited <= (this.#world.options.headers?.proxyIn.timeoutMs ?? 0) + lateMs) return;
    fail('A PROXY header is past its deadline', index, slot);
  }

  /** Slots that are counted as open, but by no country: not admitted, or turned away after all. */
  unadmitted(index: number): number {
    const { sessions } = this.#worker(index).state;
    let count = 0;
    for (let slot = 0; slot < sessions.slots.fresh; slot++) {
      const state = sessions.state[slot];
      const turnedAway =
        state === STATE_CLOSING && (sessions.reason[slot] as number) >= CLOSE_REASONS.length;
      if (state === STATE_HEADER || turnedAway) count++;
    }
    return count;
  }
}
