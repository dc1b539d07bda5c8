// Sockets of the mesh demo that are in its namespaces although their code runs in this process: backends, clients, and ways
// to the dashboards.

import { get } from 'node:http';
import { createServer, type Server, Socket } from 'node:net';
import { ProxyError } from '../../base/errors.ts';
import { connectSocket } from '../../sys/epoll.ts';
import { EINPROGRESS, errnoName } from '../../sys/errno.ts';
import { inNamespace } from '../../sys/netns.ts';
import { parseAddress } from '../../sys/sockaddr.ts';
import { bindListener, openListener } from '../../sys/socket.ts';
import { createDemoBackend, type DemoBackend } from '../demo-backends.ts';

const BACKLOG = 128;
const ANSWER_MS_MAX = 10_000;
const OPTIONS = { backlog: BACKLOG, fastOpenQueue: 0, reusePort: false, v6Only: false };
const ANY = '0.0.0.0';

interface Target {
  readonly namespace: string;
  readonly host: string;
  readonly port: number;
  /** The client's address. */
  readonly from?: string;
}

function addressOf(host: string, port: number) {
  const address = parseAddress(host);
  if (address === null) throw new Error(`${host} is no address`);
  return { ...address, port };
}

function succeeded(what: string, result: number): number {
  if (result >= 0 || result === -EINPROGRESS) return result;
  throw new ProxyError('ERR_DEMO_SOCKET', `Cannot ${what}: ${errnoName(result)}`);
}

/** Servers and connections of the demo; nothing of them is left after close(). */
export class DemoSockets {
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
  }

  async #listen(server: Server, where: { fd: number } | { host: string; port: number }) {
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, resolve);
    });
  }

  /** Starts a sample backend that listens in a namespace. */
  async serve(backend: DemoBackend, namespace: string, host: string): Promise<void> {
    const { port } = backend;
    const open = () => openListener(addressOf(host, port), OPTIONS);
    const fd = succeeded(`listen on ${host}:${port}`, inNamespace(namespace, open));
    await this.#listen(createDemoBackend(backend, this.#sockets), { fd });
  }

  /** A port of this machine's own loopback interface that leads to an address in a namespace; its number. */
  async openWay(target: Target): Promise<number> {
    const server = createServer({ allowHalfOpen: true }, (near) => {
      const far = connectIn(target);
      const end = (): void => {
        near.destroy();
        far.destroy();
      };
      for (const socket of [near, far]) {
        this.#keep(socket);
        socket.on('error', end).on('close', end);
      }
      near.pipe(far).pipe(near);
    });
    await this.#listen(server, { host: '127.0.0.1', port: 0 });
    return (server.address() as { port: number }).port;
  }

  close(): void {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** A connection that is on its way. */
function connectIn({ namespace, host, port, from = ANY }: Target): Socket {
  const open = () => bindListener(addressOf(from, 0), OPTIONS);
  const fd = succeeded(`use address ${from}`, inNamespace(namespace, open));
  const { family, words } = addressOf(host, port);
  const result = connectSocket(fd, family, Uint32Array.from(words), 0, port);
  const socket = new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  succeeded(`connect to ${host}:${port}`, result);
  return socket;
}

export interface Said {
  readonly backend: string | null;
  readonly text: string;
}

/** What an HTTP server says; rejects when there is no answer. */
export function askIn(target: Target, path = '/'): Promise<Said> {
  return new Promise((resolve, reject) => {
    const headers = { host: 'localhost', connection: 'close' };
    // Without an agent, which would make the connection itself.
    const options = { path, headers, createConnection: () => connectIn(target) };
    const request = get(options, async (response) => {
      let text = '';
      try {
        for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
        const backend = response.headers['x-backend'];
        resolve({ backend: typeof backend === 'string' ? backend : null, text });
      } catch (error) {
        reject(error);
      }
    });
    request.setTimeout(ANSWER_MS_MAX, () => request.destroy(new Error('no answer in time')));
    request.on('error', reject);
  });
}
