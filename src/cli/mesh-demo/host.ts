// A host of the mesh demo: its namespace, its directory with settings, key and routing.db, and the program's own commands on
// it, as somebody at its shell would give them.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ProxyError } from '../../base/errors.ts';
import { commandOutput } from './command.ts';
import type { Place } from './places.ts';

const MAIN = fileURLToPath(new URL('../../main.ts', import.meta.url));
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN];
const MESH_PORT = 51_820;
const STOP_MS_MAX = 10_000;
const LOG_LINES_SHOWN = 5;
/** The app of the listeners and the backends. */
export const APP = 'demo';
export const HTTP_PORT = 80;
export const ADMIN_PORT = 9090;

interface HostOptions {
  readonly place: Place;
  readonly namespace: string;
  /** That of the demo. */
  readonly directory: string;
  readonly interfaceName: string;
}

function tomlText(values: Readonly<Record<string, string | number | boolean>>): string {
  const lines = Object.entries(values).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  return `${lines.join('\n')}\n`;
}

export class DemoHost {
  readonly place: Place;
  readonly namespace: string;
  readonly directory: string;
  readonly #compileCache: string;
  /** Known from `mesh init` on. */
  publicKey = '';
  meshAddress = '';
  #child: ChildProcess | null = null;

  constructor({ place, namespace, directory, interfaceName }: HostOptions) {
    this.place = place;
    this.namespace = namespace;
    this.directory = join(directory, place.name);
    this.#compileCache = join(directory, 'compile-cache');
    mkdirSync(this.directory, { mode: 0o700 });
    const mesh = {
      db_path: join(this.directory, 'routing.db'),
      mesh_key_path: join(this.directory, 'mesh.key'),
      mesh_interface: interfaceName,
      mesh_endpoint: this.endpoint,
    };
    const proxy = {
      mesh_enabled: true,
      region: place.region,
      listen_addr: `${APP}@${place.address}:${HTTP_PORT}`,
      metrics_listen_addr: `127.0.0.1:${ADMIN_PORT}`,
      workers: 1,
      shutdown_timeout_secs: 1,
    };
    const settings = place.kind === 'pop' ? { ...mesh, ...proxy } : mesh;
    writeFileSync(this.settingsPath, tomlText(settings), { mode: 0o600 });
  }

  get settingsPath(): string {
    return join(this.directory, 'edgeproxy.toml');
  }

  get endpoint(): string {
    return `${this.place.address}:${MESH_PORT}`;
  }

  get #logPath(): string {
    return join(this.directory, 'run.log');
  }

  /** Nothing of the caller's own settings. Dozens of commands load the same modules: compiled once, they start faster. */
  get #environment(): NodeJS.ProcessEnv {
    return {
      PATH: process.env.PATH,
      EDGEPROXY_CONFIG: this.settingsPath,
      NODE_COMPILE_CACHE: this.#compileCache,
    };
  }

  get #wrapper(): string[] {
    return ['ip', 'netns', 'exec', this.namespace];
  }

  /** What `edgeproxy WORDS` says on this host. Throws ProxyError unless it ends with 0. */
  async edgeproxy(...words: readonly string[]): Promise<string> {
    const command = [...this.#wrapper, ...NODE, ...words];
    return await commandOutput(command, { env: this.#environment, directory: this.directory });
  }

  /** Starts `edgeproxy run`. */
  start(): void {
    const [program = '', ...args] = [...this.#wrapper, ...NODE, 'run'];
    const log = openSync(this.#logPath, 'a', 0o600);
    this.#child = spawn(program, args, {
      cwd: this.directory,
      env: this.#environment,
      stdio: ['ignore', log, log],
      detached: true,
    });
    this.#child.on('error', () => {});
    closeSync(log);
  }

  /** Throws ProxyError with the end of its log when `run` has ended. */
  checkRunning(): void {
    const child = this.#child;
    if (child === null || (child.exitCode === null && child.signalCode === null)) return;
    const end = readFileSync(this.#logPath, 'utf8').trim().split('\n').slice(-LOG_LINES_SHOWN);
    const how = child.signalCode ?? `exit code ${child.exitCode}`;
    const message = `"edgeproxy run" of ${this.place.name} ended with ${how}:\n${end.join('\n')}`;
    throw new ProxyError('ERR_DEMO_RUN', message);
  }

  /** Ends `run` in good order; what it leaves in its namespace is ended with that. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
    child.kill('SIGTERM');
    await ended;
    clearTimeout(timer);
  }
}
