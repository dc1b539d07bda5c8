// The real proxy for tests: `bin/edgeproxy run` as its own process with a directory, a routing.db and free ports of its
// own. Tests see what an operator sees: log lines, metrics, the exit code, and the process in /proc.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { Metrics } from './metrics-text.ts';
import { type BackendRow, changeRouting, writeRouting } from './routing-file.ts';
import { until, untilStill, within } from './wait.ts';

const BIN = fileURLToPath(new URL('../../bin/edgeproxy', import.meta.url));

/** The engine the suite runs on: all of it runs once per engine. */
export const TEST_ENGINE = process.env.EDGEPROXY_TEST_ENGINE ?? 'auto';
/** What node:net cannot do, as the reason to skip a test; false for the other engines. */
export const NOT_PORTABLE =
  TEST_ENGINE === 'portable' &&
  'node:net can neither splice, nor leave connections in the queue, nor set TCP_USER_TIMEOUT';

export interface ProxyOptions {
  readonly backends?: readonly BackendRow[];
  /** Settings by their name without the prefix: `{ WORKERS: 1 }`. */
  readonly settings?: Readonly<Record<string, string | number>>;
  /** A program and arguments that run the command: `['prlimit', '--nofile=64', '--']`. */
  readonly wrapper?: readonly string[];
  /** Descriptors of this process that the proxy gets as 3, 4, … */
  readonly descriptors?: readonly number[];
  /** Standard output is read: `sessions` are its lines. */
  readonly readsOutput?: boolean;
  /** Another edgeproxy than the one of this checkout. */
  readonly program?: string;
  /** An existing directory to use and keep. */
  readonly directory?: string;
}

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `1.2.3.4:80`, `[::1]:80` or `app@…` as the log has them; a wildcard becomes the loopback address. */
export function toHostPort(text: string): HostPort {
  const match = /^(?:.*@)?(?:\[(.*)\]|(.*)):(\d+)$/.exec(text);
  if (match === null) throw new Error(`Cannot read address ${text}`);
  const host = (match[1] ?? match[2]) as string;
  const loopback: Record<string, string> = { '0.0.0.0': '127.0.0.1', '::': '::1' };
  return { host: loopback[host] ?? host, port: Number(match[3]) };
}

function httpText(at: HostPort, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ ...at, path, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    request.on('error', reject);
  });
}

export class ProxyProcess implements AsyncDisposable {
  readonly directory: string;
  readonly dbPath: string;
  readonly logs: LogLine[] = [];
  /** The session log, with `readsOutput`. */
  readonly sessions: LogLine[] = [];
  readonly exited: Promise<Exit>;
  /** Standard error that was no JSON: a crash report, a usage error. */
  stderrText = '';
  exit: Exit | null = null;
  /** Listening addresses in the order of the setting. */
  addresses: HostPort[] = [];
  admin: HostPort | null = null;
  readonly #child: ChildProcess;
  readonly #ownsDirectory: boolean;

