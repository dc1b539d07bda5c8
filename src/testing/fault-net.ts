// Hosts of their own for fault tests: each is a network namespace joined to the test's by a veth pair, with backends and
// clients whose sockets are in there although their code runs in the test. A host can be cut off (packets vanish, one way
// or both), unplugged, slowed down or made lossy, and healed: real partitions, as the kernel's TCP sees them.

import { Socket } from 'node:net';
import { connectSocket, openNonblockingSocket } from '../sys/epoll.ts';
import { inNamespace } from '../sys/netns.ts';
import { parseAddress } from '../sys/sockaddr.ts';
import { closeDescriptor, openListener, openSocket } from '../sys/socket.ts';
import { attempt } from './netns.ts';
import type { HostPort } from './proxy-process.ts';
import { type ConnectionHandler, serveDescriptor, type TestBackend } from './test-backends.ts';

const BACKLOG = 4096;
let hostsMade = 0;

function run(program: string, line: string): void {
  const problem = attempt(program, line.split(' '));
  if (problem !== '') throw new Error(`Cannot "${program} ${line}": ${problem}`);
}

/** What a fault does to the packets of one way: `drop`, or `numgen random mod 100 < 5 drop`. */
type Verdict = string;

export class FaultHost implements Disposable {
  readonly address: string;
  /** The test's own end of the cable. */
  readonly gateway: string;
  readonly #namespace: string;
  readonly #device: string;

  constructor() {
    const number = ++hostsMade;
    const id = `ef${process.pid}x${number}`;
    this.#namespace = id;
    this.#device = `${id}a`;
    // A /30 of its own: tests run side by side, each its own process.
    const net = `10.${128 + (process.pid % 64)}.${(process.pid >> 6) & 255}`;
    this.gateway = `${net}.${number * 4 + 1}`;
    this.address = `${net}.${number * 4 + 2}`;
    try {
      this.#build();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #build(): void {
    const [name, device] = [this.#namespace, this.#device];
    run('ip', `netns add ${name}`);
    run('ip', `link add ${device} type veth peer name eth0 netns ${name}`);
    run('ip', `addr add ${this.gateway}/30 dev ${device}`);
    run('ip', `link set ${device} up`);
    run('ip', `-n ${name} addr add ${this.address}/30 dev eth0`);
    run('ip', `-n ${name} link set lo up`);
    run('ip', `-n ${name} link set eth0 up`);
    run('ip', `-n ${name} route add default via ${this.gateway}`);
    for (const way of ['input', 'output']) {
      this.#nft(`add table inet ${way}`);
      this.#nft(`add chain inet ${way} faults { type filter hook ${way} priority 0 ; }`);
    }
  }

  #nft(line: string): void {
    run('ip', `netns exec ${this.#namespace} nft ${line}`);
  }

  #filter(way: 'input' | 'output', verdict: Verdict): void {
    this.#nft(`add rule inet ${way} faults meta l4proto tcp ${verdict}`);
  }

  /** Goes before a command that is to run on this host. */
  get wrapper(): readonly string[] {
    return ['ip', 'netns', 'exec', this.#namespace];
  }

  /** A backend that listens on this host. */
  serve(handler: ConnectionHandler, port = 0, address = this.address): Promise<TestBackend> {
    const parsed = parseAddress(address);
    const options = { backlog: BACKLOG, fastOpenQueue: 0, reusePort: false, v6Only: true };
    const fd = inNamespace(this.#namespace, () =>
      parsed === null ? -1 : openListener({ ...parsed, port }, options),
    );
    if (fd < 0) throw new Error(`Cannot listen on ${address}:${port}: errno ${-fd}`);
    return serveDescriptor(handler, fd);
  }

  /** A client on this host; the path must be whole. */
  connect({ host, port }: HostPort): Socket {
    const words = Uint32Array.from(parseAddress(host)?.words ?? []);
    const fd = inNamespace(this.#namespace, () => openSocket(4));
    const result = connectSocket(fd, 4, words, 0, port);
    if (result < 0) throw new Error(`Cannot connect to ${host}:${port}: errno ${-result}`);
    const socket = new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
    socket.on('error', () => {});
    return socket;
  }

  /** TCP packets to the host vanish, from it, or both: no answer, no error. */
  cut(ways: 'to' | 'from' | 'both' = 'both'): void {
    if (ways !== 'from') this.#filter('input', 'drop');
    if (ways !== 'to') this.#filter('output', 'drop');
  }

  /** A part of the packets of both ways vanishes. */
  loose(percent: number): void {
    for (const way of ['input', 'output'] as const) {
      this.#filter(way, `numgen random mod 100 < ${percent} drop`);
    }
  }

  /** The host answers connects with an ICMP error (a firewall's REJECT). */
  reject(): void {
    this.#filter('input', 'reject with icmpx type host-unreachable');
  }

  /** Handshakes with this host as the client are never finished: its bare ACKs vanish. */
  dropAcks(): void {
    this.#filter('output', 'tcp flags & (syn | ack) == ack drop');
  }

  /** Begins `count` connections and waits for none; the result closes them. */
  begin({ host, port }: HostPort, count: number): () => void {
    const words = Uint32Array.from(parseAddress(host)?.words ?? []);
    const sockets = inNamespace(this.#namespace, () =>
      Array.from({ length: count }, () => openNonblockingSocket(4)),
    );
    for (const socket of sockets) connectSocket(socket, 4, words, 0, port);
    return () => {
      for (const socket of sockets) closeDescriptor(socket);
    };
  }

  /** Both ways at this rate: `2mbit`. */
  slow(rate: string): void {
    const shape = `root tbf rate ${rate} burst 16kbit latency 200ms`;
    run('tc', `qdisc replace dev ${this.#device} ${shape}`);
    run('tc', `-n ${this.#namespace} qdisc replace dev eth0 ${shape}`);
  }

  /** The cable is out, or in again. */
  plug(isIn: boolean): void {
    run('ip', `-n ${this.#namespace} link set eth0 ${isIn ? 'up' : 'down'}`);
    if (isIn) run('ip', `-n ${this.#namespace} route replace default via ${this.gateway}`);
  }

  /** Ends what cut(), loose() and reject() began. */
  heal(): void {
    for (const way of ['input', 'output']) this.#nft(`flush chain inet ${way} faults`);
  }

  [Symbol.dispose](): void {
    attempt('ip', ['link', 'del', this.#device]);
    attempt('ip', ['netns', 'del', this.#namespace]);
  }
}

/** Why fault tests cannot run here, '' when they can. */
export function faultNetProblem(): string {
  try {
    using host = new FaultHost();
    host.slow('10mbit');
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}
