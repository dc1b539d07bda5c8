// A host in the middle of a tunnel: passes datagrams between two addresses of its network namespace, and can repeat, change,
// lose and reorder them, or go on from another port (a NAT that forgot).

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { checked, native, num } from '../sys/native.ts';
import { inNamespace } from '../sys/netns.ts';
import { SCRATCH_SOCKADDR, SOCKADDR_POINTER, scratchView } from '../sys/scratch.ts';
import { encodeSockaddr, parseAddress } from '../sys/sockaddr.ts';

const AF_INET = 2n;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 0o2004002n;

function openUdp(namespace: string, address: string): Socket {
  const fd = inNamespace(namespace, () => {
    const made = checked(native.socket(AF_INET, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0n));
    const parsed = parseAddress(address);
    if (parsed === null) throw new Error(`No address: ${address}`);
    const length = encodeSockaddr(scratchView, SCRATCH_SOCKADDR, { ...parsed, port: 0 });
    const result = checked(native.bind(num(made), SOCKADDR_POINTER, num(length)));
    if (result < 0) throw new Error(`Cannot bind ${address}: errno ${-result}`);
    return made;
  });
  const socket = createSocket('udp4');
  socket.on('error', () => {});
  socket.bind({ fd });
  return socket;
}

/** What becomes of a datagram: those that go on, in their order. */
export type Meddler = (datagram: Buffer, way: 'out' | 'back') => readonly Buffer[];

export class UdpRelay implements Disposable {
  /** Where the near end sends to. */
  readonly #near: Socket;
  /** From where the far end hears. */
  #far: Socket;
  readonly #namespace: string;
  readonly #address: string;
  readonly #target: { readonly address: string; readonly port: number };
  #client: RemoteInfo | null = null;
  meddle: Meddler = (datagram) => [datagram];
  /** What went to the far end, for tests that send it again. */
  readonly seen: Buffer[] = [];

  private constructor(
    near: Socket,
    far: Socket,
    namespace: string,
    address: string,
    target: string,
  ) {
    this.#near = near;
    this.#far = far;
    this.#namespace = namespace;
    this.#address = address;
    const [host = '', port] = target.split(':');
    this.#target = { address: host, port: Number(port) };
    near.on('message', (datagram, from) => {
      this.#client = from;
      for (const each of this.meddle(datagram, 'out')) this.sendOut(each);
    });
    this.#listenFar();
  }

  static open(namespace: string, address: string, target: string): UdpRelay {
    const near = openUdp(namespace, address);
    return new UdpRelay(near, openUdp(namespace, address), namespace, address, target);
  }

  #listenFar(): void {
    this.#far.on('message', (datagram) => {
      const client = this.#client;
      if (client === null) return;
      for (const each of this.meddle(datagram, 'back')) {
        this.#near.send(each, client.port, client.address);
      }
    });
  }

  get endpoint(): string {
    return `${this.#address}:${this.#near.address().port}`;
  }

  get farEndpoint(): string {
    return `${this.#address}:${this.#far.address().port}`;
  }

  sendOut(datagram: Buffer): void {
    this.seen.push(datagram);
    this.#far.send(datagram, this.#target.port, this.#target.address);
  }

  /** Goes on from another port. */
  move(): void {
    const old = this.#far;
    this.#far = openUdp(this.#namespace, this.#address);
    this.#listenFar();
    old.close();
  }

  [Symbol.dispose](): void {
    this.#near.close();
    this.#far.close();
  }
}
