// The other end of an engine's sockets in the conformance suite: plain non-blocking TCP sockets, moved by `poll()` on the
// suite's own thread. What a peer sees is exact: bytes in order, the end of the stream, or the errno of a reset.

import assert from 'node:assert/strict';
import {
  acceptNonblocking,
  connectSocket,
  openNonblockingSocket,
  receiveBytes,
} from '../sys/epoll.ts';
import { EAGAIN, ECONNREFUSED, EINPROGRESS, errnoName } from '../sys/errno.ts';
import { mapMemory } from '../sys/memory.ts';
import { checked, native, nativeRefusal, num } from '../sys/native.ts';
import {
  SCRATCH_SOCKADDR,
  SCRATCH_VALUE,
  SOCKADDR_POINTER,
  scratchView,
  scratchWords,
  VALUE_POINTER,
} from '../sys/scratch.ts';
import { encodeSockaddr, type SocketAddress } from '../sys/sockaddr.ts';
import {
  boundAddress,
  closeDescriptor,
  openListener,
  openSocket,
  setNonblocking,
  setResetOnClose,
  shutdownWrite,
} from '../sys/socket.ts';

const SOL_SOCKET = 1n;
const SO_REUSEPORT = 15n;
const SO_SNDBUF = 7n;
const SO_RCVBUF = 8n;
const MSG_NOSIGNAL = 0x4000n;
const MSG_OOB = 1n;
/** Bytes moved by one call of a peer. */
const TRANSFER_BYTES = 1 << 18;
const TRANSFER_BYTES_N = BigInt(TRANSFER_BYTES);

/** Memory of the peers' calls; without native code there are no peers. */
const transfer =
  nativeRefusal === ''
    ? mapMemory(TRANSFER_BYTES, 'peer bytes')
    : { address: 0n, buffer: new ArrayBuffer(0) };
const transferBytes = new Uint8Array(transfer.buffer);

export const LOOPBACK_4: SocketAddress['words'] = [0, 0, 0, 0x7f00_0001];
export const LOOPBACK_6: SocketAddress['words'] = [0, 0, 0, 1];

export function loopback(family: 4 | 6): SocketAddress['words'] {
  return family === 4 ? LOOPBACK_4 : LOOPBACK_6;
}

function need(result: number, action: string): number {
  if (result < 0) throw new Error(`Cannot ${action}: ${errnoName(result)}`);
  return result;
}

function setBuffer(fd: number, name: bigint, bytes: number): void {
  scratchWords[SCRATCH_VALUE / 4] = bytes;
  need(checked(native.setsockopt(num(fd), SOL_SOCKET, name, VALUE_POINTER, 4n)), 'set a buffer');
}

/** Makes a socket's send buffer small, so that a few kilobytes fill it. */
export function limitSendBuffer(fd: number, bytes: number): void {
  setBuffer(fd, SO_SNDBUF, bytes);
}

/** Keeps a port free for a listener opened later with SO_REUSEPORT; never listens itself. */
export function reservePort(address: SocketAddress): {
  readonly fd: number;
  readonly port: number;
} {
  const fd = need(openSocket(address.family), 'open a socket');
  scratchWords[SCRATCH_VALUE / 4] = 1;
  native.setsockopt(num(fd), SOL_SOCKET, SO_REUSEPORT, VALUE_POINTER, 4n);
  const length = encodeSockaddr(scratchView, SCRATCH_SOCKADDR, address);
  need(checked(native.bind(num(fd), SOCKADDR_POINTER, num(length))), 'bind a socket');
  return { fd, port: boundAddress(fd)?.port ?? 0 };
}

export class Peer {
  fd: number;
  /** Off: the peer never reads, its window fills. */
  reading = true;
  ended = false;
  /** -errno that a read ended with, 0 = none. */
  failure = 0;
  /** A write was refused: the engine's end is gone. */
  isBroken = false;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #outgoing: Buffer[] = [];
  #finishing = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** All written bytes are with the kernel. */
  get flushed(): boolean {
    return this.#outgoing.length === 0;
  }

  get port(): number {
    return boundAddress(this.fd)?.port ?? 0;
  }

  content(): Buffer {
    this.#received = [Buffer.concat(this.#received)];
    return this.#received[0] as Buffer;
  }

  write(data: Uint8Array): void {
    if (data.length > 0) this.#outgoing.push(Buffer.from(data));
    this.#flush();
  }

