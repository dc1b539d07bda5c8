// The portable engine: the same proactor on node:net, for platforms and Node versions without node:ffi. It has an object,
// a stream and callbacks per connection, so it is two to three times dearer per connection than the others, and it cannot
// pump. It is driven by the event loop: `drive()` names the function that takes each batch.
//
// One difference shows: node:net cannot leave connections in the kernel's queue, so while accepting is paused (at
// EDGEPROXY_MAX_CONNECTIONS) new connections are refused instead of waiting.

import net from 'node:net';
import { assert } from '../base/assert.ts';
import { readMonotonic } from '../sys/clock.ts';
import { EAGAIN, ECANCELED, ENOBUFS, errnoOf } from '../sys/errno.ts';
import { formatAddress, isMapped, parseAddress } from '../sys/sockaddr.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { EventList } from './event-list.ts';
import { abort, keepReadable, takeUnread } from './portable-socket.ts';
import * as proactor from './proactor.ts';
import { WRITE_BUFFERS, WriteBuffers } from './write-buffers.ts';

/**
 * The kernel cuts it to net.core.somaxconn. libuv accepts one connection a turn of the loop, so a burst waits long; when the
 * queue overflows, clients believe themselves connected while the kernel has dropped their last ACK.
 */
const BACKLOG = 65_535;

/** Where a listener number listens; node:net makes its own listening sockets. */
export interface PortableListener {
  readonly host: string;
  readonly port: number;
  readonly v6Only: boolean;
}

/** One socket. Identity is the endpoint and generation of the operation last started on it. */
interface Connection {
  readonly socket: net.Socket;
  endpoint: number;
  generation: number;
  connecting: boolean;
  receiving: boolean;
  /** Bytes received for which no buffer was free or no receive was started. */
  left: Buffer | null;
  /** The peer sent FIN. */
  ended: boolean;
  /** -errno the socket failed with, reported to every later operation; 0 = none. */
  failure: number;
  /** -errno of the last send, 0 = none: the socket can still be read. */
  sendFailure: number;
}

/** What node:net says of an end of a connection; nothing when the connection is gone. */
function takeAddress(host = '', port = 0, target: PeerAddress): number {
  const parsed = parseAddress(host.replace(/%.*$/, ''));
  if (parsed === null) return errnoOf({ code: 'ENOTCONN' });
  const [w0, w1, w2, w3] = parsed.words;
  const mapped = parsed.family === 6 && isMapped(w0, w1, w2);
  target.family = mapped ? 4 : parsed.family;
  target.w0 = w0 | 0;
  target.w1 = w1 | 0;
  target.w2 = mapped ? 0 : w2 | 0;
  target.w3 = w3 | 0;
  target.port = port;
  return 0;
}

export class PortableEngine implements proactor.Proactor {
  readonly name = 'portable';
  readonly canPump = false;
  readonly descriptor = -1;
  readonly bufferBytes: number;
  readonly bufferCount: number;
  events = new Int32Array(0);
  readonly #made = new EventList();

