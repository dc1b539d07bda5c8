// The simulated engine: the proactor over a simulated network, for the unchanged data plane. It performs operations as
// io_uring does and reports their completions late and shuffled, in an order that is legal: of one operation in sequence,
// of different ones in any. Time stands still inside `wait`; whoever runs the world calls it when a completion is due.
//
// It also watches its caller: what the interface forbids (two sends in flight, a close with something in flight, a buffer
// released twice, …) and what the relay must keep (bytes in order, no FIN before its time) fails the run at once.

import * as proactor from '../engine/proactor.ts';
import { EAGAIN, ECANCELED, EMFILE, ENFILE, ENOBUFS, ENOTCONN } from '../sys/errno.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { SimAccepts } from './sim-accepts.ts';
import { SimBuffers } from './sim-buffers.ts';
import { SimCloses } from './sim-closes.ts';
import type { SimEngineHost, SimEngineOptions } from './sim-engine-host.ts';
import { OWNER_PROXY, type SimNetwork } from './sim-network.ts';
import { CONNECT, OPERATIONS, PUMP, RECEIVE, SEND, SimOperations } from './sim-operations.ts';
import { SimPump } from './sim-pump.ts';
import type { SimRandom } from './sim-random.ts';
import { SimSends } from './sim-sends.ts';
import { SimSockets } from './sim-sockets.ts';
import { checkFin } from './sim-streams.ts';
import { fail, type SimTrace, traceKind } from './sim-trace.ts';

const EVENTS_MAX = 512;
const RECEIVES_PER_TURN = 4;

const TRACE = {
  connect: traceKind('connect'),
  receive: traceKind('receive'),
  send: traceKind('send'),
  pump: traceKind('pump'),
  cancelReceive: traceKind('cancel-receive'),
  stopPump: traceKind('stop-pump'),
  cancel: traceKind('cancel'),
  shutdown: traceKind('shutdown'),
  close: traceKind('close'),
  reset: traceKind('reset'),
  openSocket: traceKind('open-socket'),
};

export class SimulatedEngine implements proactor.Proactor {
  readonly name = 'simulated';
  readonly events = new Int32Array(EVENTS_MAX * proactor.EVENT_WORDS);
  readonly bufferBytes: number;
  readonly bufferCount: number;
  readonly canPump: boolean;
  /** Pumps started, and below the bytes moved: for comparison with the proxy's own statistics. */
  pumps = 0;
  #bytesReceived = 0;

  readonly accepts: SimAccepts;
  readonly operations: SimOperations;
  readonly sockets: SimSockets;
  readonly buffers: SimBuffers;
  readonly closes: SimCloses;
  readonly options: SimEngineOptions;
  readonly #network: SimNetwork;
  readonly #random: SimRandom;
  readonly #trace: SimTrace;
  readonly #host: SimEngineHost;
  readonly #worker: number;
  readonly #pump: SimPump;
  readonly #send: SimSends;
  /** Bytes of the buffers; only where PROXY headers are looked for is anything stored. */
  readonly memory: Uint8Array;

  // By endpoint.
  readonly #socketGeneration: Int32Array;
  /** When the worker was last told that no buffer is free. */
  emptyAt = -1;

