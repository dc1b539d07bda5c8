// A mesh for tests: this end is the program under test in the test's own network namespace, the other end is a host of its
// own with wg-quick and whatever WireGuard that finds (wireguard-go where the kernel has none). Interface names are unique:
// the sockets of userspace devices are in one folder for all namespaces.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { initRoutingDb } from '../control/routing-db.ts';
import { FaultHost, faultNetProblem } from './fault-net.ts';
import { attempt } from './netns.ts';
import { ProxyProcess } from './proxy-process.ts';

const EDGEPROXY = fileURLToPath(new URL('../../bin/edgeproxy', import.meta.url));
let scenes = 0;
type Settings = Readonly<Record<string, string | number>>;

export interface Said {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Why tests of the mesh cannot run here, '' when they can. */
export function meshProblem(): string {
  if (process.getuid?.() !== 0) return 'a mesh needs root';
  if (!existsSync('/dev/net/tun')) return 'a mesh needs /dev/net/tun';
  for (const [program, ...args] of [
    ['wg', '--version'],
    ['wg-quick', '--help'],
    ['ip', '-V'],
  ]) {
    const problem = attempt(program as string, args);
    if (problem !== '') return `Cannot run ${program}: ${problem}`;
  }
  return faultNetProblem();
}

export class MeshScene implements AsyncDisposable {
  readonly #proxies: ProxyProcess[] = [];
  readonly directory = mkdtempSync(join(tmpdir(), 'edgeproxy-mesh-'));
  readonly dbPath = join(this.directory, 'routing.db');
  readonly keyPath = join(this.directory, 'mesh.key');
  readonly host = new FaultHost();
  /** Of this end and of the other one. */
  readonly name: string;
  readonly otherName: string;
  readonly port: number;
  /** Addresses of the other end in the tunnel; '' before join(). */
  otherAddress = '';
  otherAddress6 = '';

  constructor() {
    const number = ++scenes;
    this.name = `em${process.pid}x${number}`;
    this.otherName = `eo${process.pid}x${number}`;
    // Below the range of local ports, another one for each test process.
    this.port = 10_000 + ((process.pid * 8 + number) % 20_000);
    initRoutingDb(this.dbPath);
  }

  get settings(): Settings {
    return {
      DB_PATH: this.dbPath,
      MESH_INTERFACE: this.name,
      MESH_KEY_PATH: this.keyPath,
      MESH_LISTEN_PORT: this.port,
      MESH_ENDPOINT: `${this.host.gateway}:${this.port}`,
    };
  }

  /** `run` with the mesh, not awaited. */
  open(settings: Settings = {}, wrapper: readonly string[] = []): ProxyProcess {
    const proxy = new ProxyProcess({
      directory: this.directory,
      settings: { ...this.settings, WORKERS: 1, MESH_ENABLED: 'true', ...settings },
      wrapper,
    });
    this.#proxies.push(proxy);
    return proxy;
  }

  /** The same once it listens. */
  async start(settings: Settings = {}): Promise<ProxyProcess> {
    return await this.open(settings).listening();
  }

  /** Runs a command of the program to its end. */
  call(line: string, wrapper: readonly string[] = []): Said {
    const [command = '', ...args] = [...wrapper, EDGEPROXY, ...line.split(' ')];
    const env = Object.entries(this.settings).map(([key, value]) => [
      `EDGEPROXY_${key}`,
      `${value}`,
    ]);
    return spawnSync(command, args, {
      cwd: this.directory,
      env: { PATH: process.env.PATH, ...Object.fromEntries(env) },
      encoding: 'utf8',
      timeout: 30_000,
    });
  }

  /** Its output; throws unless it ends with 0. */
  ok(line: string): string {
    const { status, stdout, stderr } = this.call(line);
    if (status !== 0) throw new Error(`${line} ended with ${status}: ${stderr}`);
    return stdout;
  }

  /** Brings the other end up by the file that `mesh peer add --generate-key` or `mesh export` has printed. */
  join(file: string): void {
    const path = join(this.directory, `${this.otherName}.conf`);
    writeFileSync(path, file, { mode: 0o600 });
    const [v4 = '', v6 = ''] = (/^Address = (.*)$/m.exec(file)?.[1] ?? '').split(', ');
    this.otherAddress = v4.replace('/32', '');
    this.otherAddress6 = v6.replace('/128', '');
    const problem = this.onHost('wg-quick', 'up', path);
    if (problem !== '') throw new Error(`Cannot bring the other end up: ${problem}`);
  }

  /** Runs a program on the other end; '' or what went wrong. */
  onHost(...command: readonly string[]): string {
    const [program = '', ...args] = [...this.host.wrapper, ...command];
    return attempt(program, args);
  }

  /** '' when the other end answers through the tunnel. */
  ping(address = this.otherAddress): string {
    const { status, stdout } = spawnSync('ping', ['-c', '1', '-W', '5', address], {
      encoding: 'utf8',
    });
    return status === 0 ? '' : stdout;
  }

  /** What `ip` says, with its exit code ignored. */
  ip(line: string): string {
    return spawnSync('ip', line.split(' '), { encoding: 'utf8' }).stdout;
  }

  /** The userspace device of this end, 0 when there is none. */
  devicePid(): number {
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        const isDevice = words.some((word) => /device\/main\.ts$|wireguard-go$/.test(word));
        if (isDevice && words.includes(this.name)) return Number(pid);
      } catch {
        // It has ended between the two looks.
      }
    }
    return 0;
  }

  /** Whether anything of this end's interface is left: link, routes, socket. */
  remains(): string[] {
    return [
      this.ip(`link show dev ${this.name}`),
      this.ip(`route show dev ${this.name}`),
      this.ip(`-6 route show dev ${this.name}`),
      existsSync(`/var/run/wireguard/${this.name}.sock`) ? 'the UAPI socket' : '',
    ].filter((text) => text !== '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const proxy of this.#proxies) if (proxy.exit === null) proxy.signal('SIGKILL');
    this.onHost('ip', 'link', 'del', this.otherName);
    attempt('ip', ['link', 'del', this.name]);
    // A device has the standard error of the proxy that made it: only now nobody has.
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
    this.host[Symbol.dispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
