// The listening sockets: one per address and worker, sharing the address by SO_REUSEPORT, or those that a service manager
// or the process before this one passes. They belong to the process, not to the worker that accepts on them, so that a
// worker's death loses no queued connection: its replacement takes over.

import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import { ProxyError } from '../base/errors.ts';
import { ConfigError, type ListenAddress } from '../config.ts';
import { EACCES, EADDRINUSE, EADDRNOTAVAIL, errnoName, errnoOf } from '../sys/errno.ts';
import { formatSocketAddress, parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import {
  adoptListener,
  bindListener,
  boundAddress,
  closeDescriptor,
  inspectListener,
  openListener,
  startListening,
} from '../sys/socket.ts';
import type { PassedSocket } from './systemd.ts';
import type { ClaimedSockets } from './takeover-claim.ts';

/** The kernel cuts it to net.core.somaxconn. */
const BACKLOG = 65_535;
const FAST_OPEN_QUEUE = 1024;
/** An address in use that nobody offers is asked for again: a second in all. */
const ATTEMPTS_MAX = 11;
const RETRY_MS = 100;

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
  /** Those of them that do not listen yet: a takeover that fails must not have attracted connections. */
  readonly late: readonly number[];
}

/**
 * The sockets that worker `index` of `workers` accepts on. Each is served: a worker has several where there are more
 * sockets than workers, and shares one where there are fewer.
 */
export function socketsOf({ sockets }: Listener, index: number, workers: number): number[] {
  if (sockets.length < workers) return [sockets[index % sockets.length] as number];
  return sockets.filter((_, at) => at % workers === index);
}

function toSocketAddress(listen: Pick<ListenAddress, 'host' | 'port'>): SocketAddress {
  const parsed = parseAddress(listen.host);
  if (parsed === null) throw new RangeError(`Cannot listen on "${listen.host}": not an address`);
  return { ...parsed, port: listen.port };
}

