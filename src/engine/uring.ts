// The io_uring engine: submission entries are written (uring-entries.ts) and completions read as integers in typed arrays
// over the kernel's rings; one native call (io_uring_enter) submits a batch and waits for the next. Pumping: splice-pump.ts.
//
// user_data carries the identity: low word the endpoint, high word operation | generation << 8. With DEFER_TASKRUN the
// kernel touches the rings only inside io_uring_enter of this thread, so plain loads and stores of head and tail suffice.

import { assert } from '../base/assert.ts';
import { readMonotonic } from '../sys/clock.ts';
import { EAGAIN, ECANCELED, ENOBUFS } from '../sys/errno.ts';
import {
  acceptConnection,
  closeDescriptor,
  openSocket,
  readLocalAddress,
  readPeerAddress,
  setLongLived,
  setNoDelay,
  setResetOnClose,
  shutdownWrite,
  socketError,
} from '../sys/socket.ts';
import { closeRing, openRing, type Ring } from '../sys/uring.ts';
import * as abi from '../sys/uring-abi.ts';
import {
  type EngineOptions,
  EVENT_BUFFER,
  EVENT_ENDPOINT,
  EVENT_GENERATION,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  NO_BUFFER,
  OP_ACCEPT,
  OP_CONNECT,
  OP_RECEIVE,
  OP_SEND,
  type Proactor,
} from './proactor.ts';
import { type PumpHost, SplicePump } from './splice-pump.ts';
import {
  closeBuffers,
  growWorkingSet,
  openBuffers,
  returnBuffer,
  takeBuffer,
  type UringBuffers,
} from './uring-buffers.ts';
import { OP_IGNORED, UringEntries } from './uring-entries.ts';
import { WriteBuffers } from './write-buffers.ts';

/** Operations that only this engine knows, besides OP_IGNORED; OP_… of the interface are below them. */
const OP_WAKE = 17;
const OP_TIMER = 18;
const OP_RECEIVE_POLL = 19;
const OP_SEND_POLL = 20;
const OP_PUMP_READABLE = 21;
const OP_PUMP_WRITABLE = 22;

/** 1024 entries keep the ring at 130 KiB, so that unprivileged users' RLIMIT_MEMLOCK of 8 MiB is enough. */
const SQ_ENTRIES = 1024;
/** Events handed out per batch; more completions wait in the ring for the next. */
const EVENTS_MAX = 1024;
const BUFFER_GROUP = 0;

export class UringEngine implements Proactor, PumpHost {
  readonly name = 'uring';
  readonly canPump = true;
  readonly alwaysNonblocking = false;
  readonly events = new Int32Array(EVENTS_MAX * 2 * EVENT_WORDS);
  readonly bufferBytes: number;
  readonly bufferCount: number;
  /** The ring's descriptor, for whoever must close it after this thread died. */
  readonly descriptor: number;

  readonly #ring: Ring;
  readonly #words: Int32Array;
  readonly #entries: UringEntries;
  readonly readLocal = readLocalAddress;
  readonly #buffers: UringBuffers;
  readonly #writes: WriteBuffers;
  readonly #pump: SplicePump;
  readonly #wakeFd: number;
  #eventCount = 0;
  /** The shortest wait that a timer in flight will end, 0 = none. */
  #timerMs = 0;

  /** By endpoint, for operations that are restarted after -EAGAIN (sockets in pump mode are non-blocking). */
  readonly #socket: Int32Array;
  readonly #sendBuffer: Int32Array;
  readonly #sendOffset: Int32Array;
  readonly #sendBytes: Int32Array;
  readonly #receivePolling: Uint8Array;
  /** Generation whose operations were all cancelled: nothing is restarted for it. */
  readonly #cancelled: Int32Array;

  private constructor(ring: Ring, buffers: UringBuffers, options: EngineOptions) {
    this.#ring = ring;
    this.descriptor = ring.fd;
    this.#words = ring.words;
    this.#entries = new UringEntries(ring);
    this.#buffers = buffers;
    this.bufferBytes = buffers.bufferBytes;
    this.bufferCount = buffers.count;
    this.#writes = new WriteBuffers(buffers.count);
    this.#wakeFd = options.wakeFd;
    const endpoints = options.slots * 2;
    this.#socket = new Int32Array(endpoints);
    this.#sendBuffer = new Int32Array(endpoints);
    this.#sendOffset = new Int32Array(endpoints);
    this.#sendBytes = new Int32Array(endpoints);
    this.#receivePolling = new Uint8Array(endpoints);
    this.#cancelled = new Int32Array(endpoints);
    this.#pump = new SplicePump(this, endpoints);
    this.#entries.readWake(this.#wakeFd, OP_WAKE);
  }

