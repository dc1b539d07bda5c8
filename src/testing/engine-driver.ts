// Drives one engine in the conformance suite, so that each case is written once for blocking and event-driven engines.
// It also keeps the ledger of the interface's promises: every started operation reports exactly one last event, no event
// names an operation that is not in flight, every buffer comes back, and a case leaves no descriptor open.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { setImmediate as nextLoopTurn } from 'node:timers/promises';
import { EpollEngine } from '../engine/epoll.ts';
import { PortableEngine, type PortableListener } from '../engine/portable.ts';
import * as proactor from '../engine/proactor.ts';
import { UringEngine } from '../engine/uring.ts';
import { errnoName } from '../sys/errno.ts';
import { createEventfd } from '../sys/eventfd.ts';
import { nativeRefusal } from '../sys/native.ts';
import { formatAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { uringRefusal } from '../sys/uring.ts';
import {
  isRefused,
  loopback,
  openPeer,
  type Peer,
  PeerListener,
  type PeerListenerOptions,
  reservePort,
} from './engine-peer.ts';

/** A hang becomes a failure after this long; no case depends on time otherwise. */
const LIMIT_MS = 8000;
const TURN_WAIT_MS = 1;
const OPERATIONS = ['', 'accept', 'connect', 'receive', 'send', 'pump'];

export interface EngineEvent {
  readonly operation: number;
  readonly endpoint: number;
  readonly generation: number;
  readonly result: number;
  readonly buffer: number;
  readonly more: number;
}

/** One socket of the engine and the peer at its other end. */
export interface Link {
  readonly endpoint: number;
  readonly generation: number;
  readonly socket: number;
  readonly peer: Peer;
}

export interface EngineListener {
  /** As `Proactor.accept` wants it. */
  readonly number: number;
  readonly family: 4 | 6;
  readonly port: number;
}

export interface EngineKind {
  readonly name: proactor.EngineName;
  /** Why it cannot run here, '' when it can. */
  readonly refusal: string;
  open(options: proactor.EngineOptions): proactor.Proactor;
}

function opened<Engine>(engine: Engine | number): Engine {
  if (typeof engine === 'number') throw new Error(`Cannot open the engine: ${errnoName(engine)}`);
  return engine;
}

/** The portable engine needs no native code, its peers here do. */
export const ENGINE_KINDS: readonly EngineKind[] = [
  {
    name: 'uring',
    refusal: uringRefusal(),
    open: (options) => opened(UringEngine.open(options)),
  },
  { name: 'epoll', refusal: nativeRefusal, open: (options) => opened(EpollEngine.open(options)) },
  { name: 'portable', refusal: nativeRefusal, open: (options) => new PortableEngine(options) },
];

/** Takes events before the case sees them: true = taken. */
export type EventTaker = (event: EngineEvent) => boolean;

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function ledgerKey(operation: number, endpoint: number, generation: number): string {
  return `${OPERATIONS[operation]} endpoint ${endpoint} generation ${generation}`;
}

export class EngineDriver {
  readonly engine: proactor.Proactor;
  readonly wakeFd: number;
  readonly takers = new Set<EventTaker>();
  readonly #descriptorsBefore: number;
  readonly #open = new Map<string, { readonly endpoint: number; readonly operation: number }>();
  readonly #links = new Set<Link>();
  readonly #strays = new Set<number>();
  readonly #held = new Set<number>();
  readonly #peers: Peer[] = [];
  readonly #cleanups: (() => void)[] = [];
  readonly #portableListeners: PortableListener[] = [];
  #waiting: EngineEvent[] = [];
  /** Sends that were done when they started: cases see them as events, first in the next batch. */
  #sentAtOnce: EngineEvent[] = [];
  #batchSeen: () => void = () => {};
  #violation = '';

  constructor(kind: EngineKind, options: Partial<proactor.EngineOptions>) {
    this.#descriptorsBefore = openDescriptors();
    this.wakeFd = createEventfd();
    const defaults = { slots: 64, bufferBytes: 16_384, bufferCount: 64, wakeFd: this.wakeFd };
    this.engine = kind.open({ ...defaults, ...options });
    if (this.engine instanceof PortableEngine) {
      this.engine.drive(this.#portableListeners, (count) => {
        this.#takeBatch(count);
        this.#batchSeen();
      });
    }
  }

  // ---- turns and events ------------------------------------------------------------------------------------------

  /** One batch of the engine, and whatever the peers can do. */
  async turn(waitMs = TURN_WAIT_MS): Promise<void> {
    for (const peer of this.#peers) peer.poll();
    if (this.engine instanceof PortableEngine) {
      const batch = new Promise<void>((resolve) => {
        this.#batchSeen = resolve;
      });
      this.engine.wait(waitMs);
      await batch;
    } else {
      this.#takeBatch(this.engine.wait(waitMs));
      await nextLoopTurn();
    }
    if (this.#violation !== '') assert.fail(this.#violation);
  }

  /** A few turns in which nothing need happen: what was wrongly reported would show. */
  async turns(count = 10): Promise<void> {
    for (let turn = 0; turn < count; turn++) await this.turn();
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    const deadline = performance.now() + LIMIT_MS;
    while (!condition()) {
      if (performance.now() > deadline) {
        assert.fail(
          `Waited in vain for ${what}; in flight: ${[...this.#open.keys()].join(', ')}; ` +
            `events not taken: ${JSON.stringify(this.#waiting.slice(0, 8))}`,
        );
      }
      await this.turn();
    }
  }

  #takeBatch(count: number): void {
    const { events } = this.engine;
    // Copied first: a blocking engine's events are valid until the next wait, and takers start operations.
    const batch = this.#sentAtOnce;
    this.#sentAtOnce = [];
    for (let at = 0; at < count * proactor.EVENT_WORDS; at += proactor.EVENT_WORDS) {
      batch.push({
        operation: events[at + proactor.EVENT_OP] as number,
        endpoint: events[at + proactor.EVENT_ENDPOINT] as number,
        generation: events[at + proactor.EVENT_GENERATION] as number,
        result: events[at + proactor.EVENT_RESULT] as number,
        buffer: events[at + proactor.EVENT_BUFFER] as number,
        more: events[at + proactor.EVENT_MORE] as number,
      });
    }
    for (const event of batch) {
      this.#note(event);
      if (![...this.takers].some((taker) => taker(event))) this.#waiting.push(event);
    }
  }

  #violate(text: string, event: EngineEvent): void {
    if (this.#violation === '') this.#violation = `${text}: ${JSON.stringify(event)}`;
  }

  #note(event: EngineEvent): void {
    const { operation, endpoint, generation, result, buffer, more } = event;
    const key = ledgerKey(operation, endpoint, generation);
    if (!this.#open.has(key)) this.#violate('An event of an operation not in flight', event);
    if (more === 0) this.#open.delete(key);
    if (operation === proactor.OP_ACCEPT && result >= 0) this.#strays.add(result);
    if (operation !== proactor.OP_RECEIVE) return;
    if (buffer >= 0 !== result > 0) this.#violate('Bytes without a buffer, or the reverse', event);
    if (result > this.engine.bufferBytes) this.#violate('More bytes than a buffer holds', event);
    if (buffer < 0) return;
    if (this.#held.has(buffer)) this.#violate('A buffer handed out twice', event);
    this.#held.add(buffer);
  }

  /** The next event not taken yet that matches, in the order reported. */
  async next(operation: number, endpoint = -1): Promise<EngineEvent> {
    const matches = (event: EngineEvent): boolean =>
      event.operation === operation && (endpoint < 0 || event.endpoint === endpoint);
    await this.until(`an event of ${OPERATIONS[operation]} at endpoint ${endpoint}`, () =>
      this.#waiting.some(matches),
    );
    const index = this.#waiting.findIndex(matches);
    return this.#waiting.splice(index, 1)[0] as EngineEvent;
  }

  /** Events nobody took, which are then forgotten. */
  takeAll(): EngineEvent[] {
    const events = this.#waiting;
    this.#waiting = [];
    return events;
  }

  isOpen(operation: number, link: Pick<Link, 'endpoint' | 'generation'>): boolean {
    return this.#open.has(ledgerKey(operation, link.endpoint, link.generation));
  }

  get inFlight(): number {
    return this.#open.size;
  }

  // ---- operations ------------------------------------------------------------------------------------------------

  #start(operation: number, endpoint: number, generation: number): void {
    const key = ledgerKey(operation, endpoint, generation);
    assert(!this.#open.has(key), `The case started ${key} twice`);
    this.#open.set(key, { endpoint, operation });
  }

  accept(listener: EngineListener, tag: number, shared = false): void {
    this.#start(proactor.OP_ACCEPT, tag, 0);
    this.engine.accept(listener.number, tag, shared);
  }

  connect(endpoint: number, generation: number, socket: number, to: SocketAddress): void {
    this.#start(proactor.OP_CONNECT, endpoint, generation);
    const words = Uint32Array.from([9, 9, ...to.words]);
    this.engine.connect(endpoint, generation, socket, to.family, words, 2, to.port);
  }

  receive(link: Link): void {
    this.#start(proactor.OP_RECEIVE, link.endpoint, link.generation);
    this.engine.receive(link.endpoint, link.generation, link.socket);
  }

  cancelReceive(link: Link): void {
    this.engine.cancelReceive(link.endpoint, link.generation);
  }

  send(link: Link, buffer: number, offset: number, bytes: number): void {
    this.#start(proactor.OP_SEND, link.endpoint, link.generation);
    const { endpoint, generation, socket } = link;
    if (!this.engine.send(endpoint, generation, socket, buffer, offset, bytes)) return;
    const operation = proactor.OP_SEND;
    this.#sentAtOnce.push({ operation, endpoint, generation, result: bytes, buffer: -1, more: 0 });
  }

  pump(source: Link, target: Link): void {
    this.#start(proactor.OP_PUMP, source.endpoint, source.generation);
    const { endpoint, generation, socket } = source;
    assert(this.engine.pump(endpoint, generation, socket, target.socket), 'No pump could be had');
  }

  stopPump(source: Link): void {
    this.engine.stopPump(source.endpoint, source.generation);
  }

  cancel(link: Link): void {
    this.engine.cancel(link.endpoint, link.generation, link.socket);
  }

  release(buffer: number): void {
    assert(this.#held.delete(buffer), 'The case released a buffer it does not hold');
    this.engine.releaseBuffer(buffer);
  }

  /** Nothing may be in flight on the link. */
  close(link: Link, how: 'close' | 'reset' = 'close'): void {
    this.#links.delete(link);
    this.engine[how](link.endpoint, link.socket);
  }

  /** No accept may be in flight on the listener. */
  acceptWaiting(listener: EngineListener, tag: number): number {
    const result = this.engine.acceptWaiting(listener.number, tag);
    if (result >= 0) this.#strays.add(result);
    return result;
  }

  /** `how` 1: by RST. */
  closeNow(link: Link, how: number): void {
    this.#links.delete(link);
    this.engine.closeNow(link.endpoint, link.socket, how);
  }

  /** Closes an accepted socket that no endpoint took. */
  closeStray(socket: number, how: 'close' | 'reset' = 'close'): void {
    assert(this.#strays.delete(socket), 'The case closed a socket that was not accepted');
    this.engine[how](-1, socket);
  }

  // ---- listeners, peers, links -----------------------------------------------------------------------------------

  listen(family: 4 | 6 = 4, v6Only = true, words = loopback(family)): EngineListener {
    const address: SocketAddress = { family, words, port: 0 };
    if (this.engine instanceof PortableEngine) {
      const { fd, port } = reservePort(address);
      this.#cleanups.push(() => closeDescriptor(fd));
      const host = formatAddress(family, words);
      this.#portableListeners.push({ host, port, v6Only });
      return { number: this.#portableListeners.length - 1, family, port };
    }
    const options = { backlog: 4096, fastOpenQueue: 0, reusePort: false, v6Only };
    const fd = openListener(address, options);
    assert(fd >= 0, `Cannot listen: ${errnoName(fd)}`);
    this.#cleanups.push(() => closeDescriptor(fd));
    return { number: fd, family, port: boundAddress(fd)?.port ?? 0 };
  }

  /** Starts accepting and returns once connections are taken; node:net begins to listen a little later. */
  async listening(family: 4 | 6 = 4, tag = 0): Promise<EngineListener> {
    const listener = this.listen(family);
    this.accept(listener, tag);
    await this.accepting(listener, tag);
    return listener;
  }

  /** Returns once connections to `listener` are not refused; what was accepted on the way is forgotten. */
  async accepting(listener: EngineListener, tag: number): Promise<void> {
    if (!(this.engine instanceof PortableEngine)) return;
    await this.until('listening', () => !isRefused(listener.family, listener.port));
    const { result } = await this.next(proactor.OP_ACCEPT, tag);
    this.closeStray(result);
  }

  peer(peer: Peer): Peer {
    this.#peers.push(peer);
    return peer;
  }

  connectPeer(listener: EngineListener, family = listener.family): Peer {
    return this.peer(openPeer(family, listener.port));
  }

  peerListener(options: PeerListenerOptions = {}): PeerListener {
    const listener = new PeerListener(options);
    this.#cleanups.push(() => listener.close());
    return listener;
  }

  adopt(link: Link): Link {
    this.#strays.delete(link.socket);
    this.#links.add(link);
    return link;
  }

  /** A link made by the engine's connect. */
  async link(
    endpoint: number,
    options: PeerListenerOptions & { generation?: number } = {},
  ): Promise<Link> {
    const { generation = 1 } = options;
    const listener = new PeerListener(options);
    const { family, port } = listener;
    const socket = this.engine.openSocket(family);
    assert(socket >= 0, `Cannot open a socket: ${errnoName(socket)}`);
    this.connect(endpoint, generation, socket, { family, words: loopback(family), port });
    const { result } = await this.next(proactor.OP_CONNECT, endpoint);
    assert.equal(result, 0, errnoName(result));
    const peer = listener.take();
    listener.close();
    assert(peer !== null, 'Connected, yet no connection waits');
    return this.adopt({ endpoint, generation, socket, peer: this.peer(peer) });
  }

  /** A link made by the engine's accept. */
  async acceptedLink(endpoint: number, listener: EngineListener, generation = 1): Promise<Link> {
    const peer = this.connectPeer(listener);
    const { result } = await this.next(proactor.OP_ACCEPT);
    assert(result >= 0, errnoName(result));
    return this.adopt({ endpoint, generation, socket: result, peer });
  }

  // ---- the end ---------------------------------------------------------------------------------------------------

  /** Cancels what is in flight and checks that everything reports, comes back and is closed. */
  async finish(): Promise<void> {
    // Flows would start their operations again.
    this.takers.clear();
    for (const { operation, endpoint } of this.#open.values()) {
      if (operation === proactor.OP_ACCEPT) this.engine.cancelAccept(endpoint);
    }
    for (const link of this.#links) this.cancel(link);
    await this.until('the last event of every operation', () => this.#open.size === 0);
    for (const buffer of [...this.#held]) this.release(buffer);
    assert.equal(this.engine.buffersInUse(), 0, 'Buffers are missing');
    for (const link of [...this.#links]) this.close(link, 'reset');
    for (const socket of [...this.#strays]) this.closeStray(socket, 'reset');
    await this.turns(2);
  }

  /** Frees everything, also after a failed case. */
  end(): void {
    this.engine.end();
    for (const peer of this.#peers) peer.close();
    for (const cleanup of this.#cleanups) cleanup();
    closeDescriptor(this.wakeFd);
  }

  /** node:net closes its sockets a little later, so this waits. */
  async checkDescriptors(): Promise<void> {
    const deadline = performance.now() + LIMIT_MS;
    while (openDescriptors() > this.#descriptorsBefore && performance.now() < deadline) {
      await nextLoopTurn();
    }
    assert.equal(openDescriptors(), this.#descriptorsBefore, 'Descriptors were left open');
  }
}
