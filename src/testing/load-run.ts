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
import type { LoadPorts } from './load-backend.ts';
import type { LoadOrder, LoadReport } from './load-client.ts';
import type { WorkerHeap } from './load-heap.ts';
import { type BackendRow, writeRouting } from './routing-file.ts';

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
  /** Limit of open files; the one of this process when left out. */
  readonly descriptors?: number;
}

export interface LoadPlacement extends Placement {
  /** CPU of the backend, when not that of the load clients. */
  readonly backendCpu?: number;
}

/** What starts a proxy, and where it will listen. */
export interface PreparedProxy {
  readonly command: string;
  readonly args: readonly string[];
  readonly ports: Readonly<Record<Service, number>>;
}

interface PreparedEdgeproxy extends PreparedProxy {
  readonly dbPath: string;
  readonly metricsPort: number;
}

/** A proxy under load: one port per service. */
export interface LoadProxy {
  readonly name: string;
  /** 0 where there is none: the load backend itself. */
  readonly pid: number;
  readonly ports: Readonly<Record<Service, number>>;
}

export interface EdgeproxyOptions extends Placement {
  readonly engine?: 'uring' | 'epoll';
  readonly watchHeap?: boolean;
  readonly flags?: readonly string[];
  /** Rows of routing.db; the four addresses of the load backend when left out. */
  readonly backends?: readonly BackendRow[];
}

/** edgeproxy under load, with what an operator has besides: its database and its metrics. */
export interface EdgeproxyUnderLoad extends LoadProxy {
  /** The workers' heaps; needs `watchHeap`. */
  heaps(): Promise<readonly WorkerHeap[]>;
  readonly dbPath: string;
  readonly metricsPort: number;
}

/** An order with the parts that most measurements leave as they are. */
export type LoadRequest = Pick<LoadOrder, 'mode' | 'connections'> & Partial<LoadOrder>;

const SERVICE_OF_MODE: Readonly<Record<string, Service>> = {
  download: 'source',
  // A source reads and drops what it gets.
  both: 'source',
  upload: 'sink',
};

interface LoadClient {
  readonly child: ChildProcess;
  readonly answers: AsyncIterator<string>;
}

function helperPath(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

export async function freePort(): Promise<number> {
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
  readonly #placement: LoadPlacement;
  #client: LoadClient | null = null;
  /** Carries out paced orders, for which it never sleeps; started with the first of them. */
  #pacedClient: LoadClient | null = null;
  #ports: LoadPorts | null = null;

  private constructor(placement: LoadPlacement) {
    this.#placement = placement;
    process.once('exit', this.#killAll);
  }

  /** Starts backend and client. */
  static async start(placement: LoadPlacement = {}): Promise<LoadRun> {
    const run = new LoadRun(placement);
    const { backendCpu = placement.cpu } = placement;
    const at = backendCpu === undefined ? placement : { ...placement, cpu: backendCpu };
    const backend = run.spawn(process.execPath, [helperPath('load-backend.ts')], at);
    const first = await linesOf(backend)[Symbol.asyncIterator]().next();
    if (first.done) throw new Error('Cannot start the load backend: it ended at once');
    run.#ports = JSON.parse(first.value) as LoadPorts;
    run.#client = run.#startClient([]);
    return run;
  }

  #startClient(prefix: readonly string[]): LoadClient {
    const [command, ...args] = [...prefix, process.execPath, helperPath('load-client.ts')];
    const child = this.spawn(command as string, args, this.#placement);
    return { child, answers: linesOf(child)[Symbol.asyncIterator]() };
  }

  #clientFor(mode: LoadOrder['mode']): LoadClient | null {
    if (mode !== 'paced') return this.#client;
    this.#pacedClient ??= this.#startClient(['chrt', '--idle', '0']);
    return this.#pacedClient;
  }

  /** Starts `command` where `placement` says; killed by `close`, or by the kernel when this process dies. */
  spawn(
    command: string,
    args: readonly string[],
    placement: Placement,
    env: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const { cpu, descriptors } = placement;
    const prefix = [
      ...['setpriv', '--pdeathsig', 'KILL', '--'],
      ...(descriptors === undefined ? [] : ['prlimit', `--nofile=${descriptors}`, '--']),
      ...(cpu === undefined ? [] : ['taskset', '-c', String(cpu)]),
    ];
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

  /** Every address of the load backend, as backend of every service. */
  backendRows(): BackendRow[] {
    return SERVICES.flatMap((app) =>
      BACKEND_HOSTS.map((address, index) => {
        return { id: `${app}-${index}`, app, address, port: this.backendPorts[app] };
      }),
    );
  }

  /** The command of edgeproxy with one worker, country data, bindings and the metrics listener: the whole path. */
  async prepareEdgeproxy(options: EdgeproxyOptions = {}): Promise<PreparedEdgeproxy> {
    const ports = await this.choosePorts();
    const dbPath = this.filePath(`routing-${ports.echo}.db`);
    writeRouting(dbPath, options.backends ?? this.backendRows());
    const listen = SERVICES.map((service) => `${service}@127.0.0.1:${ports[service]}`).join(',');
    const metricsPort = await freePort();
    const flags = [
      ...['--workers', '1', '--engine', options.engine ?? 'uring', '--log', 'warn'],
      ...['--health-check-enabled=false', '--db-path', dbPath, '--listen-addr', listen],
      ...['--metrics-listen-addr', `127.0.0.1:${metricsPort}`],
    ];
    return {
      command: PROGRAM,
      args: ['run', ...flags, ...(options.flags ?? [])],
      ports,
      dbPath,
      metricsPort,
    };
  }

  async startEdgeproxy(options: EdgeproxyOptions = {}): Promise<EdgeproxyUnderLoad> {
    const { command, args, ports, dbPath, metricsPort } = await this.prepareEdgeproxy(options);
    const heapModule = new URL('load-heap.ts', import.meta.url).href;
    const env = options.watchHeap ? { NODE_OPTIONS: `--import=${heapModule}` } : {};
    const child = this.spawn(command, args, options, env);
    await this.whenReady(child, ports);
    const heaps = async (): Promise<readonly WorkerHeap[]> => {
      child.send('heaps');
      const [answer] = (await once(child, 'message')) as [readonly WorkerHeap[]];
      return answer;
    };
    return {
      name: 'edgeproxy',
      pid: child.pid as number,
      ports,
      dbPath,
      metricsPort,
      heaps,
    };
  }

  /** Has the client carry out one order against `proxy`. */
  async load(
    proxy: Pick<LoadProxy, 'name' | 'pid' | 'ports'>,
    request: LoadRequest,
  ): Promise<LoadReport> {
    const order: LoadOrder = {
      port: proxy.ports[SERVICE_OF_MODE[request.mode] ?? 'echo'],
      warmSeconds: 0,
      warmOperations: 0,
      seconds: 0,
      operations: 0,
      clients: 16_384,
      rate: 0,
      pids: proxy.pid === 0 ? [] : [proxy.pid],
      ...request,
    };
    const client = this.#clientFor(order.mode);
    client?.child.stdin?.write(`${JSON.stringify(order)}\n`);
    const answer = await client?.answers.next();
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
