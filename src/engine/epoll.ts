// The epoll engine: the same proactor where io_uring is refused. It performs an operation when the socket is ready and
// reports the completion; edge-triggered, each socket registered once. An operation that can be done at once is done when
// it is started, and its event is handed out by the next wait, so an exchange costs epoll_wait, recv and send.
//
// A receive that came back short has emptied the socket (epoll(7)), so no call is spent to hear EAGAIN; nor to hear the end
// of the stream where the event before had told of the peer's FIN. The exceptions are errors and urgent bytes, before which
// a receive stops short though more waits: then reading goes on.

import { readMonotonic } from '../sys/clock.ts';
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
  readLocalAddress,
  readPeerAddress,
  setLongLived,
  setNoDelay,
  setResetOnClose,
  shutdownWrite,
  socketError,
} from '../sys/socket.ts';
import { EndpointQueue } from './endpoint-queue.ts';
import {
  closeBuffers,
  type EpollBuffers,
  openBuffers,
  returnBuffer,
  takeBuffer,
} from './epoll-buffers.ts';
import { EpollListeners } from './epoll-listeners.ts';
import { EventList } from './event-list.ts';
import * as proactor from './proactor.ts';
import { type PumpHost, SplicePump } from './splice-pump.ts';

/** Readiness events taken per wait. */
const READY_MAX = 256;
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
/** The peer's FIN is there: what waits now is the end of the stream. */
const ENDED = 4;
/** An error or an urgent byte (EPOLLPRI) is there: a short receive tells nothing. */
const UNSURE = 8;

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
  events = new Int32Array(0);
  readonly #made = new EventList();
  /** The last wait handed out completions without looking at the sockets. */
  #skippedPoll = false;

  /** The epoll descriptor, for whoever must close it after this thread died. */
  readonly descriptor: number;
  readonly #epoll: bigint;
  readonly #wakeFd: number;
  readonly #readyMap: Mapping;
  readonly #readyWords: Int32Array;
  readonly #pump: SplicePump;

  readonly readLocal = readLocalAddress;
  readonly #buffers: EpollBuffers;
  readonly #listeners: EpollListeners;

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
  readonly #queue: EndpointQueue;

  private constructor(epoll: number, options: proactor.EngineOptions) {
    const endpoints = options.slots * 2;
    this.descriptor = epoll;
    this.#epoll = BigInt(epoll);
    this.#wakeFd = options.wakeFd;
    this.bufferBytes = options.bufferBytes;
    this.bufferCount = options.bufferCount;
    this.#readyMap = mapMemory(READY_MAX * os.EPOLL_EVENT_WORDS * 4, 'epoll events');
    this.#readyWords = new Int32Array(this.#readyMap.buffer);
    this.#buffers = openBuffers(options.bufferCount, options.bufferBytes);
    this.#listeners = new EpollListeners(this.#epoll, this, KIND_LISTENER);
    this.#socket = new Int32Array(endpoints);
    this.#generation = new Int32Array(endpoints);
    this.#registered = new Uint8Array(endpoints);
    this.#serial = new Int32Array(endpoints);
    this.#ready = new Uint8Array(endpoints);
    this.#wants = new Uint8Array(endpoints);
    this.#sendBuffer = new Int32Array(endpoints);
    this.#sendOffset = new Int32Array(endpoints);
    this.#sendBytes = new Int32Array(endpoints);
    this.#queue = new EndpointQueue(endpoints);
    this.#pump = new SplicePump(this, endpoints);
    os.addWatch(this.#epoll, this.#wakeFd, os.EPOLLIN, 0, KIND_WAKE);
  }

  /** Opens the engine for the calling thread, or -errno. */
  static open(options: proactor.EngineOptions): EpollEngine | number {
    const epoll = os.openEpoll();
    return epoll < 0 ? epoll : new EpollEngine(epoll, options);
  }

  readonly readClock = readMonotonic;

  get memory(): Uint8Array {
    return this.#buffers.region.view;
  }

  // ---- waiting ---------------------------------------------------------------------------------------------------

  wait(timeoutMs: number): number {
    this.#serveQueue();
    // Completions at hand go first; but every second time the sockets are looked at, so that none waits for ever.
    this.#skippedPoll = this.#made.count > 0 && !this.#skippedPoll;
    if (!this.#skippedPoll) {
      const patienceMs = this.#buffers.free.review(timeoutMs);
      const idle = this.#made.count === 0 && this.#queue.count === 0;
      this.#poll(idle ? Math.ceil(patienceMs) : 0);
    }
    const { count } = this.#made;
    this.events = this.#made.take();
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
        this.#listeners.ready(low);
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
    if ((mask & os.EPOLLRDHUP) !== 0) ready |= READABLE | ENDED;
    if ((mask & (os.EPOLLERR | os.EPOLLPRI)) !== 0) ready |= READABLE | UNSURE;
    if (failed) ready |= READABLE | WRITABLE;
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

  /** One turn for each endpoint queued so far; those that want more queue again. */
  #serveQueue(): void {
    for (let turns = Math.min(this.#queue.count, READY_MAX); turns > 0; turns--) {
      this.#serve(this.#queue.take());
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
    this.#made.add(operation, endpoint, generation, result, buffer, more);
  }

  /** The last event of the endpoint's `operation`. */
  #finish(operation: number, endpoint: number, result: number): void {
    this.emit(operation, endpoint, this.#generation[endpoint], result, proactor.NO_BUFFER, 0);
  }

  // ---- accept and connect ----------------------------------------------------------------------------------------

  accept(listener: number, tag: number, shared: boolean): void {
    this.#listeners.accept(listener, tag, shared);
  }

  cancelAccept(tag: number): void {
    this.#listeners.cancel(tag);
  }

  acceptWaiting(listener: number, _tag: number): number {
    return os.acceptNonblocking(listener);
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
    this.#finish(proactor.OP_CONNECT, endpoint, result);
  }

  #finishConnect(endpoint: number, failed: boolean): void {
    const error = failed ? socketError(this.#socket[endpoint]) : 0;
    if (!failed && (this.#ready[endpoint] & WRITABLE) === 0) return;
    this.#wants[endpoint] &= ~WANT_CONNECT;
    // A socket that connected and was reset before this look has no error left to read; it did not serve.
    const result = failed ? error || -ECONNREFUSED : 0;
    this.#finish(proactor.OP_CONNECT, endpoint, result);
  }

  /** An accepted socket is registered when its first operation starts. */
  #watch(endpoint: number, socket: number): number {
    return this.#registered[endpoint] === 1 ? 0 : this.#register(endpoint, socket);
  }

  #register(endpoint: number, socket: number): number {
    const serial = (this.#serial[endpoint] + 1) & 0x3fff_ffff;
    this.#serial[endpoint] = serial;
    this.#socket[endpoint] = socket;
    this.#registered[endpoint] = 1;
    this.#ready[endpoint] = 0;
    this.#wants[endpoint] = 0;
    const mask = os.EPOLLIN | os.EPOLLPRI | os.EPOLLOUT | os.EPOLLRDHUP | os.EPOLLET;
    const data = (serial << KIND_BITS) | KIND_ENDPOINT;
    return os.addWatch(this.#epoll, socket, mask, endpoint, data);
  }

  // ---- receive and send --------------------------------------------------------------------------------------------

  receive(endpoint: number, generation: number, socket: number): void {
    this.#generation[endpoint] = generation;
    const result = this.#watch(endpoint, socket);
    if (result < 0) {
      this.#finish(proactor.OP_RECEIVE, endpoint, result);
      return;
    }
    this.#wants[endpoint] |= WANT_RECEIVE;
    if ((this.#ready[endpoint] & READABLE) !== 0) this.#queue.add(endpoint);
  }

  #tryReceive(endpoint: number): void {
    const socket = this.#socket[endpoint];
    const buffers = this.#buffers;
    for (let count = 0; count < RECEIVES_PER_WAIT; count++) {
      if (buffers.free.count === 0) {
        this.#endReceive(endpoint, -ENOBUFS);
        return;
      }
      const buffer = takeBuffer(buffers);
      const result = os.receiveBytes(socket, buffers.address[buffer], buffers.bytesArgument);
      if (result <= 0) {
        returnBuffer(buffers, buffer);
        if (result === -EAGAIN) this.#ready[endpoint] &= ~(READABLE | UNSURE);
        else if (result !== -EINTR) this.#endReceive(endpoint, result);
        return;
      }
      const generation = this.#generation[endpoint];
      const isLast = buffers.isScarce;
      if (isLast) this.#wants[endpoint] &= ~WANT_RECEIVE;
      this.emit(proactor.OP_RECEIVE, endpoint, generation, result, buffer, isLast ? 0 : 1);
      if (result < this.bufferBytes && (this.#ready[endpoint] & UNSURE) === 0) {
        // After the last one the end is for the next receive to find.
        if ((this.#ready[endpoint] & ENDED) === 0) this.#ready[endpoint] &= ~READABLE;
        else if (!isLast) this.#endReceive(endpoint, 0);
        return;
      }
      if (isLast) return;
    }
    this.#queue.add(endpoint);
  }

  #endReceive(endpoint: number, result: number): void {
    this.#wants[endpoint] &= ~WANT_RECEIVE;
    this.#finish(proactor.OP_RECEIVE, endpoint, result);
  }

  cancelReceive(endpoint: number, _generation: number): void {
    if ((this.#wants[endpoint] & WANT_RECEIVE) !== 0) this.#endReceive(endpoint, -ECANCELED);
  }

  send(
    endpoint: number,
    generation: number,
    socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean {
    this.#generation[endpoint] = generation;
    const watched = this.#watch(endpoint, socket);
    const result = watched < 0 ? watched : this.#sendNow(socket, buffer, offset, bytes);
    if (result === bytes) return true;
    this.#sendBuffer[endpoint] = buffer;
    this.#sendOffset[endpoint] = offset;
    this.#sendBytes[endpoint] = bytes;
    this.#reportSend(endpoint, result);
    return false;
  }

  #sendNow(socket: number, buffer: number, offset: number, bytes: number): number {
    const base = this.#buffers.address[buffer];
    // Two calls: a choice between two BigInts would be a BigInt on the heap.
    if (offset === 0) return os.sendBytes(socket, base, bytes);
    return os.sendBytes(socket, base + BigInt(offset), bytes);
  }

  #trySend(endpoint: number): void {
    const socket = this.#socket[endpoint];
    const buffer = this.#sendBuffer[endpoint];
    const offset = this.#sendOffset[endpoint];
    this.#reportSend(endpoint, this.#sendNow(socket, buffer, offset, this.#sendBytes[endpoint]));
  }

  #reportSend(endpoint: number, result: number): void {
    if (result === -EAGAIN) {
      this.#ready[endpoint] &= ~WRITABLE;
      this.#wants[endpoint] |= WANT_SEND;
      return;
    }
    this.#wants[endpoint] &= ~WANT_SEND;
    this.#finish(proactor.OP_SEND, endpoint, result);
  }

  // ---- cancel, pump ------------------------------------------------------------------------------------------------

  cancel(endpoint: number, generation: number, _socket: number): void {
    const wants = this.#wants[endpoint];
    this.#wants[endpoint] = 0;
    if ((wants & WANT_CONNECT) !== 0) this.#finish(proactor.OP_CONNECT, endpoint, -ECANCELED);
    if ((wants & WANT_RECEIVE) !== 0) this.#finish(proactor.OP_RECEIVE, endpoint, -ECANCELED);
    if ((wants & WANT_SEND) !== 0) this.#finish(proactor.OP_SEND, endpoint, -ECANCELED);
    if ((wants & (WANT_PUMP_READ | WANT_PUMP_WRITE)) !== 0) {
      this.#pump.ready(endpoint, generation, true);
    }
  }

  pump(endpoint: number, generation: number, source: number, target: number): boolean {
    this.#generation[endpoint] = generation;
    // The target is the other socket of the session.
    if (this.#watch(endpoint, source) < 0 || this.#watch(endpoint ^ 1, target) < 0) return false;
    return this.#pump.start(endpoint, generation, source, target);
  }

  stopPump(endpoint: number, generation: number): void {
    this.#pump.stop(endpoint, generation);
  }

  awaitReadable(endpoint: number, _generation: number, _socket: number, blocked: boolean): void {
    this.#wants[endpoint] |= WANT_PUMP_READ;
    if (blocked) this.#ready[endpoint] &= ~READABLE;
    else this.#queue.add(endpoint);
  }

  awaitWritable(endpoint: number, _generation: number, _socket: number, blocked: boolean): void {
    this.#wants[endpoint] |= WANT_PUMP_WRITE;
    if (blocked) this.#ready[endpoint ^ 1] &= ~WRITABLE;
    else this.#queue.add(endpoint);
  }

  cancelReadable(endpoint: number, generation: number): void {
    this.#wants[endpoint] &= ~WANT_PUMP_READ;
    this.#pump.ready(endpoint, generation, true);
  }

  // ---- buffers, sockets --------------------------------------------------------------------------------------------

  takeBuffer(): number {
    return this.#buffers.writes.take();
  }

  releaseBuffer(buffer: number): void {
    returnBuffer(this.#buffers, buffer);
  }

  hasBuffer(): boolean {
    return this.#buffers.free.count > 0;
  }

  isScarce(): boolean {
    return this.#buffers.isScarce;
  }

  buffersInUse(): number {
    return this.bufferCount - this.#buffers.free.count + this.#buffers.writes.inUse;
  }

  readonly readPeer = readPeerAddress;
  readonly setNoDelay = setNoDelay;
  readonly setLongLived = setLongLived;
  readonly shutdownWrite = shutdownWrite;

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

  closeNow(endpoint: number, socket: number, how: number): void {
    if (how === 1) this.reset(endpoint, socket);
    else this.close(endpoint, socket);
  }

  end(): void {
    this.#pump.end();
    closeDescriptor(this.descriptor);
    closeBuffers(this.#buffers);
    unmap(this.#readyMap);
  }
}
