// The listening sockets: one per address and worker, sharing the address by SO_REUSEPORT. They belong to the process, not
// to the worker that accepts on them, so that a worker's death loses no queued connection: its replacement takes over.

import { once } from 'node:events';
import net from 'node:net';
import { ProxyError } from '../base/errors.ts';
import type { ListenAddress } from '../config.ts';
import { EACCES, EADDRINUSE, EADDRNOTAVAIL, errnoName, errnoOf } from '../sys/errno.ts';
import { formatSocketAddress, parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';

/** The kernel cuts it to net.core.somaxconn. */
const BACKLOG = 65_535;
const FAST_OPEN_QUEUE = 1024;

export interface Listener {
  /** `*` = any. */
  readonly app: string;
  /** The real address, also where port 0 was asked for. */
  readonly address: string;
  readonly host: string;
  readonly port: number;
  /** An IPv4 listener has the same port: IPv4 clients are its. */
  readonly v6Only: boolean;
  /** Listening sockets, see socketsOf(); for the portable engine, which listens itself, the number of this listener. */
  readonly sockets: readonly number[];
}

/**
 * The sockets that worker `index` of `workers` accepts on. Each is served: a worker has several where there are more
 * sockets than workers, and shares one where there are fewer.
 */
export function socketsOf({ sockets }: Listener, index: number, workers: number): number[] {
  if (sockets.length < workers) return [sockets[index % sockets.length] as number];
  return sockets.filter((_, at) => at % workers === index);
}

function toSocketAddress(listen: ListenAddress): SocketAddress {
  const parsed = parseAddress(listen.host);
  if (parsed === null) throw new RangeError(`Cannot listen on "${listen.host}": not an address`);
  return { ...parsed, port: listen.port };
}

function bindError(address: SocketAddress, result: number): ProxyError {
  const text = formatSocketAddress(address);
  const hints: Record<number, string> = {
    [-EADDRINUSE]: 'another process listens there; stop it or choose another --listen-addr',
    [-EACCES]:
      'ports below 1024 need root, CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start',
    [-EADDRNOTAVAIL]: 'this machine has no such address',
  };
  const hint = hints[result] ?? 'see the error name';
  return new ProxyError('ERR_LISTEN', `Cannot listen on ${text}: ${errnoName(result)}, ${hint}`);
}

/** True when an IPv4 listener holds the same port, so an IPv6 wildcard must leave IPv4 clients to it. */
function sharesPortWithIPv4(listen: ListenAddress, all: readonly ListenAddress[]): boolean {
  return all.some((other) => other.family === 4 && other.port === listen.port && other.port !== 0);
}

/** Opens every listener for `workers` workers; on any failure closes what it opened and throws ERR_LISTEN. */
export function openListeners(
  listens: readonly ListenAddress[],
  workers: number,
  fastOpen: boolean,
): Listener[] {
  const opened: number[] = [];
  const open = (address: SocketAddress, v6Only: boolean, reusePort: boolean): number => {
    const fastOpenQueue = fastOpen ? FAST_OPEN_QUEUE : 0;
    const socket = openListener(address, { backlog: BACKLOG, fastOpenQueue, reusePort, v6Only });
    if (socket >= 0) return socket;
    for (const other of opened) closeDescriptor(other);
    throw bindError(address, socket);
  };
  return listens.map((listen) => {
    const v6Only = sharesPortWithIPv4(listen, listens);
    const wanted = toSocketAddress(listen);
    // SO_REUSEPORT would let a second process of this user share the port unseen: ask once without it.
    const probe = open(wanted, v6Only, false);
    const bound = boundAddress(probe) ?? wanted;
    closeDescriptor(probe);
    const address = { ...wanted, port: bound.port };
    const sockets = Array.from({ length: workers }, () => {
      const socket = open(address, v6Only, true);
      opened.push(socket);
      return socket;
    });
    return {
      app: listen.app,
      address: formatSocketAddress(address),
      host: listen.host,
      port: address.port,
      v6Only,
      sockets,
    };
  });
}

/** Finds out whether the addresses are free, and which port 0 becomes; the workers' engines listen there themselves. */
export async function reserveListeners(
  listens: readonly ListenAddress[],
  workers: number,
): Promise<Listener[]> {
  const listeners: Listener[] = [];
  for (const [index, { app, host, port: wanted, family }] of listens.entries()) {
    const v6Only = sharesPortWithIPv4({ app, host, port: wanted, family }, listens);
    const server = net.createServer();
    server.listen({ host, port: wanted, ipv6Only: v6Only });
    try {
      await once(server, 'listening');
    } catch (error) {
      throw bindError(
        toSocketAddress({ app, host, port: wanted, family }),
        errnoOf(error as Error),
      );
    }
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, 'close');
    const address = formatSocketAddress(toSocketAddress({ app, host, port, family }));
    const sockets = new Array<number>(workers).fill(index);
    listeners.push({ app, address, host, port, v6Only, sockets });
  }
  return listeners;
}

/** Closes each socket once all workers that accept on it have stopped; `stopped` is by worker. */
export function closeWhenStopped(
  listeners: readonly Listener[],
  stopped: readonly Promise<void>[],
): void {
  for (const listener of listeners) {
    for (const socket of listener.sockets) {
      const users = stopped.filter((_, worker) =>
        socketsOf(listener, worker, stopped.length).includes(socket),
      );
      // Only then: a worker must never accept on a descriptor that means something else by now.
      void Promise.all(users).then(() => closeDescriptor(socket));
    }
  }
}