function bindError(address: SocketAddress, result: number, claim = ''): ProxyError {
  const text = formatSocketAddress(address);
  const why = claim === '' ? '' : ` (it cannot be taken over: ${claim})`;
  const hints: Record<number, string> = {
    [-EADDRINUSE]: `another process listens there${why}; stop it or choose another --listen-addr`,
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

interface OpenOptions {
  readonly workers: number;
  readonly fastOpen: boolean;
  /** Sockets that came with the start: they serve the addresses they are bound to. */
  readonly passed: readonly PassedSocket[];
  /** Gets the sockets of a proxy that runs at an address; null: an address in use is an error. */
  readonly claim: ((address: string) => Promise<ClaimedSockets | string>) | null;
}

/** The passed sockets by address as text; every one must be wanted. */
function sortPassed(
  passed: readonly PassedSocket[],
  listens: readonly ListenAddress[],
): Map<string, number[]> {
  const wanted = listens.map((listen) => formatSocketAddress(toSocketAddress(listen)));
  const sockets = new Map<string, number[]>();
  const problems: string[] = [];
  for (const { descriptor, name } of passed) {
    const what = `Socket ${descriptor}${name === '' ? '' : ` (${name})`} of LISTEN_FDS`;
    const found = inspectListener(descriptor);
    const text = found === null ? '' : formatSocketAddress(found.address);
    if (found === null) {
      problems.push(`${what} is not a listening TCP socket`);
    } else if (!wanted.includes(text)) {
      problems.push(
        `${what} is bound to ${text}, which EDGEPROXY_LISTEN_ADDR (${wanted.join(', ')}) does not list`,
      );
    } else {
      const listen = listens[wanted.indexOf(text)] as ListenAddress;
      const reason = misfit(found.v6Only, listen, listens);
      if (reason !== '') problems.push(`${what} at ${text} ${reason}`);
      sockets.set(text, [...(sockets.get(text) ?? []), descriptor]);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return sockets;
}

/** Why a socket cannot serve an address it is bound to, '' when it can: which clients [::] takes was fixed at the bind. */
function misfit(v6Only: boolean, listen: ListenAddress, all: readonly ListenAddress[]): string {
  if (listen.host !== '::' || v6Only === sharesPortWithIPv4(listen, all)) return '';
  return v6Only
    ? 'takes IPv6 clients only; list 0.0.0.0 for IPv4 clients, or bind it for both (BindIPv6Only=both)'
    : 'takes IPv4 clients, too, as a listed IPv4 address would; bind it for IPv6 only (BindIPv6Only=ipv6-only)';
}

class ListenerOpener {
  readonly #listens: readonly ListenAddress[];
  readonly #options: OpenOptions;
  readonly #fastOpenQueue: number;
  readonly #opened: number[] = [];

  constructor(listens: readonly ListenAddress[], options: OpenOptions) {
    this.#listens = listens;
    this.#options = options;
    this.#fastOpenQueue = options.fastOpen ? FAST_OPEN_QUEUE : 0;
  }

  async open(): Promise<Listener[]> {
    const passed = sortPassed(this.#options.passed, this.#listens);
    const listeners: Listener[] = [];
    try {
      for (const listen of this.#listens) {
        const adopted = passed.get(formatSocketAddress(toSocketAddress(listen))) ?? [];
        listeners.push(await this.#openOne(listen, adopted));
      }
    } catch (error) {
      this.#opened.forEach(closeDescriptor);
      throw error;
    }
    return listeners;
  }

  async #openOne(listen: ListenAddress, adopted: readonly number[]): Promise<Listener> {
    const v6Only = sharesPortWithIPv4(listen, this.#listens);
    const wanted = toSocketAddress(listen);
    let sockets = [...adopted];
    let late: number[] = [];
    if (adopted.length === 0) {
      const free = await this.#freeAddress(listen, wanted, v6Only);
      sockets = Array.isArray(free) ? free : this.#openGroup(free, v6Only);
      if (Array.isArray(free)) late = this.#bindMore(wanted, v6Only, sockets.length);
    }
    for (const socket of sockets) adoptListener(socket, this.#fastOpenQueue);
    const address = boundAddress(sockets[0] as number) ?? wanted;
    return {
      app: listen.app,
      address: formatSocketAddress(address),
      host: listen.host,
      port: address.port,
      v6Only,
      sockets: [...sockets, ...late],
      late,
    };
  }

  /** An address nobody listens at, with the port that 0 became; or the sockets of the proxy that does. */
  async #freeAddress(
    listen: ListenAddress,
    wanted: SocketAddress,
    v6Only: boolean,
  ): Promise<SocketAddress | number[]> {
    const { claim } = this.#options;
    for (let attempt = 1; ; attempt++) {
      // SO_REUSEPORT would let a second process of this user share the port unseen: ask once without it.
      const probe = this.#openSocket(wanted, v6Only, false);
      if (probe >= 0) {
        const { port } = boundAddress(probe) ?? wanted;
        closeDescriptor(probe);
        return { ...wanted, port };
      }
      // A port below 1024 in use says EACCES to whoever is not root.
      const isTaken = probe === -EADDRINUSE || probe === -EACCES;
      if (!isTaken || claim === null) throw bindError(wanted, probe);
      const claimed = await claim(formatSocketAddress(wanted));
      if (typeof claimed !== 'string') {
        this.#opened.push(...claimed.sockets);
        const reason = misfit(claimed.v6Only, listen, this.#listens);
        if (reason === '') return [...claimed.sockets];
        throw bindError(wanted, probe, `its socket ${reason}`);
      }
      // Nobody offers it: one process may just have ended, or another just have begun.
      const isFinal = probe === -EACCES || attempt === ATTEMPTS_MAX;
      if (claimed !== '' || isFinal) throw bindError(wanted, probe, claimed);
      await setTimeoutPromise(RETRY_MS);
    }
  }

  #openSocket(address: SocketAddress, v6Only: boolean, reusePort: boolean): number {
    const fastOpenQueue = this.#fastOpenQueue;
    return openListener(address, { backlog: BACKLOG, fastOpenQueue, reusePort, v6Only });
  }

  #openGroup(address: SocketAddress, v6Only: boolean): number[] {
    return Array.from({ length: this.#options.workers }, () => {
      const socket = this.#openSocket(address, v6Only, true);
      if (socket < 0) throw bindError(address, socket);
      this.#opened.push(socket);
      return socket;
    });
  }

  /** Sockets for the workers that got none; fewer, or none, where the address was bound in a way that forbids it. */
  #bindMore(address: SocketAddress, v6Only: boolean, count: number): number[] {
    const sockets: number[] = [];
    const options = { fastOpenQueue: this.#fastOpenQueue, reusePort: true, v6Only };
    for (let worker = count; worker < this.#options.workers; worker++) {
      const socket = bindListener(address, options);
      if (socket < 0) break;
      sockets.push(socket);
    }
    this.#opened.push(...sockets);
    return sockets;
  }
}

/** Opens every listener; on any failure closes what it opened and throws. */
export function openListeners(
  listens: readonly ListenAddress[],
  options: OpenOptions,
): Promise<Listener[]> {
  return new ListenerOpener(listens, options).open();
}

/** Lets the sockets listen that do not yet. From then on the kernel gives them connections, which must be served. */
export function listenLate(listeners: readonly Listener[]): void {
  for (const { late, host, port } of listeners) {
    for (const socket of late) {
      const result = startListening(socket, BACKLOG);
      if (result < 0)
        throw bindError(boundAddress(socket) ?? toSocketAddress({ host, port }), result);
    }
  }
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
      const claim = 'the portable engine takes nothing over';
      throw bindError(toSocketAddress({ host, port: wanted }), errnoOf(error as Error), claim);
    }
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, 'close');
    const address = formatSocketAddress(toSocketAddress({ host, port }));
    const sockets = new Array<number>(workers).fill(index);
    listeners.push({ app, address, host, port, v6Only, sockets, late: [] });
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
