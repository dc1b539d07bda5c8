// The userspace WireGuard device, a process of its own: `node main.ts NAME [--mtu N] [--timers JSON]`. Makes the TUN
// interface, serves the configuration socket, and ends when either is removed or on SIGTERM. All else comes over the
// socket (`wg set`, `wg syncconf`). Keeps CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE for listen ports below 1024.

import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { createLogger } from '../../base/log.ts';
import { createSharedMemory, openArena } from '../../sys/arena.ts';
import {
  CAP_NET_ADMIN,
  CAP_NET_BIND_SERVICE,
  dropFromBoundingSet,
  excessCapabilities,
  protectMemory,
} from '../../sys/capabilities.ts';
import { openDatagramSocket, openLinkWatch } from '../../sys/datagram.ts';
import { errnoName } from '../../sys/errno.ts';
import { createEventfd, signalEventfd } from '../../sys/eventfd.ts';
import { exitNow } from '../../sys/exit.ts';
import { openTun, readMtu, writeMtu } from '../../sys/tun.ts';
import { PROTOCOL_TIMES, type ProtocolTimes } from '../protocol/times.ts';
import { Device, SOCKET_BUFFER_BYTES } from './device.ts';
import type { ThreadData, ThreadMessage } from './send-thread.ts';
import { ARENA_PAGES, MTU, STOP } from './tables.ts';
import type { UapiChange } from './uapi.ts';
import { openUapi, UAPI_DIRECTORY, type UapiHandler } from './uapi-server.ts';

const SEND_THREAD = new URL('./send-thread.ts', import.meta.url);
const RECEIVE_THREAD = new URL('./receive-thread.ts', import.meta.url);
const KEPT = [CAP_NET_ADMIN, CAP_NET_BIND_SERVICE] as const;
const MTU_DEFAULT = 1420;
const MTU_MIN = 576;
const MTU_MAX = 65_535;
/** Set in the environment of the second execution, so that there is no third. */
const REDUCED = 'WG_PROCESS_REDUCED';
const EXIT_USAGE = 2;

const log = createLogger();

interface Options {
  readonly name: string;
  readonly mtu: number;
  readonly times: ProtocolTimes;
}

function readTimers(text: string | undefined): ProtocolTimes {
  if (text === undefined) return PROTOCOL_TIMES;
  const given = JSON.parse(text) as Record<string, unknown>;
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(PROTOCOL_TIMES, name) || typeof value !== 'number' || !(value > 0)) {
      throw new RangeError(`--timers: "${name}" is no time, or not above 0`);
    }
  }
  return { ...PROTOCOL_TIMES, ...given };
}

function readOptions(): Options {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { mtu: { type: 'string' }, timers: { type: 'string' } },
  });
  const [name = '', ...more] = positionals;
  if (!/^[a-zA-Z0-9_=+.-]{1,15}$/.test(name) || /^\.+$/.test(name) || more.length > 0) {
    throw new RangeError(
      'Usage: main.ts INTERFACE [--mtu N]; a name has 1 to 15 of a-z A-Z 0-9 _ = + . -',
    );
  }
  const mtu = Number(values.mtu ?? MTU_DEFAULT);
  if (!(Number.isInteger(mtu) && mtu >= MTU_MIN && mtu <= MTU_MAX)) {
    throw new RangeError(`--mtu ${values.mtu}: a whole number from ${MTU_MIN} to ${MTU_MAX}`);
  }
  return { name, mtu, times: readTimers(values.timers) };
}

/** Executes this program again without what it does not need; returns where that is not needed or not possible. */
function reducePrivileges(): void {
  const excess = excessCapabilities(KEPT);
  if (excess.length > 0 && process.env[REDUCED] === undefined && process.execve) {
    if (dropFromBoundingSet(excess)) {
      const args = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
      process.execve(process.execPath, args, { ...process.env, [REDUCED]: '1' });
    }
  }
  delete process.env[REDUCED];
  const left = excessCapabilities(KEPT);
  if (left.length > 0) log.warn('Capabilities could not be reduced', { left });
  protectMemory();
}

function succeeded(what: string, result: number): number {
  if (result >= 0) return result;
  throw new Error(`Cannot ${what}: ${errnoName(result)}`);
}

