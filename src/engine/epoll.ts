// The epoll engine: the same proactor where io_uring is refused. It performs an operation when the socket is ready and
// reports the completion; edge-triggered, each socket registered once. An operation that can be done at once is done when
// it is started, and its event is handed out by the next wait, so an exchange costs epoll_wait, recv and send.
//
// A receive that came back short has emptied the socket (epoll(7)), so no call is spent to hear EAGAIN, unless the peer has
// closed: then reading goes on to the end of the stream.

import { assert } from '../base/assert.ts';
import { monotonicMs } from '../sys/clock.ts';
import * as os from '../sys/epoll.ts';
import {
  EAGAIN,
  ECANCELED,
  ECONNREFUSED,
  EINPROGRESS,
  EINTR,
  ENOBUFS,
  errnoName,
} from '../sys/errno.ts';
import { type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import {
  closeDescriptor,
  type PeerAddress,
  readPeerAddress,
  setKeepalive,
  setNoDelay,
  setNonblocking,
  setResetOnClose,
  setUserTimeout,
  shutdownWrite,
} from '../sys/socket.ts';
import * as proactor from './proactor.ts';
import { type PumpHost, SplicePump } from './splice-pump.ts';

/** Readiness events taken per wait. */
const READY_MAX = 256;
/** Completions kept between two waits: every ready socket's operations, with a wide margin (asserted). */
const EVENTS_MAX = 16_384;
/** Connections accepted per listener and wait, so that relaying is not starved by a flood. */
const ACCEPTS_PER_WAIT = 64;
/** Buffers received per socket and wait, so that one flow does not starve the others. */
const RECEIVES_PER_WAIT = 4;

/** What the data word of a registration names: an endpoint, a listener, or the wake descriptor. */
const KIND_ENDPOINT = 0;
const KIND_LISTENER = 1;
const KIND_WAKE = 2;
const KIND_BITS = 2;

/** Bits of `#ready`. */
const READABLE = 1;
const WRITABLE = 2;
/** The peer closed or failed: read on until the end. */
const HANGUP = 4;

/** Bits of `#wants`: the operations in flight at an endpoint. */
const WANT_CONNECT = 1;
const WANT_RECEIVE = 2;
const WANT_SEND = 4;
/** A pump whose source this is waits to read, resp. for its target to be writable. */
const WANT_PUMP_READ = 8;
const WANT_PUMP_WRITE = 16;

export class EpollEngine implements proactor.Proactor, PumpHost {
  readonly name = 'epoll';
  readonly canPump = true;
  readonly alwaysNonblocking = true;
  readonly bufferBytes: number;
  readonly bufferCount: number;
  /** Handed out by the last wait; the other array fills meanwhile, and they change places. */
  events = new Int32Array(EVENTS_MAX * proactor.EVENT_WORDS);
  #filling = new Int32Array(EVENTS_MAX * proactor.EVENT_WORDS);
  #filled = 0;
  /** The last wait handed out completions without looking at the sockets. */
  #skippedPoll = false;

  /** The epoll descriptor, for whoever must close it after this thread died. */
  readonly descriptor: number;
  readonly #epoll: bigint;
  readonly #wakeFd: number;
  readonly #readyMap: Mapping;
  readonly #readyWords: Int32Array;
  readonly #pump: SplicePump;

  readonly #region: Mapping;
  readonly #bufferAddress: BigUint64Array;
  readonly #bufferBytesArgument: bigint;
  /** Free buffers, a stack: the ones used last are warm, the rest cost no memory. */
  readonly #free: Int32Array;
  #freeCount: number;

  // By endpoint.
  readonly #socket: Int32Array;
  readonly #generation: Int32Array;
  readonly #registered: Uint8Array;
  /** Distinguishes registrations of one endpoint: an event of a closed socket is not the new one's. */
  readonly #serial: Int32Array;
  readonly #ready: Uint8Array;
  readonly #wants: Uint8Array;
  readonly #sendBuffer: Int32Array;
  readonly #sendOffset: Int32Array;
  readonly #sendBytes: Int32Array;
  /** Endpoints to be served by the next wait without a new readiness event; a ring, each at most once. */
  readonly #queue: Int32Array;
  readonly #queued: Uint8Array;
  #queueHead = 0;
  #queueCount = 0;

  /** By listener tag: its socket while it accepts, else -1. */
  readonly #listeners: number[] = [];

  private constructor(epoll: number, options: proactor.EngineOptions) {
    const endpoints = options.slots * 2;
    this.descriptor = epoll;
    this.#epoll = BigInt(epoll);
    this.#wakeFd = options.wakeFd;
    this.bufferBytes = options.bufferBytes;
    this.bufferCount = options.bufferCount;
    this.#bufferBytesArgument = BigInt(options.bufferBytes);
    this.#readyMap = mapMemory(READY_MAX * os.EPOLL_EVENT_WORDS * 4, 'epoll events');
    this.#readyWords = new Int32Array(this.#readyMap.buffer);
    this.#region = mapMemory(options.bufferCount * options.bufferBytes, 'receive buffers');
    this.#bufferAddress = new BigUint64Array(options.bufferCount);
    this.#free = new Int32Array(options.bufferCount);
    this.#freeCount = options.bufferCount;
    for (let index = 0; index < options.bufferCount; index++) {
      this.#bufferAddress[index] = this.#region.address + BigInt(index * options.bufferBytes);
      this.#free[index] = options.bufferCount - 1 - index;
    }
    this.#socket = new Int32Array(endpoints);
    this.#generation = new Int32Array(endpoints);
    this.#registered = new Uint8Array(endpoints);
    this.#serial = new Int32Array(endpoints);
    this.#ready = new Uint8Array(endpoints);
    this.#wants = new Uint8Array(endpoints);
    this.#sendBuffer = new Int32Array(endpoints);
    this.#sendOffset = new Int32Array(endpoints);
    this.#sendBytes = new Int32Array(endpoints);
    this.#queue = new Int32Array(endpoints);
    this.#queued = new Uint8Array(endpoints);
    this.#pump = new SplicePump(this, endpoints);
    os.addWatch(this.#epoll, this.#wakeFd, os.EPOLLIN, 0, KIND_WAKE);
  }

  /** Opens the engine for the calling thread, or -errno. */
  static open(options: proactor.EngineOptions): EpollEngine | number {
    const epoll = os.openEpoll();
    return epoll < 0 ? epoll : new EpollEngine(epoll, options);
  }

  now(): number {
    return monotonicMs();
  }

  // ---- waiting ---------------------------------------------------------------------------------------------------

  wait(timeoutMs: number): number {
    this.#serveQueue();
    // Completions at hand go first; but every second time the sockets are looked at, so that none waits for ever.
    this.#skippedPoll = this.#filled > 0 && !this.#skippedPoll;
    if (!this.#skippedPoll) {
      const idle = this.#filled === 0 && this.#queueCount === 0;
      this.#poll(idle ? Math.ceil(timeoutMs) : 0);
    }
    const handedOut = this.#filling;
    const count = this.#filled;
    this.#filling = this.events;
    this.events = handedOut;
    this.#filled = 0;
    return count;
  }

  #poll(timeoutMs: number): void {
    const count = os.waitEpoll(this.#epoll, this.#readyMap.address, READY_MAX, timeoutMs);
    if (count < 0) {
      if (count !== -EINTR) throw new Error(`Cannot wait for epoll: ${errnoName(count)}`);
      return;
    }
    const words = this.#readyWords;
    for (let index = 0; index < count; index++) {
      const at = index * os.EPOLL_EVENT_WORDS;
      const low = words[at + os.EPOLL_DATA_WORD];
      const high = words[at + os.EPOLL_DATA_WORD + 1];
      const kind = high & ((1 << KIND_BITS) - 1);
      if (kind === KIND_ENDPOINT) {
        // A session handled earlier in this batch may have closed the socket, and another taken the endpoint.
        const current = this.#registered[low] === 1 && this.#serial[low] === high >>> KIND_BITS;
        if (current) this.#socketReady(low, words[at]);
      } else if (kind === KIND_LISTENER) {
        this.#acceptReady(low);
      } else {
        os.drainEventfd(this.#wakeFd);
      }
    }
  }

  #socketReady(endpoint: number, mask: number): void {
    const failed = (mask & (os.EPOLLERR | os.EPOLLHUP)) !== 0;
    let ready = this.#ready[endpoint];
    if ((mask & os.EPOLLIN) !== 0) ready |= READABLE;
    if ((mask & os.EPOLLOUT) !== 0) ready |= WRITABLE;
    if (failed || (mask & os.EPOLLRDHUP) !== 0) ready |= READABLE | HANGUP;
    if (failed) ready |= WRITABLE;
    this.#ready[endpoint] = ready;
    if ((this.#wants[endpoint] & WANT_CONNECT) !== 0) {
      this.#finishConnect(endpoint, failed);
      return;
    }
    this.#serve(endpoint);
    // A pump waits for its target under the name of its source.
    const source = endpoint ^ 1;
    if ((this.#wants[source] & WANT_PUMP_WRITE) !== 0) this.#serve(source);
  }

  /** Does what the endpoint wants and can have now. */
  #serve(endpoint: number): void {
    const wants = this.#wants[endpoint];
    const ready = this.#ready[endpoint];
    if ((wants & WANT_SEND) !== 0 && (ready & WRITABLE) !== 0) this.#trySend(endpoint);
    if ((wants & WANT_RECEIVE) !== 0 && (ready & READABLE) !== 0) this.#tryReceive(endpoint);
    const canPump =
      ((wants & WANT_PUMP_READ) !== 0 && (ready & READABLE) !== 0) ||
      ((wants & WANT_PUMP_WRITE) !== 0 && (this.#ready[endpoint ^ 1] & WRITABLE) !== 0);
    if (canPump) {
      this.#wants[endpoint] &= ~(WANT_PUMP_READ | WANT_PUMP_WRITE);
      this.#pump.ready(endpoint, this.#generation[endpoint], false);
    }
  }

  #enqueue(endpoint: number): void {
    if (this.#queued[endpoint] === 1) return;
    this.#queued[endpoint] = 1;
    this.#queue[(this.#queueHead + this.#queueCount) % this.#queue.length] = endpoint;
    this.#queueCount++;
  }

  /** One turn for each endpoint queued so far; those that want more queue again. */
  #serveQueue(): void {
    for (let turns = Math.min(this.#queueCount, READY_MAX); turns > 0; turns--) {
      const endpoint = this.#queue[this.#queueHead];
      this.#queueHead = (this.#queueHead + 1) % this.#queue.length;
      this.#queueCount--;
      this.#queued[endpoint] = 0;
      this.#serve(endpoint);
    }
  }

  emit(
    operation: number,
    endpoint: number,
    generation: number,
    result: number,
    buffer: number,
    more: number,
  ): void {
    assert(this.#filled < EVENTS_MAX, 'More epoll completions than expected');
    const at = this.#filled++ * proactor.EVENT_WORDS;
    const events = this.#filling;
    events[at + proactor.EVENT_OP] = operation;
    events[at + proactor.EVENT_ENDPOINT] = endpoint;
    events[at + proactor.EVENT_GENERATION] = generation;
    events[at + proactor.EVENT_RESULT] = result;
    events[at + proactor.EVENT_BUFFER] = buffer;
    events[at + proactor.EVENT_MORE] = more;
  }

  // ---- accept and connect ----------------------------------------------------------------------------------------

  accept(listener: number, tag: number): void {
    this.#listeners[tag] = listener;
    // The queue is emptied until EAGAIN, which a blocking listener would not say.
    setNonblocking(listener, true);
    const result = os.addWatch(this.#epoll, listener, os.EPOLLIN, tag, KIND_LISTENER);
    if (result < 0) this.#endAccept(tag, result);
  }

  cancelAccept(tag: number): void {
    if (this.#isAccepting(tag)) this.#endAccept(tag, -ECANCELED);
  }

  #isAccepting(tag: number): boolean {
    return (this.#listeners[tag] ?? -1) >= 0;
  }

  /** The listener is level-triggered, so it must not stay registered while nobody accepts. */
  #endAccept(tag: number, result: number): void {
    os.removeWatch(this.#epoll, this.#listeners[tag]);
    this.#listeners[tag] = -1;
    this.emit(proactor.OP_ACCEPT, tag, 0, result, proactor.NO_BUFFER, 0);
  }

  #acceptReady(tag: number): void {
    for (let count = 0; count < ACCEPTS_PER_WAIT && this.#isAccepting(tag); count++) {
      const socket = os.acceptNonblocking(this.#listeners[tag]);
      if (socket === -EAGAIN) return;
      if (socket < 0) this.#endAccept(tag, socket);
      else this.emit(proactor.OP_ACCEPT, tag, 0, socket, proactor.NO_BUFFER, 1);
    }
  }

  openSocket(family: number): number {
    return os.openNonblockingSocket(family);
  }

  connect(
    endpoint: number,
    generation: number,
    socket: number,
    family: number,
    words: Uint32Array,
    offset: number,
    port: number,
  ): void {
    this.#generation[endpoint] = generation;
    let result = os.connectSocket(socket, family, words, offset, port);
    if (result === -EINPROGRESS || result === 0) {
      const connected = result === 0;
      result = this.#register(endpoint, socket);
      if (result === 0 && !connected) {
        this.#wants[endpoint] = WANT_CONNECT;
        return;
      }
    }
    this.emit(proactor.OP_CONNECT, endpoint, generation, result, proactor.NO_BUFFER, 0);
  }

  #finishConnect(endpoint: number, failed: boolean): void {
    const error = failed ? os.socketError(this.#socket[endpoint]) : 0;
    if (!failed && (this.#ready[endpoint] & WRITABLE) === 0) return;
    this.#wants[endpoint] &= ~WANT_CONNECT;
    // A socket that connected and was reset before this look has no error left to read; it did not serve.
    const result = failed ? error || -ECONNREFUSED : 0;
    const generation = this.#generation[endpoint];
    this.emit(proactor.OP_CONNECT, endpoint, generation, result, proactor.NO_BUFFER, 0);
  }

  #register(endpoint: number, socket: number): number {
    const serial = (this.#serial[endpoint] + 1) & 0x3fff_ffff;
    this.#serial[endpoint] = serial;
    this.#socket[endpoint] = socket;
    this.#registered[endpoint] = 1;
    this.#ready[endpoint] = 0;
    this.#wants[endpoint] = 0;
    const mask = os.EPOLLIN | os.EPOLLOUT | os.EPOLLRDHUP | os.EPOLLET;
    const data = (serial << KIND_BITS) | KIND_ENDPOINT;
    return os.addWatch(this.#epoll, socket, mask, endpoint, data);
  }

  // ---- receive and send --------------------------------------------------------------------------------------------

  receive(endpoint: number, generation: number, socket: number): void {
    this.#generation[endpoint] = generation;
    if (this.#registered[endpoint] === 0) {
      const result = this.#register(endpoint, socket);
      if (result < 0) {
        this.emit(proactor.OP_RECEIVE, endpoint, generation, result, proactor.NO_BUFFER, 0);
        return;
      }
    }
    this.#wants[endpoint] |= WANT_RECEIVE;
    if ((this.#ready[endpoint] & READABLE) !== 0) this.#enqueue(endpoint);
  }

  #tryReceive(endpoint: number): void {
    const socket = this.#socket[endpoint];
    for (let count = 0; count < RECEIVES_PER_WAIT; count++) {
      if (this.#freeCount === 0) {
        this.#endReceive(endpoint, -ENOBUFS);
        return;
      }
      this.#freeCount--;
      const buffer = this.#free[this.#freeCount];
      const address = this.#bufferAddress[buffer];
      const result = os.receiveBytes(socket, address, this.#bufferBytesArgument);
      if (result <= 0) {
        this.#free[this.#freeCount++] = buffer;
        if (result === -EAGAIN) this.#ready[endpoint] &= ~READABLE;
        else if (result !== -EINTR) this.#endReceive(endpoint, result);
        return;
      }
      const generation = this.#generation[endpoint];
      this.emit(proactor.OP_RECEIVE, endpoint, generation, result, buffer, 1);
      if (result < this.bufferBytes && (this.#ready[endpoint] & HANGUP) === 0) {
        this.#ready[endpoint] &= ~READABLE;
        return;
      }
    }
    this.#enqueue(endpoint);
  }

  #endReceive(endpoint: number, result: number): void {
    this.#wants[endpoint] &= ~WANT_RECEIVE;
    const generation = this.#generation[endpoint];
    this.emit(proactor.OP_RECEIVE, endpoint, generation, result, proactor.NO_BUFFER, 0);
  }

  cancelReceive(endpoint: number, _generation: number): void {
    if ((this.#wants[endpoint] & WANT_RECEIVE) !== 0) this.#endReceive(endpoint, -ECANCELED);
  }

  send(
    endpoint: number,
    generation: number,
    _socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): void {
    this.#generation[endpoint] = generation;
    this.#sendBuffer[endpoint] = buffer;
    this.#sendOffset[endpoint] = offset;
    this.#sendBytes[endpoint] = bytes;
    this.#trySend(endpoint);
  }

  #trySend(endpoint: number): void {
    const base = this.#bufferAddress[this.#sendBuffer[endpoint]];
    const offset = this.#sendOffset[endpoint];
    const result =
      offset === 0
        ? os.sendBytes(this.#socket[endpoint], base, this.#sendBytes[endpoint])
        : os.sendBytes(this.#socket[endpoint], base + BigInt(offset), this.#sendBytes[endpoint]);
    if (result === -EAGAIN) {
      this.#ready[endpoint] &= ~WRITABLE;
      this.#wants[endpoint] |= WANT_SEND;
      return;
    }
    this.#wants[endpoint] &= ~WANT_SEND;
    const generation = this.#generation[endpoint];
    this.emit(proactor.OP_SEND, endpoint, generation, result, proactor.NO_BUFFER, 0);
  }

  // ---- cancel, pump ------------------------------------------------------------------------------------------------

  cancel(endpoint: number, generation: number, _socket: number): void {
    const wants = this.#wants[endpoint];
    this.#wants[endpoint] = 0;
    const none = proactor.NO_BUFFER;
    if ((wants & WANT_CONNECT) !== 0) {
      this.emit(proactor.OP_CONNECT, endpoint, generation, -ECANCELED, none, 0);
    }
    if ((wants & WANT_RECEIVE) !== 0) {
      this.emit(proactor.OP_RECEIVE, endpoint, generation, -ECANCELED, none, 0);
    }
    if ((wants & WANT_SEND) !== 0) {
      this.emit(proactor.OP_SEND, endpoint, generation, -ECANCELED, none, 0);
    }
    if ((wants & (WANT_PUMP_READ | WANT_PUMP_WRITE)) !== 0) {
      this.#pump.ready(endpoint, generation, true);
    }
  }

  pump(endpoint: number, generation: number, source: number, target: number): boolean {
    this.#generation[endpoint] = generation;
    return this.#pump.start(endpoint, generation, source, target);
  }

  stopPump(endpoint: number, generation: number): void {
    this.#pump.stop(endpoint, generation);
  }

  awaitReadable(endpoint: number, _generation: number, _socket: number, blocked: boolean): void {
    this.#wants[endpoint] |= WANT_PUMP_READ;
    if (blocked) this.#ready[endpoint] &= ~READABLE;
    else this.#enqueue(endpoint);
  }

  awaitWritable(endpoint: number, _generation: number, _socket: number, blocked: boolean): void {
    this.#wants[endpoint] |= WANT_PUMP_WRITE;
    if (blocked) this.#ready[endpoint ^ 1] &= ~WRITABLE;
    else this.#enqueue(endpoint);
  }

  cancelReadable(endpoint: number, generation: number): void {
    this.#wants[endpoint] &= ~WANT_PUMP_READ;
    this.#pump.ready(endpoint, generation, true);
  }

  // ---- buffers, sockets --------------------------------------------------------------------------------------------

  releaseBuffer(buffer: number): void {
    assert(this.#freeCount < this.bufferCount, 'A buffer was released twice');
    this.#free[this.#freeCount++] = buffer;
  }

  hasBuffer(): boolean {
    return this.#freeCount > 0;
  }

  buffersInUse(): number {
    return this.bufferCount - this.#freeCount;
  }

  readPeer(socket: number, peer: PeerAddress): number {
    return readPeerAddress(socket, peer);
  }

  setNoDelay(socket: number): void {
    setNoDelay(socket);
  }

  setLongLived(socket: number, keepaliveSecs: number, userTimeoutSecs: number): void {
    setKeepalive(socket, keepaliveSecs);
    setUserTimeout(socket, userTimeoutSecs);
  }

  shutdownWrite(socket: number): void {
    shutdownWrite(socket);
  }

  close(endpoint: number, socket: number): void {
    // Closing the last descriptor of a socket takes it out of the epoll set (epoll(7)).
    if (endpoint >= 0) {
      this.#registered[endpoint] = 0;
      this.#wants[endpoint] = 0;
    }
    closeDescriptor(socket);
  }

  reset(endpoint: number, socket: number): void {
    setResetOnClose(socket);
    this.close(endpoint, socket);
  }

  end(): void {
    this.#pump.end();
    closeDescriptor(this.descriptor);
    unmap(this.#region);
    unmap(this.#readyMap);
  }
}