  readonly memory: Uint8Array;
  readonly #writes: WriteBuffers;
  readonly #free: Int32Array;
  #freeCount: number;
  #isScarce = false;
  readonly #connections = new Map<number, Connection>();
  /** By endpoint, while its receive is in flight. */
  readonly #receivers = new Map<number, Connection>();
  readonly #servers = new Map<number, net.Server>();
  #listeners: readonly PortableListener[] = [];
  #nextSocket = 1;
  #onBatch: (events: number) => void = () => {};
  #scheduled = false;
  #listening: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: proactor.EngineOptions) {
    this.bufferBytes = options.bufferBytes;
    this.bufferCount = options.bufferCount;
    this.memory = new Uint8Array((options.bufferCount + WRITE_BUFFERS) * options.bufferBytes);
    this.#writes = new WriteBuffers(options.bufferCount);
    this.#free = new Int32Array(options.bufferCount);
    this.#freeCount = options.bufferCount;
    for (let index = 0; index < options.bufferCount; index++) {
      this.#free[index] = options.bufferCount - 1 - index;
    }
  }

  /** `listeners[n]` is where listener number n listens; `onBatch` gets the number of events, maybe 0. */
  drive(listeners: readonly PortableListener[], onBatch: (events: number) => void): void {
    this.#listeners = listeners;
    this.#onBatch = onBatch;
  }

  /** Runs a batch soon, also with no event: a command or publication waits. */
  wake(): void {
    this.#schedule();
  }

  readClock(target: Float64Array): void {
    readMonotonic(target);
  }

  /** Does not wait: makes sure that a batch comes within `timeoutMs` (-1 = only when there are events). */
  wait(timeoutMs: number): number {
    if (this.#made.count > 0 || timeoutMs === 0) this.#schedule();
    else if (timeoutMs >= 0 && this.#timer === undefined) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#schedule();
      }, timeoutMs);
    }
    return 0;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const { count } = this.#made;
      this.events = this.#made.take();
      this.#onBatch(count);
    });
  }

  #emit(operation: number, endpoint: number, generation: number, result: number, more = 0): void {
    this.#emitBuffer(operation, endpoint, generation, result, proactor.NO_BUFFER, more);
  }

  #emitBuffer(
    operation: number,
    endpoint: number,
    generation: number,
    result: number,
    buffer: number,
    more: number,
  ): void {
    this.#made.add(operation, endpoint, generation, result, buffer, more);
    this.#schedule();
  }

  // ---- accept and connect ----------------------------------------------------------------------------------------

  accept(listener: number, tag: number, _shared: boolean): void {
    const where = this.#listeners[listener];
    assert(where !== undefined, 'Accept on a listener that was not named');
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    this.#servers.set(tag, server);
    server.on('connection', (socket) => {
      const id = this.#adopt(socket);
      this.#emit(proactor.OP_ACCEPT, tag, 0, id, 1);
    });
    server.on('error', (error) => {
      if (this.#servers.get(tag) !== server) return;
      this.#servers.delete(tag);
      server.close();
      this.#emit(proactor.OP_ACCEPT, tag, 0, errnoOf(error));
    });
    // Every worker listens on the same address (SO_REUSEPORT); where the system has none, there is one worker.
    const reusePort = process.platform === 'linux';
    const listening = new Promise<void>((resolve) => {
      server.once('listening', resolve);
      server.once('close', resolve);
    });
    this.#listening = Promise.all([this.#listening, listening]);
    const { host, port, v6Only: ipv6Only } = where;
    server.listen({ host, port, ipv6Only, reusePort, backlog: BACKLOG });
  }

  /** Resolves once every accept started so far listens, or has failed. */
  async listening(): Promise<void> {
    await this.#listening;
  }

  cancelAccept(tag: number): void {
    const server = this.#servers.get(tag);
    if (server === undefined) return;
    this.#servers.delete(tag);
    server.close();
    this.#emit(proactor.OP_ACCEPT, tag, 0, -ECANCELED);
  }

  /** node:net accepts as connections come and closes its listener with the accept: none can wait. */
  acceptWaiting(_listener: number, _tag: number): number {
    return -EAGAIN;
  }

  #adopt(socket: net.Socket): number {
    const id = this.#nextSocket++;
    const connection: Connection = {
      socket,
      endpoint: 0,
      generation: 0,
      connecting: false,
      receiving: false,
      left: null,
      ended: false,
      failure: 0,
      sendFailure: 0,
    };
    this.#connections.set(id, connection);
    socket.on('data', (chunk: Buffer) => this.#received(connection, chunk));
    socket.on('end', () => {
      connection.ended = true;
      this.#deliver(connection);
    });
    socket.on('error', (error) => {
      // What came before the failure is delivered before it.
      const unread = takeUnread(socket);
      if (unread !== null) this.#keep(connection, unread);
      this.#failed(connection, errnoOf(error));
    });
    keepReadable(socket, (error) => {
      connection.sendFailure = errnoOf(error);
    });
    socket.pause();
    return id;
  }

  /** The socket is made when it connects: node:net has none before. */
  openSocket(_family: number): number {
    return this.#adopt(new net.Socket({ allowHalfOpen: true }));
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
    const connection = this.#connection(socket);
    connection.endpoint = endpoint;
    connection.generation = generation;
    connection.connecting = true;
    const host = formatAddress(family === 4 ? 4 : 6, words.subarray(offset, offset + 4));
    connection.socket.connect({ host, port, family }, () => {
      if (!connection.connecting) return;
      connection.connecting = false;
      this.#emit(proactor.OP_CONNECT, connection.endpoint, connection.generation, 0);
    });
  }

  #connection(socket: number): Connection {
    const connection = this.#connections.get(socket);
    assert(connection !== undefined, 'Operation on a closed socket');
    return connection;
  }

  /** Reports to whatever is in flight; what is started later hears it then. */
  #failed(connection: Connection, result: number): void {
    connection.failure = result;
    if (connection.connecting) {
      connection.connecting = false;
      this.#emit(proactor.OP_CONNECT, connection.endpoint, connection.generation, result);
    }
    this.#deliver(connection);
  }

  // ---- receive and send --------------------------------------------------------------------------------------------

  receive(endpoint: number, generation: number, socket: number): void {
    const connection = this.#connection(socket);
    connection.endpoint = endpoint;
    connection.generation = generation;
    connection.receiving = true;
    this.#receivers.set(endpoint, connection);
    this.#deliver(connection);
    if (connection.receiving) connection.socket.resume();
  }

  #received(connection: Connection, chunk: Buffer): void {
    this.#keep(connection, chunk);
    this.#deliver(connection);
  }

  #keep(connection: Connection, chunk: Buffer): void {
    connection.left = connection.left === null ? chunk : Buffer.concat([connection.left, chunk]);
  }

  /** Hands out what is there, in pooled buffers, while a receive is in flight. */
  #deliver(connection: Connection): void {
    const { endpoint, generation } = connection;
    while (connection.receiving && connection.left !== null) {
      if (this.#freeCount === 0) {
        this.#endReceive(connection, -ENOBUFS);
        return;
      }
      const bytes = Math.min(connection.left.length, this.bufferBytes);
      this.#freeCount--;
      this.#noteScarcity();
      const buffer = this.#free[this.#freeCount];
      this.memory.set(connection.left.subarray(0, bytes), buffer * this.bufferBytes);
      connection.left = bytes === connection.left.length ? null : connection.left.subarray(bytes);
      const more = this.#isScarce ? 0 : 1;
      if (more === 0) this.#stopReceive(connection);
      this.#emitBuffer(proactor.OP_RECEIVE, endpoint, generation, bytes, buffer, more);
    }
    if (!connection.receiving) return;
    if (connection.failure !== 0) this.#endReceive(connection, connection.failure);
    else if (connection.ended) this.#endReceive(connection, 0);
  }

  #stopReceive(connection: Connection): void {
    connection.receiving = false;
    this.#receivers.delete(connection.endpoint);
    connection.socket.pause();
  }

  #noteScarcity(): void {
    const { bufferCount } = this;
    const inUse = bufferCount - this.#freeCount;
    this.#isScarce = proactor.isStillScarce(this.#isScarce, inUse, bufferCount);
  }

  #endReceive(connection: Connection, result: number): void {
    this.#stopReceive(connection);
    this.#emit(proactor.OP_RECEIVE, connection.endpoint, connection.generation, result);
  }

  cancelReceive(endpoint: number, generation: number): void {
    const connection = this.#receivers.get(endpoint);
    if (connection?.generation === generation) this.#endReceive(connection, -ECANCELED);
  }

  send(
    endpoint: number,
    generation: number,
    socket: number,
    buffer: number,
    offset: number,
    bytes: number,
  ): boolean {
    const connection = this.#connection(socket);
    connection.endpoint = endpoint;
    connection.generation = generation;
    connection.sendFailure = 0;
    const start = buffer * this.bufferBytes + offset;
    connection.socket.write(this.memory.subarray(start, start + bytes), (error) => {
      // A socket destroyed meanwhile cancels its write: what it failed with is the reason.
      const failure = connection.failure || connection.sendFailure;
      const result = failure || (error ? errnoOf(error) : bytes);
      this.#emit(proactor.OP_SEND, endpoint, generation, result);
    });
    return false;
  }

  /** For sessions that end: with a write in flight, which must let go of its buffer, the socket is destroyed here already. */
  cancel(_endpoint: number, _generation: number, socket: number): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.left = null;
    this.#failed(connection, -ECANCELED);
    const { connecting, writableLength } = connection.socket;
    if (connecting || writableLength > 0) abort(connection.socket);
    else connection.socket.pause();
  }

  pump(): boolean {
    return false;
  }

  stopPump(): void {}

  // ---- buffers, sockets --------------------------------------------------------------------------------------------

  takeBuffer(): number {
    return this.#writes.take();
  }

  releaseBuffer(buffer: number): void {
    if (this.#writes.give(buffer)) return;
    assert(this.#freeCount < this.bufferCount, 'A buffer was released twice');
    this.#free[this.#freeCount++] = buffer;
    this.#noteScarcity();
  }

  hasBuffer(): boolean {
    return this.#freeCount > 0;
  }

  isScarce(): boolean {
    return this.#isScarce;
  }

  buffersInUse(): number {
    return this.bufferCount - this.#freeCount + this.#writes.inUse;
  }

  readPeer(socket: number, peer: PeerAddress): number {
    const { remoteAddress, remotePort } = this.#connection(socket).socket;
    return takeAddress(remoteAddress, remotePort, peer);
  }

  readLocal(socket: number, local: PeerAddress): number {
    const { localAddress, localPort } = this.#connection(socket).socket;
    return takeAddress(localAddress, localPort, local);
  }

  setNoDelay(socket: number): void {
    this.#connection(socket).socket.setNoDelay(true);
  }

  /** node:net has no TCP_USER_TIMEOUT. */
  setLongLived(socket: number, keepaliveSecs: number, _userTimeoutSecs: number): void {
    if (keepaliveSecs > 0) this.#connection(socket).socket.setKeepAlive(true, keepaliveSecs * 1000);
  }

  shutdownWrite(socket: number): void {
    this.#connection(socket).socket.end();
  }

  close(_endpoint: number, socket: number): void {
    this.#connections.get(socket)?.socket.destroy();
    this.#connections.delete(socket);
  }

  reset(_endpoint: number, socket: number): void {
    const connection = this.#connections.get(socket);
    if (connection !== undefined) abort(connection.socket);
    this.#connections.delete(socket);
  }

  /** libuv closes descriptors at once; one whose FIN waits for the next turn of the loop a turn later. */
  closeNow(endpoint: number, socket: number, how: number): void {
    if (how === 1) this.reset(endpoint, socket);
    else this.close(endpoint, socket);
  }

  end(): void {
    clearTimeout(this.#timer);
    for (const server of this.#servers.values()) server.close();
    for (const { socket } of this.#connections.values()) abort(socket);
    this.#servers.clear();
    this.#connections.clear();
  }
}
