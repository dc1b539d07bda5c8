// A tunnel for tests of paths: wireguard-go at both ends, this one in the test's own network namespace, where the program
// under test adopts it, the other one on a host of its own. What can be done to the path is done to the datagrams outside of
// the tunnel, so that the proxy sees only what becomes of it inside.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initRoutingDb } from '../control/routing-db.ts';
import { generateKeyPair } from '../mesh/key.ts';
import { FaultHost, faultNetProblem } from './fault-net.ts';
import { attempt } from './netns.ts';
import { changeRouting } from './routing-file.ts';
import { until } from './wait.ts';

let scenes = 0;

/** Why tests of paths cannot run here, '' when they can. */
export function pathProblem(): string {
  if (process.getuid?.() !== 0) return 'a tunnel needs root';
  if (!existsSync('/dev/net/tun')) return 'a tunnel needs /dev/net/tun';
  for (const program of ['wg', 'wireguard-go']) {
    const problem = attempt('sh', ['-c', `command -v ${program}`]);
    if (problem !== '') return `Cannot run ${program}: it is not installed`;
  }
  return faultNetProblem();
}

function run(command: readonly string[]): string {
  const [program = '', ...args] = command;
  const result = spawnSync(program, args, { encoding: 'utf8' });
  if (result.status === 0) return result.stdout;
  throw new Error(`Cannot "${command.join(' ')}": ${result.stderr || result.error?.message}`);
}

export class PathScene implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'edgeproxy-path-'));
  readonly dbPath = join(this.directory, 'routing.db');
  readonly host = new FaultHost();
  readonly name: string;
  readonly #otherName: string;
  readonly #port: number;
  /** In the tunnel. */
  readonly address: string;
  readonly otherAddress: string;
  readonly #children: ChildProcess[] = [];

  constructor() {
    const number = ++scenes;
    this.name = `ep${process.pid}x${number}`;
    this.#otherName = `eq${process.pid}x${number}`;
    this.#port = 10_000 + ((process.pid * 8 + number) % 20_000);
    const net = `10.${64 + (process.pid % 64)}.${(process.pid >> 6) & 255}`;
    this.address = `${net}.${number * 4 + 1}`;
    this.otherAddress = `${net}.${number * 4 + 2}`;
  }

  #device(name: string, wrapper: readonly string[]): void {
    const [program = '', ...args] = [...wrapper, 'wireguard-go', name];
    const env = { ...process.env, WG_PROCESS_FOREGROUND: '1', LOG_LEVEL: 'error' };
    this.#children.push(spawn(program, args, { env, stdio: 'ignore' }));
  }

  /** Both ends are up, and the peer `far` is in the table. */
  async open(): Promise<this> {
    try {
      await this.#build();
      return this;
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const { name, host } = this;
    const [here, there] = [generateKeyPair(), generateKeyPair()];
    this.#device(name, []);
    this.#device(this.#otherName, host.wrapper);
    const isUp = (device: string) => existsSync(`/var/run/wireguard/${device}.sock`);
    await until('the devices', () => isUp(name) && isUp(this.#otherName));
    const keyFile = join(this.directory, 'other.key');
    writeFileSync(keyFile, there.privateKey, { mode: 0o600 });
    const other = [
      ['wg', 'set', this.#otherName, 'private-key', keyFile, 'listen-port', '51820'],
      ['wg', 'set', this.#otherName, 'peer', here.publicKey, 'allowed-ips', `${this.address}/32`],
      ['ip', 'addr', 'add', `${this.otherAddress}/32`, 'dev', this.#otherName],
      ['ip', 'link', 'set', this.#otherName, 'mtu', '1420', 'up'],
      ['ip', 'route', 'add', `${this.address}/32`, 'dev', this.#otherName],
    ];
    for (const command of other) run([...host.wrapper, ...command]);
    writeFileSync(join(this.directory, 'mesh.key'), `${here.privateKey}\n`, { mode: 0o600 });
    initRoutingDb(this.dbPath);
    changeRouting(
      this.dbPath,
      `INSERT INTO peers(id, kind, public_key, endpoint, allowed_ips)
       VALUES ('far', 'backend', '${there.publicKey}', '${host.address}:51820', '${this.otherAddress}/32')`,
    );
  }

  get settings(): Readonly<Record<string, string | number>> {
    return {
      MESH_ENABLED: 'true',
      MESH_INTERFACE: this.name,
      MESH_KEY_PATH: join(this.directory, 'mesh.key'),
      MESH_ADDRESS: this.address,
      MESH_LISTEN_PORT: this.#port,
      MESH_PROBE_INTERVAL_SECS: 0.1,
      MESH_DEAD_SECS: 1,
    };
  }

  /** What becomes of datagrams of the tunnel on both ways: `drop`, `numgen random mod 100 < 50 drop`. */
  spoil(verdict: string): void {
    for (const way of ['input', 'output']) {
      run([
        ...this.host.wrapper,
        ...`nft add rule inet ${way} faults udp sport 51820 ${verdict}`.split(' '),
      ]);
      run([
        ...this.host.wrapper,
        ...`nft add rule inet ${way} faults udp dport 51820 ${verdict}`.split(' '),
      ]);
    }
  }

  /** The other end answers no probe any more. */
  dropEcho(): void {
    const rule = 'nft add rule inet input faults icmp type echo-request drop';
    run([...this.host.wrapper, ...rule.split(' ')]);
  }

  /** The route of this end to the other one, as `ip` shows it. */
  route(): string {
    return run(['ip', 'route', 'get', this.otherAddress]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    attempt('ip', ['link', 'del', this.name]);
    attempt('ip', ['-n', this.host.wrapper[3] ?? '', 'link', 'del', this.#otherName]);
    for (const child of this.#children) {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGKILL');
        await ended;
      }
    }
    this.host[Symbol.dispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
