// Starts and drives what a load measurement needs: the load backend, the load client, and edgeproxy itself with a routing
// database that names the backend. Used by bench/ and by test/allocation.test.ts.
// Every child ends with its owner: `close` of the LoadRun, or the end of this process.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { closeRoutingDb, initRoutingDb, openRoutingDb } from '../control/routing-db.ts';
import { addBackend } from '../control/routing-edit.ts';
import type { LoadPorts } from './load-backend.ts';
import type { LoadOrder, LoadReport } from './load-client.ts';
import type { WorkerHeap } from './load-heap.ts';

/** Addresses of the one backend: each is a row of routing.db, so that ports of the backend leg never run out. */
export const BACKEND_HOSTS = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4'] as const;
export const SERVICES = ['echo', 'source', 'sink'] as const;
export type Service = (typeof SERVICES)[number];

const PROGRAM = fileURLToPath(new URL('../../bin/edgeproxy', import.meta.url));
const START_MS = 10_000;
/** Below the ephemeral ports, so that no outgoing connection of the load sits on a chosen one. */
const PORT_FIRST = 20_000;
const PORT_COUNT = 12_000;

export interface Placement {
  /** CPU to stay on; any when left out. */
  readonly cpu?: number;
}

/** A proxy under load: one port per service. */
export interface LoadProxy {
  readonly name: string;
  readonly pid: number;
  readonly ports: Readonly<Record<Service, number>>;
  /** The workers' heaps, where the proxy is edgeproxy started with `watchHeap`. */
  heaps(): Promise<readonly WorkerHeap[]>;
  /** Has the main thread of such an edgeproxy collect its garbage, so that it does not later, amid a measurement. */
  collect(): Promise<void>;
}

export interface EdgeproxyOptions extends Placement {
  readonly engine?: 'uring' | 'epoll';
  readonly watchHeap?: boolean;
  readonly flags?: readonly string[];
}

/** An order with the parts that most measurements leave as they are. */
export type LoadRequest = Pick<LoadOrder, 'mode' | 'connections'> & Partial<LoadOrder>;