  constructor(options: ProxyOptions) {
    this.#ownsDirectory = options.directory === undefined;
    this.directory = options.directory ?? mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
    this.dbPath = join(this.directory, 'routing.db');
    if (options.backends !== undefined) writeRouting(this.dbPath, options.backends);
    const settings = {
      LISTEN_ADDR: '127.0.0.1:0',
      METRICS_LISTEN_ADDR: '127.0.0.1:0',
      WORKERS: 2,
      CLIENT_TABLE_SIZE: 20_000,
      // Tests count the connections of their backends: only those of clients.
      HEALTH_CHECK_ENABLED: 'false',
      // Nor may a backend that a test breaks be ejected; tests of the breaker switch it on.
      CIRCUIT_FAILURE_THRESHOLD: 0,
      // The whole suite runs once per engine: tools/test.ts sets it.
      ENGINE: TEST_ENGINE,
      DB_PATH: this.dbPath,
      ...options.settings,
    };
    const env = Object.fromEntries(
      Object.entries(settings).map(([name, value]) => [`EDGEPROXY_${name}`, String(value)]),
    );
    const program = options.program ?? BIN;
    const [command = program, ...args] = [...(options.wrapper ?? []), program, 'run'];
    this.#child = spawn(command, args, {
      cwd: this.directory,
      env: { PATH: process.env.PATH, ...env },
      stdio: [
        'ignore',
        options.readsOutput ? 'pipe' : 'ignore',
        'pipe',
        ...(options.descriptors ?? []),
      ],
    });
    this.#readLogs();
    this.#readLines(this.#child.stdout, (line) => this.sessions.push(JSON.parse(line) as LogLine));
    this.exited = new Promise((resolve, reject) => {
      this.#child.on('error', reject);
      // Not `exit`: the last log lines must have been read.
      this.#child.on('close', (code, signal) => {
        this.exit = { code, signal };
        resolve(this.exit);
      });
    });
  }

  #readLogs(): void {
    this.#readLines(this.#child.stderr, (line) => {
      if (line.startsWith('{')) this.logs.push(JSON.parse(line) as LogLine);
      else this.stderrText += `${line}\n`;
    });
  }

  #readLines(stream: Readable | null, take: (line: string) => void): void {
    let rest = '';
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() as string;
      lines.forEach(take);
    });
  }

  /** The process of the proxy itself: wrappers and the launcher replace themselves by it. */
  get pid(): number {
    return this.#child.pid as number;
  }

  get address(): HostPort {
    return this.addresses[0] as HostPort;
  }

  /** Waits until it listens; fails with what it said when it ends instead. */
  async listening(): Promise<this> {
    const line = await until('the proxy to listen', () => this.log('Listening') ?? this.exit);
    if (!('message' in line)) {
      throw new Error(`The proxy ended: ${JSON.stringify(this.logs)} ${this.stderrText}`);
    }
    this.addresses = (line.addresses as string[]).map(toHostPort);
    this.admin = line.admin === 'off' ? null : toHostPort(line.admin as string);
    return this;
  }

  /** The first line with this message, from line `from` on. */
  log(message: string, from = 0): LogLine | undefined {
    return this.logs.slice(from).find((line) => line.message === message);
  }

  untilLog(message: string, from = 0): Promise<LogLine> {
    return until(`the log line "${message}"`, () => this.log(message, from));
  }

  async page(path: string): Promise<{ status: number; text: string }> {
    if (this.admin === null) throw new Error('This proxy has no admin address');
    return httpText(this.admin, path);
  }

  async metrics(): Promise<Metrics> {
    return new Metrics((await this.page('/metrics')).text);
  }

  /** Waits until a metric is `value`, and returns all metrics of that moment. */
  async untilMetric(
    name: string,
    value: number,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<Metrics> {
    let last = Number.NaN;
    const what = (): string => `${name} ${JSON.stringify(labels)} to be ${value}, is ${last}`;
    try {
      return await until('', async () => {
        const metrics = await this.metrics();
        last = metrics.get(name, labels);
        return last === value ? metrics : null;
      });
    } catch (error) {
      throw new Error(`Waited in vain for ${what()}`, { cause: error });
    }
  }

  /** Changes routing.db in one commit and waits until the new version is in use by the control plane. */
  async reroute(change: string | readonly BackendRow[]): Promise<void> {
    const before = (await this.metrics()).get('edge_routing_version');
    if (typeof change === 'string') changeRouting(this.dbPath, change);
    else writeRouting(this.dbPath, change);
    await until('the new routing version', async () => {
      return (await this.metrics()).get('edge_routing_version') > before;
    });
  }

  /** Open descriptors of the process, by what they are (`socket`, `pipe`, `anon_inode:[eventfd]`, a path). */
  descriptors(): Record<string, number> {
    const folder = `/proc/${this.pid}/fd`;
    const counts: Record<string, number> = {};
    for (const name of readdirSync(folder)) {
      let target: string;
      try {
        target = readlinkSync(join(folder, name)).replace(/:\[\d+\]$/, '');
      } catch {
        continue;
      }
      counts[target] = (counts[target] ?? 0) + 1;
    }
    return counts;
  }

  /** The same once they no longer change: connections that tests made take a moment to be closed. */
  async settledDescriptors(): Promise<Record<string, number>> {
    await untilStill('descriptors to settle', () =>
      Object.values(this.descriptors()).reduce((sum, count) => sum + count, 0),
    );
    return this.descriptors();
  }

  /** Waits until exactly these descriptors are open; a connection to the admin page takes a moment to be closed. */
  async untilDescriptors(expected: Readonly<Record<string, number>>): Promise<void> {
    let open = {};
    try {
      await until('', () => {
        open = this.descriptors();
        return isDeepStrictEqual(open, expected);
      });
    } catch {
      const [now, wanted] = [JSON.stringify(open), JSON.stringify(expected)];
      throw new Error(`Descriptors leak: ${now} are open, ${wanted} were expected`);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    this.signal(signal);
    return within('the proxy to end', this.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.exit === null) this.#child.kill('SIGKILL');
    await this.exited.catch(() => {});
    if (this.#ownsDirectory) rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Starts the proxy and waits until it listens. */
export async function startProxy(options: ProxyOptions): Promise<ProxyProcess> {
  const proxy = new ProxyProcess(options);
  try {
    return await proxy.listening();
  } catch (error) {
    await proxy[Symbol.asyncDispose]();
    throw error;
  }
}

/** Every accepted connection is rejected, open, or ended: checked on one reading of the metrics. */
export function connectionsBalance(metrics: Metrics): { accepted: number; accounted: number } {
  return {
    accepted: metrics.get('edge_connections_total'),
    accounted:
      metrics.get('edge_session_end_total') +
      metrics.get('edge_rejected_total') +
      metrics.get('edge_connections_current'),
  };
}
