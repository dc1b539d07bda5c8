// Two hosts joined by a cable, each with a WireGuard interface: this project's userspace device or an independent one
// (wireguard-go), configured by wg(8). For tests of the device by itself; needs root and those programs.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, createServer, Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { connectSocket, openNonblockingSocket } from '../sys/epoll.ts';
import { EINPROGRESS } from '../sys/errno.ts';
import { inNamespace } from '../sys/netns.ts';
import { parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { openListener } from '../sys/socket.ts';
import { attempt } from './netns.ts';
import { until, within } from './wait.ts';

const DEVICE = fileURLToPath(new URL('../mesh/device/main.ts', import.meta.url));
const PORT = 51_820;
let netsMade = 0;

export type Implementation = 'ours' | 'wireguard-go';

function run(line: string, input = ''): string {
  const [program = '', ...args] = line.split(' ');
  const result = spawnSync(program, args, { encoding: 'utf8', input, timeout: 20_000 });
  if (result.status !== 0) {
    throw new Error(`Cannot "${line}": ${result.stderr || result.error?.message}`);
  }
  return result.stdout.trim();
}

/** Why these tests cannot run here, '' = they can. */
export function wireguardProblem(): string {
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  for (const program of ['wg', 'wireguard-go', 'ip', 'nft']) {
    const problem = attempt('which', [program]);
    if (problem !== '') return `needs ${program}`;
  }
  return '';
}

/** Whether somebody listens on this socket. To be asked before `wg` is: it removes a socket that does not listen yet. */
export function accepts(path: string): Promise<boolean> {
  const socket = connect(path);
  return new Promise<boolean>((resolve) => {
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
  }).finally(() => socket.destroy());
}

/** One end. */
export class WireguardHost {
  readonly namespace: string;
  readonly device: string;
  readonly privateKey = run('wg genkey');
  readonly publicKey = run('wg pubkey', this.privateKey);
  /** Of the cable and in the tunnel; index 0 = IPv4, 1 = IPv6. */
  readonly outer: readonly [string, string];
  readonly inner: readonly [string, string];
  readonly implementation: Implementation;
  readonly #timers: string | undefined;
  #process: ChildProcess | null = null;
  log = '';

  constructor(id: string, number: number, implementation: Implementation, timers?: object) {
    this.namespace = `${id}n${number}`;
    this.device = `${id}w${number}`;
    this.outer = [`10.97.0.${number}`, `fd97::${number}`];
    this.inner = [`10.96.0.${number}`, `fd96::${number}`];
    this.implementation = implementation;
    this.#timers = timers === undefined ? undefined : JSON.stringify(timers);
  }

  get socketPath(): string {
    return `/var/run/wireguard/${this.device}.sock`;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts the device and waits until it can be configured. */
  async start(): Promise<void> {
    const command =
      this.implementation === 'ours'
        ? [
            process.execPath,
            DEVICE,
            this.device,
            ...(this.#timers ? ['--timers', this.#timers] : []),
          ]
        : ['wireguard-go', this.device];
    this.#process = spawn('ip', ['netns', 'exec', this.namespace, ...command], {
      env: { ...process.env, WG_PROCESS_FOREGROUND: '1' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#process.stderr?.on('data', (chunk) => {
      this.log += chunk;
    });
    await until(`${this.device} to be ready: ${this.log}`, () => accepts(this.socketPath));
  }

  /** Addresses and routes, as an administrator would. */
  bringUp(): void {
    const [v4, v6] = this.inner;
    run(`ip -n ${this.namespace} addr add ${v4}/24 dev ${this.device}`);
    run(`ip -n ${this.namespace} addr add ${v6}/64 dev ${this.device} nodad`);
    run(`ip -n ${this.namespace} link set ${this.device} mtu 1420 up`);
  }

  /** `wg show dump` for this device. */
  wg(line: string): string {
    const [operation, ...rest] = line.split(' ');
    return run(['wg', operation, this.device, ...rest].join(' '));
  }

  /** Exit code when the process has ended. */
  async ended(): Promise<number | null> {
    const child = this.#process;
    if (child === null || child.exitCode !== null) return child?.exitCode ?? null;
    const [code] = await within(`${this.device} to end`, once(child, 'exit'));
    return code as number | null;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#process?.kill(signal);
  }

  /** Received and sent bytes, and the Unix time of the last handshake, of the only peer. */
  status(): { handshake: number; received: number; sent: number; endpoint: string } {
    const fields = this.wg('show dump').split('\n').at(-1)?.split('\t') ?? [];
    return {
      endpoint: fields[2] ?? '',
      handshake: Number(fields[4]),
      received: Number(fields[5]),
      sent: Number(fields[6]),
    };
  }

  /** Counters of our device, as it logs them on SIGHUP. */
  async counters(): Promise<Record<string, number>> {
    const before = this.log.length;
    this.kill('SIGHUP');
    const line = await until('the counters', () => {
      const text = this.log.slice(before).split('\n');
      return text.find((entry) => entry.includes('"Counters"') && entry.endsWith('}'));
    });
    return JSON.parse(line) as Record<string, number>;
  }
}

export interface NetOptions {
  readonly first: Implementation;
  readonly second: Implementation;
  /** Of the outer packets: 0 = IPv4, 1 = IPv6. */
  readonly outer?: 0 | 1;
  readonly timers?: object;
  readonly presharedKey?: string;
  /** Who knows the other's endpoint, and so begins. */
  readonly initiator?: 'first' | 'second' | 'both';
}

export class WireguardNet implements AsyncDisposable {
  readonly first: WireguardHost;
  readonly second: WireguardHost;
  readonly #options: NetOptions;

  constructor(options: NetOptions) {
    const id = `ed${process.pid}x${++netsMade}`;
    this.#options = options;
    this.first = new WireguardHost(id, 1, options.first, options.timers);
    this.second = new WireguardHost(id, 2, options.second, options.timers);
    const [a, b] = [this.first, this.second];
    run(`ip netns add ${a.namespace}`);
    run(`ip netns add ${b.namespace}`);
    run(`ip link add eth0 netns ${a.namespace} type veth peer name eth0 netns ${b.namespace}`);
    for (const { namespace, outer } of [a, b]) {
      run(`ip -n ${namespace} addr add ${outer[0]}/24 dev eth0`);
      run(`ip -n ${namespace} addr add ${outer[1]}/64 dev eth0 nodad`);
      run(`ip -n ${namespace} link set lo up`);
      run(`ip -n ${namespace} link set eth0 up`);
    }
  }

  /** Starts and configures both; `endpoints` replaces the addresses that they know each other by. */
  async start(endpoints: { first?: string; second?: string } = {}): Promise<this> {
    try {
      await this.#start(endpoints);
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
    return this;
  }

  async #start(endpoints: { first?: string; second?: string }): Promise<void> {
    const { outer = 0, initiator = 'first' } = this.#options;
    const at = ({ outer: addresses }: WireguardHost): string =>
      outer === 0 ? `${addresses[0]}:${PORT}` : `[${addresses[1]}]:${PORT}`;
    await Promise.all([this.first.start(), this.second.start()]);
    const knows = (who: 'first' | 'second'): boolean => initiator === 'both' || initiator === who;
    this.configure(
      this.first,
      this.second,
      knows('first') ? (endpoints.first ?? at(this.second)) : '',
    );
    this.configure(
      this.second,
      this.first,
      knows('second') ? (endpoints.second ?? at(this.first)) : '',
    );
    this.first.bringUp();
    this.second.bringUp();
  }

  configure(host: WireguardHost, peer: WireguardHost, endpoint: string): void {
    const { presharedKey } = this.#options;
    const lines = [
      '[Interface]',
      `PrivateKey=${host.privateKey}`,
      `ListenPort=${PORT}`,
      '[Peer]',
      `PublicKey=${peer.publicKey}`,
      `AllowedIPs=${peer.inner[0]}/32,${peer.inner[1]}/128`,
      ...(endpoint === '' ? [] : [`Endpoint=${endpoint}`]),
      ...(presharedKey === undefined ? [] : [`PresharedKey=${presharedKey}`]),
    ];
    // wg(8) opens /dev/stdin by name, which a pipe allows and a socket does not.
    const args = ['-c', `cat | wg syncconf ${host.device} /dev/stdin`];
    const result = spawnSync('sh', args, { encoding: 'utf8', input: `${lines.join('\n')}\n` });
    if (result.status !== 0) throw new Error(`Cannot configure ${host.device}: ${result.stderr}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of [this.first, this.second]) {
      attempt('ip', ['-n', host.namespace, 'link', 'del', host.device]);
      host.kill('SIGTERM');
      await host.ended().catch(() => host.kill());
      attempt('ip', ['netns', 'del', host.namespace]);
    }
  }
}

function addressOf(text: string, port: number): SocketAddress {
  const parsed = parseAddress(text);
  if (parsed === null) throw new Error(`No address: ${text}`);
  return { ...parsed, port };
}

/** Sends `bytes` random bytes by TCP through the tunnel and fails unless just these arrive. */
export async function transfer(
  from: WireguardHost,
  to: WireguardHost,
  family: 0 | 1,
  bytes: number,
): Promise<void> {
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const address = addressOf(to.inner[family], port);
  const options = { backlog: 4, fastOpenQueue: 0, reusePort: false, v6Only: true };
  const listener = inNamespace(to.namespace, () => openListener(address, options));
  if (listener < 0) throw new Error(`Cannot listen on ${to.inner[family]}: errno ${-listener}`);
  const server = createServer();
  const received = new Promise<string>((resolve, reject) => {
    server.once('connection', (socket) => {
      const hash = createHash('sha256');
      socket.on('data', (chunk) => hash.update(chunk));
      socket.on('error', reject);
      socket.on('end', () => resolve(hash.digest('hex')));
    });
  });
  server.listen({ fd: listener });
  const fd = inNamespace(from.namespace, () => openNonblockingSocket(address.family));
  const words = Uint32Array.from(address.words);
  const result = connectSocket(fd, address.family, words, 0, port);
  if (result !== -EINPROGRESS)
    throw new Error(`Cannot connect through the tunnel: errno ${-result}`);
  const content = randomBytes(bytes);
  const client = new Socket({ fd, readable: true, writable: true });
  client.on('error', () => {});
  client.end(content);
  try {
    const hash = await within(`${bytes} bytes to arrive`, received, 20_000);
    const sent = createHash('sha256').update(content).digest('hex');
    if (hash !== sent) throw new Error(`What arrived is not what was sent: ${hash}, ${sent}`);
  } finally {
    client.destroy();
    server.close();
  }
}

/** Pings once through the tunnel; whether an answer came. */
export function ping(from: WireguardHost, to: WireguardHost, waitSecs = 1): boolean {
  const args = ['netns', 'exec', from.namespace, 'ping', '-c', '1', '-W', String(waitSecs)];
  return attempt('ip', [...args, to.inner[0]]) === '';
}