async function freePort(): Promise<number> {
  for (;;) {
    const port = PORT_FIRST + Math.floor(Math.random() * PORT_COUNT);
    const server = createServer();
    const free = new Promise<boolean>((resolve) => {
      server.once('listening', () => resolve(true)).once('error', () => resolve(false));
    });
    server.listen(port, '0.0.0.0');
    if (!(await free)) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export class LoadRun {
  readonly #children: ChildProcess[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), 'edgeproxy-load-'));
  readonly #killAll = (): void => this.#kill();
  #client: ChildProcess | null = null;
  #answers: AsyncIterator<string> | null = null;
  #ports: LoadPorts | null = null;

  private constructor() {
    process.once('exit', this.#killAll);
  }

  /** Starts backend and client. */
  static async start(placement: Placement = {}): Promise<LoadRun> {
    const run = new LoadRun();
    const helper = (name: string): ChildProcess =>
      run.spawn(process.execPath, [fileURLToPath(new URL(name, import.meta.url))], placement);
    const backend = helper('load-backend.ts');
    const first = await linesOf(backend)[Symbol.asyncIterator]().next();
    if (first.done) throw new Error('Cannot start the load backend: it ended at once');
    run.#ports = JSON.parse(first.value) as LoadPorts;
    run.#client = helper('load-client.ts');
    run.#answers = linesOf(run.#client)[Symbol.asyncIterator]();
    return run;
  }

  /** Starts `command` where `placement` says; killed by `close`, or by the kernel when this process dies. */
  spawn(
    command: string,
    args: readonly string[],
    placement: Placement,
    env: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const { cpu } = placement;
    const prefix = cpu === undefined ? [] : ['taskset', '-c', String(cpu)];
    const [file, ...rest] = [...prefix, command, ...args] as [string, ...string[]];
    const child = spawn(file, rest, {
      stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
      env: { ...process.env, ...env },
    });
    child.channel?.unref();
    this.#children.push(child);
    return child;
  }

  /** The backend's ports, by service. */
  get backendPorts(): LoadPorts {
    if (this.#ports === null) throw new Error('Cannot tell ports: the load backend is not started');
    return this.#ports;
  }

  async choosePorts(): Promise<Record<Service, number>> {
    return { echo: await freePort(), source: await freePort(), sink: await freePort() };
  }

  filePath(name: string): string {
    return join(this.#directory, name);
  }

  /** Resolves once every service of the proxy takes connections. */
  async whenReady(child: ChildProcess, ports: Readonly<Record<Service, number>>): Promise<void> {
    const deadline = Date.now() + START_MS;
    for (const port of Object.values(ports)) {
      while (!(await canConnect(port))) {
        if (child.exitCode !== null || Date.now() > deadline) {
          throw new Error(`Cannot start ${child.spawnargs.join(' ')}: nobody listens on ${port}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** edgeproxy with one worker, country data, bindings and the metrics listener: the whole path of a connection. */
  async startEdgeproxy(options: EdgeproxyOptions = {}): Promise<LoadProxy> {
    const dbPath = this.filePath(`routing-${this.#children.length}.db`);
    initRoutingDb(dbPath);
    const db = openRoutingDb(dbPath, { writable: true });
    for (const service of SERVICES) {
      for (const [index, address] of BACKEND_HOSTS.entries()) {
        const port = this.backendPorts[service];
        addBackend(db, { id: `${service}-${index}`, app: service, region: 'sa', address, port });
      }
    }
    closeRoutingDb(db);
    const ports = await this.choosePorts();
    const listen = SERVICES.map((service) => `${service}@127.0.0.1:${ports[service]}`).join(',');
    const metrics = `127.0.0.1:${await freePort()}`;
    const flags = [
      '--workers',
      '1',
      '--engine',
      options.engine ?? 'uring',
      '--log',
      'warn',
      '--db-path',
      dbPath,
    ];
    const heapModule = new URL('load-heap.ts', import.meta.url).href;
    const child = this.spawn(
      PROGRAM,
      [
        ...[
          'run',
          ...flags,
          '--health-check-enabled=false',
          '--listen-addr',
          listen,
          '--metrics-listen-addr',
          metrics,
        ],
        ...(options.flags ?? []),
      ],
      options,
      options.watchHeap ? { NODE_OPTIONS: `--import=${heapModule}` } : {},
    );
    await this.whenReady(child, ports);
    const ask = async (message: 'heaps' | 'collect'): Promise<readonly WorkerHeap[]> => {
      child.send(message);
      const [answer] = (await once(child, 'message')) as [readonly WorkerHeap[]];
      return answer;
    };
    return {
      name: 'edgeproxy',
      pid: child.pid as number,
      ports,
      heaps: () => ask('heaps'),
      collect: async () => {
        await ask('collect');
      },
    };
  }

  /** Has the client carry out one order against `proxy`. */
  async load(
    proxy: Pick<LoadProxy, 'name' | 'pid' | 'ports'>,
    request: LoadRequest,
  ): Promise<LoadReport> {
    const service: Service =
      request.mode === 'download' ? 'source' : request.mode === 'upload' ? 'sink' : 'echo';
    const order: LoadOrder = {
      port: proxy.ports[service],
      warmSeconds: 0,
      warmOperations: 0,
      seconds: 0,
      operations: 0,
      clients: 16_384,
      pids: [proxy.pid],
      ...request,
    };
    this.#client?.stdin?.write(`${JSON.stringify(order)}\n`);
    const answer = await this.#answers?.next();
    if (!answer || answer.done)
      throw new Error(`The load client failed while loading ${proxy.name}`);
    return JSON.parse(answer.value) as LoadReport;
  }

  async stop(proxy: LoadProxy): Promise<void> {
    const child = this.#children.find(({ pid }) => pid === proxy.pid);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }

  #kill(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Ends every process this run started. */
  close(): void {
    process.off('exit', this.#killAll);
    this.#kill();
  }
}

function linesOf(child: ChildProcess): Interface {
  if (!child.stdout) throw new Error('A child has no output to read');
  return createInterface(child.stdout);
}