function applyChange(device: Device, change: UapiChange): number {
  const { listenPort, mark, ...rest } = change;
  const { privateKey, replacePeers, peers } = rest;
  if (listenPort !== undefined) {
    const result = device.listen(listenPort);
    if (result < 0) return -result;
  }
  if (mark !== undefined) {
    const result = device.setMark(mark);
    if (result < 0) return -result;
  }
  device.configure({
    peers,
    ...(privateKey === undefined ? {} : { privateKey }),
    ...(replacePeers === undefined ? {} : { replacePeers }),
  });
  privateKey?.fill(0);
  for (const { presharedKey } of peers) presharedKey?.fill(0);
  return 0;
}

function uapiHandler(device: Device): UapiHandler {
  return {
    state: () => ({
      ...device.state(),
      listenPort: device.listenPort,
      mark: device.mark,
      traffic: (peer) => device.traffic(peer),
    }),
    set: (change) => applyChange(device, change),
  };
}

/** Starts a data thread; settles when it runs. */
function startThread(
  file: URL,
  data: ThreadData,
  onMessage: (message: ThreadMessage) => void,
  onFailure: (error: unknown) => void,
): Promise<Worker> {
  const worker = new Worker(file, {
    workerData: data,
  });
  return new Promise((resolve, reject) => {
    worker.on('error', (error) => {
      onFailure(error);
      reject(error);
    });
    worker.on('message', (message: ThreadMessage) => {
      if (message === 'ready') resolve(worker);
      else onMessage(message);
    });
  });
}

async function run({ name, mtu, times }: Options): Promise<void> {
  const memory = createSharedMemory(ARENA_PAGES);
  const { words } = openArena(memory);
  const tun = succeeded(`open TUN interface "${name}"`, openTun(name));
  const socket = openDatagramSocket(0, SOCKET_BUFFER_BYTES);
  if (typeof socket === 'number') throw new Error(`Cannot open a socket: ${errnoName(socket)}`);
  succeeded(`set the MTU of "${name}"`, writeMtu(socket.fd, name, mtu));
  words[MTU] = mtu;
  const links = succeeded('watch interfaces', openLinkWatch());
  const eventfds = [createEventfd(), createEventfd()] as const;
  const wake = (): void => {
    for (const eventfd of eventfds) signalEventfd(eventfd);
  };
  // Threads that wait in the kernel would keep the process from ending, also by an error.
  process.on('exit', () => {
    Atomics.store(words, STOP, 1);
    wake();
  });
  const device = new Device(memory, socket, wake, times);
  let server: Disposable | null = null;
  const end = (reason: string): void => {
    log.info('Device ended', { interface: name, reason, ...device.counts() });
    server?.[Symbol.dispose]();
    exitNow(0);
  };
  const onMessage = (message: ThreadMessage): void => {
    if (message === 'gone') end('interface removed');
    if (message === 'look') device.look();
    const now = readMtu(socket.fd, name);
    if (message === 'links' && now > 0) words[MTU] = now;
  };
  const fail = (error: unknown): never => {
    log.error('Data thread failed', { interface: name, error });
    server?.[Symbol.dispose]();
    exitNow(1);
  };
  const data = { memory, tun, udp: socket.fd, family: socket.family, links };
  const [sender] = await Promise.all([
    startThread(SEND_THREAD, { ...data, eventfd: eventfds[0] }, onMessage, fail),
    startThread(RECEIVE_THREAD, { ...data, eventfd: eventfds[1] }, onMessage, fail),
  ]);
  device.useSender(sender);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => end(signal));
  process.on('SIGHUP', () => log.info('Counters', { interface: name, ...device.counts() }));
  const path = `${UAPI_DIRECTORY}/${name}.sock`;
  server = await openUapi(path, uapiHandler(device), () => end('socket removed'));
  log.info('Device ready', { interface: name, mtu, port: socket.port });
}

try {
  const options = readOptions();
  reducePrivileges();
  await run(options);
} catch (error) {
  log.error(error instanceof Error ? error.message : String(error));
  process.exit(error instanceof RangeError ? EXIT_USAGE : 1);
}