  /** One urgent byte (TCP URG), which is no part of the stream that its receiver reads. */
  writeUrgent(): void {
    assert(this.flushed, 'Bytes before the urgent one still wait');
    need(checked(native.send(num(this.fd), transfer.address, 1n, MSG_OOB)), 'send an urgent byte');
  }

  /** FIN, after what was written. */
  finish(): void {
    this.#finishing = true;
    this.#flush();
  }

  poll(): void {
    if (this.fd < 0) return;
    this.#flush();
    if (this.reading) this.#read();
  }

  #flush(): void {
    while (this.#outgoing.length > 0) {
      const data = this.#outgoing[0] as Buffer;
      const bytes = Math.min(data.length, TRANSFER_BYTES);
      transferBytes.set(data.subarray(0, bytes));
      const call = native.send(num(this.fd), transfer.address, num(bytes), MSG_NOSIGNAL);
      const sent = checked(call);
      if (sent === -EAGAIN) return;
      if (sent < 0) {
        // What is left has nowhere to go; reading says why.
        this.isBroken = true;
        this.#outgoing = [];
        return;
      }
      if (sent === data.length) this.#outgoing.shift();
      else this.#outgoing[0] = data.subarray(sent);
    }
    if (!this.#finishing) return;
    this.#finishing = false;
    shutdownWrite(this.fd);
  }

  #read(): void {
    while (!this.ended && this.failure === 0) {
      const result = receiveBytes(this.fd, transfer.address, TRANSFER_BYTES_N);
      if (result === -EAGAIN) return;
      if (result < 0) this.failure = result;
      else if (result === 0) this.ended = true;
      else this.#received.push(Buffer.from(transferBytes.subarray(0, result)));
      if (result > 0) this.#receivedBytes += result;
    }
  }

  close(): void {
    if (this.fd >= 0) closeDescriptor(this.fd);
    this.fd = -1;
  }

  reset(): void {
    if (this.fd >= 0) setResetOnClose(this.fd);
    this.close();
  }
}

/** A peer connecting to `port`; bytes written before it is connected wait. Without `port` taken: the peer's failure. */
export function openPeer(family: 4 | 6, port: number, words = loopback(family)): Peer {
  const fd = need(openNonblockingSocket(family), 'open a socket');
  const result = connectSocket(fd, family, Uint32Array.from(words), 0, port);
  const peer = new Peer(fd);
  if (result !== 0 && result !== -EINPROGRESS) peer.failure = result;
  return peer;
}

export function hasIpv6(): boolean {
  const fd = openNonblockingSocket(6);
  if (fd < 0) return false;
  const address: SocketAddress = { family: 6, words: LOOPBACK_6, port: 0 };
  const length = encodeSockaddr(scratchView, SCRATCH_SOCKADDR, address);
  const result = native.bind(num(fd), SOCKADDR_POINTER, num(length));
  closeDescriptor(fd);
  return result === 0;
}

/** Whether nobody listens on a loopback port: a blocking connect, refused at once. */
export function isRefused(family: 4 | 6, port: number): boolean {
  const fd = need(openSocket(family), 'open a socket');
  const result = connectSocket(fd, family, Uint32Array.from(loopback(family)), 0, port);
  closeDescriptor(fd);
  return result === -ECONNREFUSED;
}

export interface PeerListenerOptions {
  readonly family?: 4 | 6;
  readonly backlog?: number;
  /** Receive buffer of its connections: small, so that a peer that does not read soon blocks the sender. */
  readonly receiveBytes?: number;
}

/** What an engine connects to. */
export class PeerListener {
  readonly family: 4 | 6;
  readonly fd: number;
  readonly port: number;

  constructor({ family = 4, backlog = 4096, receiveBytes = 0 }: PeerListenerOptions = {}) {
    this.family = family;
    const options = { backlog, fastOpenQueue: 0, reusePort: false, v6Only: true };
    this.fd = need(openListener({ family, words: loopback(family), port: 0 }, options), 'listen');
    if (receiveBytes > 0) setBuffer(this.fd, SO_RCVBUF, receiveBytes);
    setNonblocking(this.fd, true);
    const bound = boundAddress(this.fd);
    assert(bound !== null);
    this.port = bound.port;
  }

  /** The next connection, or null when none waits. */
  take(): Peer | null {
    const fd = acceptNonblocking(this.fd);
    return fd === -EAGAIN ? null : new Peer(need(fd, 'accept'));
  }

  close(): void {
    closeDescriptor(this.fd);
  }
}