  constructor(
    network: SimNetwork,
    random: SimRandom,
    trace: SimTrace,
    host: SimEngineHost,
    options: SimEngineOptions,
  ) {
    const endpoints = options.slots * 2;
    this.options = options;
    this.bufferBytes = options.bufferBytes;
    this.bufferCount = options.bufferCount;
    this.canPump = options.canPump;
    this.sockets = new SimSockets(network, endpoints, options.descriptorsMax, options.worker);
    this.buffers = new SimBuffers(options);
    this.memory = host.headers.openMemory(options);
    this.#network = network;
    this.#random = random;
    this.#trace = trace;
    this.#host = host;
    this.#worker = options.worker;
    this.closes = new SimCloses(network, host.connections);
    this.operations = new SimOperations(network, random, trace, options);
    this.#pump = new SimPump(network, random, this.sockets, this.operations, options);
    this.#send = new SimSends(
      network,
      random,
      host,
      this.sockets,
      this.buffers,
      this.operations,
      options,
    );
    this.#socketGeneration = new Int32Array(endpoints);
    this.accepts = new SimAccepts(random, trace, host, this.sockets, this.operations, options);
  }

  readClock(target: Float64Array): void {
    target[0] = this.#network.clock[0];
  }

  get bytesReceived(): number {
    return this.#bytesReceived + this.#pump.bytesReceived;
  }

  get bytesSent(): number {
    return this.#send.bytesSent + this.#pump.bytesSent;
  }

  /** When the next completion becomes visible, Infinity = none is on its way. */
  nextEventAt(): number {
    return this.operations.nextEventAt();
  }

  /** Hands out what is visible now; the world, not this call, lets time pass. */
  wait(_timeoutMs: number): number {
    const count = this.operations.handOut(this.events, this.options.batchMax);
    for (let event = 0; event < count; event++) this.#handOut(event * proactor.EVENT_WORDS);
    return count;
  }

  #handOut(at: number): void {
    const { events } = this;
    const op = events[at + proactor.EVENT_OP];
    if (op === proactor.OP_ACCEPT) return;
    const endpoint = events[at + proactor.EVENT_ENDPOINT];
    const result = events[at + proactor.EVENT_RESULT];
    const buffer = events[at + proactor.EVENT_BUFFER];
    if (op === proactor.OP_RECEIVE && buffer >= 0) this.buffers.handOut(buffer);
    this.#host.reported(this.#worker, endpoint, op, result, events[at + proactor.EVENT_MORE]);
  }

  #misuse(message: string, endpoint: number): never {
    fail(`${message} (endpoint ${endpoint})`, this.#worker, endpoint >> 1);
  }

  #start(endpoint: number, generation: number, operation: number): void {
    this.operations.start(endpoint, generation, operation);
  }

  #isRunning(endpoint: number, operation: number): boolean {
    return this.operations.isRunning(endpoint, operation);
  }

  /** Nothing of this engine is on its way, and nothing of its caller is kept. */
  isClean(): boolean {
    return (
      this.operations.isClean() &&
      this.buffers.allFree() &&
      this.sockets.open === 0 &&
      this.accepts.isClean()
    );
  }

  // ---- accept ----------------------------------------------------------------------------------------------------

  accept(_listener: number, tag: number, _shared: boolean): void {
    this.accepts.start(tag);
  }

  cancelAccept(tag: number): void {
    this.accepts.cancel(tag);
  }

  acceptWaiting(_listener: number, tag: number): number {
    return this.accepts.takeWaiting(tag);
  }

  // ---- connect ---------------------------------------------------------------------------------------------------

  openSocket(_family: number): number {
    const short = this.sockets.isFull() || this.#random.chance(this.options.descriptorErrorChance);
    const socket = short ? -this.#random.pick([EMFILE, ENFILE, ENOBUFS]) : this.sockets.take(-1);
    this.#trace.add(TRACE.openSocket, this.#worker, -2, socket, 0);
    return socket;
  }

  connect(
    endpoint: number,
    generation: number,
    socket: number,
    _family: number,
    words: Uint32Array,
    offset: number,
    _port: number,
  ): void {
    if (generation === this.#socketGeneration[endpoint]) {
      this.#misuse('A socket came with the generation of the one before', endpoint);
    }
    this.#socketGeneration[endpoint] = generation;
    this.sockets.attach(endpoint, socket);
    this.#start(endpoint, generation, CONNECT);
    const uid = this.#host.backendAt(this.#worker, endpoint, words, offset);
    this.#trace.add(TRACE.connect, this.#worker, endpoint, socket, uid, generation);
    this.#host.connectTo(this.#worker, endpoint, generation, uid);
  }

  /** The handshake is over. The end is -1 when it failed. A connect that was cancelled meanwhile is left alone. */
  connectDone(endpoint: number, generation: number, result: number, end: number): boolean {
    if (!this.isConnecting(endpoint, generation)) return false;
    if (result === 0) this.sockets.connected(endpoint, end);
    this.operations.report(endpoint, CONNECT, result, proactor.NO_BUFFER, 0);
    return true;
  }

  /** The connect at this endpoint still waits. */
  isConnecting(endpoint: number, generation: number): boolean {
    return this.operations.isCurrent(endpoint, generation, CONNECT);
  }

  // ---- receive and send ------------------------------------------------------------------------------------------

  receive(endpoint: number, generation: number, socket: number): void {
    const end = this.sockets.attach(endpoint, socket);
    this.#start(endpoint, generation, RECEIVE);
    if (this.#isRunning(endpoint, PUMP)) this.#misuse('A receive beside a pump', endpoint);
    this.#trace.add(TRACE.receive, this.#worker, endpoint, socket, generation);
    // The client's socket may be unknown yet: a backend is heard at once, its client not before the PROXY header is out.
    const socketAcross = this.#host.socketAcross(this.#worker, endpoint);
    const other = socketAcross < 0 ? -1 : this.sockets.attach(endpoint ^ 1, socketAcross);
    if (other >= 0) this.#pair(endpoint, end, other);
    this.#tryReceive(endpoint);
  }

  /** The two sockets of a session are known: from now on they must stay a pair. */
  #pair(endpoint: number, end: number, other: number): void {
    const joined = this.#network.join(end, other);
    if (joined < 0) this.#misuse('A socket changed sessions', endpoint);
    if (joined > 0) this.#host.paired(this.#worker, endpoint >> 1);
  }

  #tryReceive(endpoint: number): void {
    const { options } = this;
    const end = this.sockets.endOf(endpoint);
    for (let count = 0; this.#isRunning(endpoint, RECEIVE); count++) {
      if (count === RECEIVES_PER_TURN) {
        this.operations.later(endpoint, RECEIVE);
        return;
      }
      const waiting = this.#network.readableBytes(end);
      if (waiting > 0) {
        const buffer = this.#random.chance(options.noBuffersChance) ? -1 : this.buffers.take();
        if (buffer < 0) {
          this.operations.report(endpoint, RECEIVE, -ENOBUFS, proactor.NO_BUFFER, 0);
          return;
        }
        const isShort = this.#random.chance(options.shortChance);
        const most = Math.min(waiting, this.bufferBytes);
        const start = this.#network.read[end ^ 1];
        const bytes = this.#network.receive(end, isShort ? this.#random.whole(1, most) : most);
        this.buffers.fill(buffer, end ^ 1, start, bytes);
        const at = buffer * this.bufferBytes;
        const moves = this.#host.headers.fill(this.#worker, at, end ^ 1, start, bytes);
        if (moves) this.buffers.grow(buffer);
        this.#bytesReceived += bytes;
        const more = this.#random.chance(options.endChance) ? 0 : 1;
        this.operations.report(endpoint, RECEIVE, bytes, buffer, more);
        continue;
      }
      const result = this.#network.receive(end, this.bufferBytes);
      if (result === -EAGAIN) return;
      this.operations.report(endpoint, RECEIVE, result, proactor.NO_BUFFER, 0);
    }
  }

  cancelReceive(endpoint: number, generation: number): void {
    this.#trace.add(TRACE.cancelReceive, this.#worker, endpoint, generation, 0);
    if (this.#isRunning(endpoint, RECEIVE)) this.#cancelOne(endpoint, RECEIVE);
  }

  send(
    endpoint: number,
    generation: number,
    socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean {
    this.sockets.attach(endpoint, socket);
    this.#start(endpoint, generation, SEND);
    if (this.#isRunning(endpoint ^ 1, PUMP)) this.#misuse('A send beside a pump', endpoint);
    this.#trace.add(TRACE.send, this.#worker, endpoint, buffer, offset, bytes);
    return this.#send.start(endpoint, buffer, offset, bytes);
  }

  // ---- cancel, pump ------------------------------------------------------------------------------------------------

  cancel(endpoint: number, generation: number, socket: number): void {
    this.#trace.add(TRACE.cancel, this.#worker, endpoint, socket, generation);
    this.sockets.attach(endpoint, socket);
    this.#host.cancelling(this.#worker, endpoint);
    for (let operation = CONNECT; operation <= PUMP; operation++) {
      if (this.#isRunning(endpoint, operation)) this.#cancelOne(endpoint, operation);
    }
    const source = endpoint ^ 1;
    // A pump that waits to write waits on its target.
    const blocked = this.#isRunning(source, PUMP) && this.#pump.isBlocked(source);
    if (blocked) this.#cancelOne(source, PUMP);
  }

  /** Some cancels come too late: the operation gets on as far as it can first. */
  #cancelOne(endpoint: number, operation: number): void {
    if (this.#random.chance(this.options.raceChance)) {
      if (operation !== CONNECT) this.#tryAgain(endpoint, operation);
      else this.#host.connectNow(this.#worker, endpoint, this.#socketGeneration[endpoint]);
      if (!this.#isRunning(endpoint, operation)) return;
    }
    if (operation === SEND) {
      this.#send.cancel(endpoint);
      return;
    }
    if (operation === PUMP) this.#pump.empty(endpoint);
    this.operations.report(endpoint, operation, -ECANCELED, proactor.NO_BUFFER, 0);
  }

  pump(endpoint: number, generation: number, source: number, target: number): boolean {
    if (!this.canPump) this.#misuse('A pump where there are none', endpoint);
    this.sockets.attach(endpoint, source);
    this.sockets.attach(endpoint ^ 1, target);
    if (this.#random.chance(this.options.pumpRefusedChance)) return false;
    if (this.operations.isInFlight(endpoint, RECEIVE)) {
      this.#misuse('A pump beside a receive', endpoint);
    }
    if (this.operations.isInFlight(endpoint ^ 1, SEND)) {
      this.#misuse('A pump beside a send', endpoint);
    }
    this.#trace.add(TRACE.pump, this.#worker, endpoint, source, target, generation);
    this.pumps++;
    this.#start(endpoint, generation, PUMP);
    this.#pump.start(endpoint);
    return true;
  }

  stopPump(endpoint: number, generation: number): void {
    this.#trace.add(TRACE.stopPump, this.#worker, endpoint, generation, 0);
    if (!this.#isRunning(endpoint, PUMP)) return;
    if (this.#pump.stop(endpoint)) this.#cancelOne(endpoint, PUMP);
  }

  // ---- the kernel's side -------------------------------------------------------------------------------------------

  /** A turn put off by #kernelLater. By now it may be another session's: then it does no harm. */
  kernelTurn(lane: number): void {
    const endpoint = Math.floor(lane / OPERATIONS);
    if (this.#isRunning(endpoint, lane % OPERATIONS)) {
      this.#tryAgain(endpoint, lane % OPERATIONS);
    }
  }

  #tryAgain(endpoint: number, operation: number): void {
    if (operation === RECEIVE) this.#tryReceive(endpoint);
    else if (operation === SEND) this.#send.turn(endpoint);
    else if (operation === PUMP) this.#pump.turn(endpoint);
  }

  /** Something changed at an end of this worker: who waits there tries again, in any order. */
  ready(end: number): void {
    const endpoint = this.sockets.endpointOf(end);
    if (endpoint < 0) return;
    const first = this.#random.chance(0.5) ? RECEIVE : SEND;
    if (this.#isRunning(endpoint, first)) this.#tryAgain(endpoint, first);
    if (this.#isRunning(endpoint, PUMP)) this.#pump.turn(endpoint);
    const second = first === RECEIVE ? SEND : RECEIVE;
    if (this.#isRunning(endpoint, second)) this.#tryAgain(endpoint, second);
    const source = endpoint ^ 1;
    if (this.#isRunning(source, PUMP)) this.#pump.turn(source);
  }

  // ---- buffers, sockets --------------------------------------------------------------------------------------------

  takeBuffer(): number {
    return this.buffers.takeWritten();
  }

  releaseBuffer(buffer: number): void {
    this.buffers.release(buffer);
  }

  hasBuffer(): boolean {
    if (this.buffers.countFree() > 0) return true;
    this.emptyAt = this.#network.clock[0] as number;
    return false;
  }

  isScarce(): boolean {
    return this.buffers.isScarce();
  }

  buffersInUse(): number {
    return this.bufferCount - this.buffers.countFree() + this.buffers.written;
  }

  readPeer(socket: number, peer: PeerAddress): number {
    const end = this.sockets.endOfSocket(socket);
    if (this.#network.over[end] === 1) return -ENOTCONN;
    this.#host.headers.readPeer(end ^ 1, peer);
    return 0;
  }

  readLocal(socket: number, local: PeerAddress): number {
    this.#host.headers.readLocal(this.sockets.endOfSocket(socket), local);
    return 0;
  }

  setNoDelay(socket: number): void {
    this.sockets.endOfSocket(socket);
  }

  setLongLived(socket: number, _keepaliveSecs: number, _userTimeoutSecs: number): void {
    this.sockets.endOfSocket(socket);
  }

  shutdownWrite(socket: number): void {
    const end = this.sockets.endOfSocket(socket);
    const endpoint = this.sockets.endpointOf(end);
    this.#trace.add(TRACE.shutdown, this.#worker, endpoint, socket, this.#network.wrote[end]);
    if (endpoint < 0) fail('A shutdown of a socket nobody uses', this.#worker);
    if (this.#network.fin[end] !== 0) this.#misuse('A second shutdown', endpoint);
    this.#checkFin(endpoint, end);
    this.#network.shutdown(end);
  }

  #checkFin(endpoint: number, end: number): void {
    const { operations } = this;
    if (operations.isInFlight(endpoint, SEND) || this.#isRunning(endpoint ^ 1, PUMP)) {
      this.#misuse('A FIN before all is sent', endpoint);
    }
    checkFin(this.#network, this.#worker, endpoint, end);
  }

  close(endpoint: number, socket: number): void {
    this.#closeSocket(endpoint, socket, false, false);
  }

  reset(endpoint: number, socket: number): void {
    this.#closeSocket(endpoint, socket, true, false);
  }

  closeNow(endpoint: number, socket: number, how: number): void {
    this.#closeSocket(endpoint, socket, how === 1, true);
  }

  #closeSocket(endpoint: number, socket: number, reset: boolean, isNow: boolean): void {
    const kind = reset ? TRACE.reset : TRACE.close;
    this.#trace.add(kind, this.#worker, endpoint, socket, isNow ? 1 : 0);
    const end = this.sockets.endOfSocket(socket);
    if (endpoint >= 0) {
      this.sockets.checkAttached(endpoint, socket);
      const busy = this.operations.inFlight(endpoint) > 0;
      if (busy) this.#misuse('Closed with something in flight', endpoint);
      const isTarget = this.operations.isInFlight(endpoint ^ 1, PUMP);
      if (isTarget) this.#misuse('Closed with a pump to it in flight', endpoint);
    } else if (end >= 0 && this.sockets.endpointOf(end) >= 0) {
      fail('A socket was closed without its endpoint', this.#worker);
    }
    this.#host.closing(this.#worker, endpoint, socket, end, reset);
    if (end >= 0) {
      if (this.#network.owner[end] !== OWNER_PROXY + this.#worker) fail('A foreign socket');
      if (!reset && this.#network.fin[end] === 0) this.#checkFin(endpoint, end);
    }
    const backend = this.#host.leaving(this.#worker, endpoint);
    this.closes[isNow ? 'now' : 'add'](end, reset, backend);
    this.sockets.give(endpoint, socket);
  }

  end(): void {}
}
