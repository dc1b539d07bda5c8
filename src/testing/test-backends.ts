// Backends for tests, in the test's own process, on any loopback address: what they do with a connection is a function,
// and they count what they see. `openBlackhole` is an address that answers nothing, like a host that is gone.

import type { AddressInfo } from 'node:net';
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net';
import { parseAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { until } from './wait.ts';

export type ConnectionHandler = (socket: Socket, backend: TestBackend) => void;

export class TestBackend implements AsyncDisposable {
  readonly server: Server;
  /** What happens to the next connection. */
  handler: ConnectionHandler;
  /** Connections open now, in the order they came. */
  readonly sockets = new Set<Socket>();
  /** Every connection ever, open or not. */
  readonly all: Socket[] = [];
  connections = 0;
  /** The most that were open at once. */
  peak = 0;
  bytes = 0;
  /** Errors of connections (`ECONNRESET`), in the order they came. */
  readonly errors: string[] = [];
  /** Connections that ended with the client's FIN. */
  ends = 0;

  constructor(handler: ConnectionHandler) {
    this.handler = handler;
    this.server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.sockets.add(socket);
      this.all.push(socket);
      this.connections++;
      this.peak = Math.max(this.peak, this.sockets.size);
      socket.on('error', (error: NodeJS.ErrnoException) => this.errors.push(error.code ?? ''));
      socket.on('end', () => this.ends++);
      socket.on('close', () => this.sockets.delete(socket));
      this.handler(socket, this);
    });
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get host(): string {
    return (this.server.address() as AddressInfo).address;
  }

  /** Address columns of a routing row. */
  get row(): { address: string; port: number } {
    return { address: this.host, port: this.port };
  }

  /** The most recent connection, once there is one more than `before`. */
  async next(before: number): Promise<Socket> {
    await until('a connection at the backend', () => this.connections > before);
    return this.all[before] as Socket;
  }

  /** Forgets what was counted; no connection may be open. */
  clear(): void {
    if (this.sockets.size > 0) throw new Error('Cannot clear a backend with open connections');
    this.all.length = 0;
    this.errors.length = 0;
    this.connections = 0;
    this.peak = 0;
    this.bytes = 0;
    this.ends = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    if (this.server.listening) await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Starts a backend; port 0 takes a free one. */
export async function startBackend(
  handler: ConnectionHandler,
  host = '127.0.0.1',
  port = 0,
): Promise<TestBackend> {
  const backend = new TestBackend(handler);
  await new Promise<void>((resolve, reject) => {
    backend.server.on('error', reject);
    backend.server.listen({ host, port, backlog: 4096, ipv6Only: true }, resolve);
  });
  return backend;
}

/** Starts a backend on a listening socket made elsewhere (in another network namespace). */
export async function serveDescriptor(
  handler: ConnectionHandler,
  fd: number,
): Promise<TestBackend> {
  const backend = new TestBackend(handler);
  await new Promise<void>((resolve, reject) => {
    backend.server.on('error', reject);
    backend.server.listen({ fd }, resolve);
  });
  return backend;
}

/** Sends back what it gets, and closes when the client has. */
export function echo(socket: Socket, backend: TestBackend): void {
  socket.on('data', (chunk) => {
    backend.bytes += chunk.length;
  });
  socket.pipe(socket);
}

/** Says `name` at once, then waits for the client to close. */
export function sayName(name: string): ConnectionHandler {
  return (socket) => {
    socket.write(name);
    socket.resume();
    socket.on('end', () => socket.end());
  };
}

/** Sends small pieces until the client ends: the flow never looks like a bulk one, which would move into the kernel. */
export function trickle(socket: Socket): void {
  const timer = setInterval(() => {
    if (socket.writableLength < 65_536) socket.write(Buffer.alloc(8192, 'x'));
  }, 1);
  const stop = (): void => clearInterval(timer);
  socket.on('close', stop);
  socket.on('end', () => {
    stop();
    socket.end();
  });
  socket.resume();
}

/** Keeps the connection, reads and says nothing by itself: the test drives the socket. */
export function hold(socket: Socket): void {
  socket.pause();
}

/** Reads everything, answers nothing, closes when the client has. */
export function sink(socket: Socket, backend: TestBackend): void {
  socket.on('data', (chunk) => {
    backend.bytes += chunk.length;
  });
  socket.on('end', () => socket.end());
}

/** A port that nothing listens on: it was given out by the kernel and is free again. */
export async function refusedPort(host = '127.0.0.1'): Promise<number> {
  const backend = await startBackend(hold, host);
  const { port } = backend;
  await backend[Symbol.asyncDispose]();
  return port;
}

/** A listener whose queue is full and never emptied: further SYNs are dropped, as by a host that is gone. */
export interface Blackhole extends AsyncDisposable {
  readonly port: number;
}

export async function openBlackhole(host = '127.0.0.1'): Promise<Blackhole> {
  const parsed = parseAddress(host);
  if (parsed === null) throw new Error(`Cannot listen on ${host}`);
  const options = { backlog: 0, fastOpenQueue: 0, reusePort: false, v6Only: true };
  const listener = openListener({ ...parsed, port: 0 }, options);
  if (listener < 0) throw new Error(`Cannot listen on ${host}: errno ${-listener}`);
  const port = boundAddress(listener)?.port as number;
  // A queue of length 0 holds one connection (listen(2) counts beyond the limit).
  const filler = netConnect({ host, port });
  await new Promise<void>((resolve, reject) => {
    filler.once('connect', resolve);
    filler.once('error', reject);
  });
  filler.on('error', () => {});
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      filler.destroy();
      closeDescriptor(listener);
    },
  };
}