  /** Opens the engine for the calling thread; -errno when the kernel refuses (explain it by sys/uring.ts). */
  static open(options: EngineOptions): UringEngine | number {
    const ring = openRing(SQ_ENTRIES);
    if (typeof ring === 'number') return ring;
    const buffers = openBuffers(ring, options.bufferBytes, options.bufferCount, BUFFER_GROUP);
    if (typeof buffers === 'number') {
      closeRing(ring);
      return buffers;
    }
    return new UringEngine(ring, buffers, options);
  }

  readonly readClock = readMonotonic;

  get memory(): Uint8Array {
    return this.#buffers.region.view;
  }

  // ---- submission ------------------------------------------------------------------------------------------------

  accept(listener: number, tag: number, shared: boolean): void {
    // The kernel wakes the first who waits at a socket. Multishot keeps its place and would get every connection; who starts
    // again goes to the end.
    this.#entries.accept(listener, tag, OP_ACCEPT, !shared);
  }

  cancelAccept(tag: number): void {
    this.#entries.cancel(tag, OP_ACCEPT);
  }

  acceptWaiting(listener: number, _tag: number): number {
    return acceptConnection(listener);
  }

  openSocket(family: number): number {
    return openSocket(family);
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
    this.#socket[endpoint] = socket;
    const identity = OP_CONNECT | (generation << 8);
    this.#entries.connect(socket, endpoint, identity, family, words, offset, port);
  }

  receive(endpoint: number, generation: number, socket: number): void {
    this.#socket[endpoint] = socket;
    this.#receivePolling[endpoint] = 0;
    const flags = this.#buffers.isScarce ? 0 : abi.IORING_RECV_MULTISHOT;
    this.#entries.receive(socket, endpoint, OP_RECEIVE | (generation << 8), BUFFER_GROUP, flags);
  }

  cancelReceive(endpoint: number, generation: number): void {
    const operation = this.#receivePolling[endpoint] === 1 ? OP_RECEIVE_POLL : OP_RECEIVE;
    // Also for a receive that says -EAGAIN before the cancel is looked at: it is not to be restarted.
    this.#receivePolling[endpoint] = 2;
    this.#entries.cancel(endpoint, operation | (generation << 8));
  }

  send(
    endpoint: number,
    generation: number,
    socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean {
    this.#socket[endpoint] = socket;
    this.#sendBuffer[endpoint] = buffer;
    this.#sendOffset[endpoint] = offset;
    this.#sendBytes[endpoint] = bytes;
    const low = this.#buffers.addressLow[buffer];
    const high = this.#buffers.addressHigh[buffer];
    const identity = OP_SEND | (generation << 8);
    this.#entries.send(socket, endpoint, identity, low, high, offset, bytes);
    return false;
  }

  cancel(endpoint: number, generation: number, socket: number): void {
    this.#cancelled[endpoint] = generation;
    this.#entries.cancelSocket(socket);
    // A blocked pump waits at its target's socket.
    if (this.#pump.isBlocked(endpoint)) {
      this.#entries.cancel(endpoint, OP_PUMP_WRITABLE | (generation << 8));
    }
  }

  awaitReadable(endpoint: number, generation: number, socket: number): void {
    const identity = OP_PUMP_READABLE | (generation << 8);
    this.#entries.poll(socket, endpoint, identity, abi.POLLIN | abi.POLLRDHUP);
  }

  awaitWritable(endpoint: number, generation: number, socket: number): void {
    this.#entries.poll(socket, endpoint, OP_PUMP_WRITABLE | (generation << 8), abi.POLLOUT);
  }

  cancelReadable(endpoint: number, generation: number): void {
    this.#entries.cancel(endpoint, OP_PUMP_READABLE | (generation << 8));
  }

  // ---- completion ------------------------------------------------------------------------------------------------

  wait(mostMs: number): number {
    const timeoutMs = this.#buffers.idle.review(mostMs);
    const isTimed = this.#timerMs > 0 && this.#timerMs <= timeoutMs;
    if (timeoutMs > 0 && !isTimed) {
      this.#timerMs = timeoutMs;
      this.#entries.timer(timeoutMs, OP_TIMER);
    }
    this.#entries.submit(timeoutMs === 0 ? 0 : 1);
    this.#eventCount = 0;
    const words = this.#words;
    const { cqHead, cqTail, cqMask, cqes } = this.#ring;
    let head = words[cqHead];
    const available = (words[cqTail] - head) | 0;
    // Each completion makes two events at most (the end of a pump), so these fit.
    const end = (head + Math.min(available, EVENTS_MAX)) | 0;
    while (head !== end) {
      const at = cqes + (head & cqMask) * abi.CQE_WORDS;
      head = (head + 1) | 0;
      this.#complete(
        words[at + abi.CQE_USER_DATA_LOW],
        words[at + abi.CQE_USER_DATA_HIGH],
        words[at + abi.CQE_RES],
        words[at + abi.CQE_FLAGS],
      );
    }
    // Released only now: the entries were read, the kernel may overwrite them.
    words[cqHead] = head;
    return this.#eventCount;
  }

  #complete(endpoint: number, identity: number, result: number, flags: number): void {
    const operation = identity & 0xff;
    const generation = identity >>> 8;
    const more = (flags & abi.IORING_CQE_F_MORE) >>> 1;
    switch (operation) {
      case OP_RECEIVE:
        this.#completeReceive(endpoint, generation, result, flags, more);
        return;
      case OP_SEND:
        if (result === -EAGAIN && this.#cancelled[endpoint] !== generation) {
          const identity = OP_SEND_POLL | (generation << 8);
          this.#entries.poll(this.#socket[endpoint], endpoint, identity, abi.POLLOUT);
        } else {
          const reported = result === -EAGAIN ? -ECANCELED : result;
          this.emit(OP_SEND, endpoint, generation, reported, NO_BUFFER, 0);
        }
        return;
      case OP_ACCEPT:
        this.emit(OP_ACCEPT, endpoint, generation, result, NO_BUFFER, more);
        return;
      case OP_CONNECT:
        this.#completeConnect(endpoint, generation, result);
        return;
      default:
        this.#completeInternal(operation, endpoint, generation, result);
    }
  }

  /**
   * io_uring reports 0 too for a connect that an ICMP error found while the kernel was sending its SYN (Linux 6.18: a
   * firewall on this machine that rejects): the socket knows better.
   */
  #completeConnect(endpoint: number, generation: number, result: number): void {
    const reported = result === 0 ? socketError(this.#socket[endpoint]) : result;
    this.emit(OP_CONNECT, endpoint, generation, reported, NO_BUFFER, 0);
  }

  #completeReceive(
    endpoint: number,
    generation: number,
    result: number,
    flags: number,
    more: number,
  ): void {
    let buffer = NO_BUFFER;
    if ((flags & abi.IORING_CQE_F_BUFFER) !== 0) {
      buffer = flags >>> abi.IORING_CQE_BUFFER_SHIFT;
      takeBuffer(this.#buffers);
      if (result <= 0) {
        returnBuffer(this.#buffers, buffer);
        buffer = NO_BUFFER;
      }
    }
    const isRestartable =
      this.#cancelled[endpoint] !== generation && this.#receivePolling[endpoint] !== 2;
    if (result === -EAGAIN && isRestartable) {
      this.#receivePolling[endpoint] = 1;
      const identity = OP_RECEIVE_POLL | (generation << 8);
      const mask = abi.POLLIN | abi.POLLRDHUP;
      this.#entries.poll(this.#socket[endpoint], endpoint, identity, mask);
      return;
    }
    if (result === -ENOBUFS) growWorkingSet(this.#buffers);
    const reported = result === -EAGAIN ? -ECANCELED : result;
    this.emit(OP_RECEIVE, endpoint, generation, reported, buffer, more);
  }

  #completeInternal(operation: number, endpoint: number, generation: number, result: number): void {
    const cancelled = this.#cancelled[endpoint] === generation;
    switch (operation) {
      case OP_IGNORED:
        return;
      case OP_WAKE:
        this.#entries.readWake(this.#wakeFd, OP_WAKE);
        return;
      case OP_TIMER:
        this.#timerMs = 0;
        return;
      case OP_RECEIVE_POLL:
        if (cancelled || this.#receivePolling[endpoint] === 2 || result === -ECANCELED) {
          this.#receivePolling[endpoint] = 0;
          this.emit(OP_RECEIVE, endpoint, generation, -ECANCELED, NO_BUFFER, 0);
        } else {
          this.receive(endpoint, generation, this.#socket[endpoint]);
        }
        return;
      case OP_SEND_POLL:
        if (cancelled || result === -ECANCELED) {
          this.emit(OP_SEND, endpoint, generation, -ECANCELED, NO_BUFFER, 0);
        } else {
          this.send(
            endpoint,
            generation,
            this.#socket[endpoint],
            this.#sendBuffer[endpoint],
            this.#sendOffset[endpoint],
            this.#sendBytes[endpoint],
          );
        }
        return;
      case OP_PUMP_READABLE:
      case OP_PUMP_WRITABLE:
        this.#pump.ready(endpoint, generation, cancelled || result === -ECANCELED);
        return;
      default:
        assert(false, 'An unknown io_uring completion arrived');
    }
  }

  /** Appends one event; called while completions are read. */
  emit(
    operation: number,
    endpoint: number,
    generation: number,
    result: number,
    buffer: number,
    more: number,
  ): void {
    const at = this.#eventCount++ * EVENT_WORDS;
    const events = this.events;
    events[at + EVENT_OP] = operation;
    events[at + EVENT_ENDPOINT] = endpoint;
    events[at + EVENT_GENERATION] = generation;
    events[at + EVENT_RESULT] = result;
    events[at + EVENT_BUFFER] = buffer;
    events[at + EVENT_MORE] = more;
  }

  // ---- pump, buffers, sockets --------------------------------------------------------------------------------------

  pump(endpoint: number, generation: number, source: number, target: number): boolean {
    return this.#pump.start(endpoint, generation, source, target);
  }

  stopPump(endpoint: number, generation: number): void {
    this.#pump.stop(endpoint, generation);
  }

  takeBuffer(): number {
    return this.#writes.take();
  }

  releaseBuffer(buffer: number): void {
    if (!this.#writes.give(buffer)) returnBuffer(this.#buffers, buffer);
  }

  hasBuffer(): boolean {
    return this.#buffers.ready > 0;
  }

  isScarce(): boolean {
    return this.#buffers.isScarce;
  }

  buffersInUse(): number {
    return this.#buffers.inUse + this.#writes.inUse;
  }

  readonly readPeer = readPeerAddress;
  readonly setNoDelay = setNoDelay;
  readonly setLongLived = setLongLived;
  /** Fails with ENOTCONN when the peer has reset: the next receive or send reports it. */
  readonly shutdownWrite = shutdownWrite;

  close(_endpoint: number, socket: number): void {
    this.#entries.close(socket);
  }

  reset(endpoint: number, socket: number): void {
    setResetOnClose(socket);
    this.close(endpoint, socket);
  }

  /** close(2) has sent FIN or RST when it returns; a queued close has not even when the entries behind it run. */
  closeNow(_endpoint: number, socket: number, how: number): void {
    if (how === 1) setResetOnClose(socket);
    closeDescriptor(socket);
  }

  end(): void {
    this.#pump.end();
    // The last closes are still queued; and a socket accepted meanwhile has no other owner than its completion.
    try {
      this.#entries.submit(0);
    } catch {
      // The ring may be what failed: then it closes nothing, and the supervisor resets the sockets.
    }
    const { cqHead, cqTail, cqMask, cqes } = this.#ring;
    const words = this.#words;
    for (let head = words[cqHead]; head !== words[cqTail]; head = (head + 1) | 0) {
      const at = cqes + (head & cqMask) * abi.CQE_WORDS;
      const accepted = (words[at + abi.CQE_USER_DATA_HIGH] & 0xff) === OP_ACCEPT;
      if (accepted && words[at + abi.CQE_RES] >= 0) closeDescriptor(words[at + abi.CQE_RES]);
    }
    closeRing(this.#ring);
    closeBuffers(this.#buffers);
    this.#entries.end();
  }
}
