// TCP sockets by plain native calls: creation, options, addresses, shutdown, reset, close, pipes.
// Results are numbers; negative is -errno. Hot calls (openSocket, readPeerAddress, shutdownWrite) allocate nothing.

import { checked, native, num } from './native.ts';
import {
  LENGTH_POINTER,
  SCRATCH_LENGTH,
  SCRATCH_SOCKADDR,
  SCRATCH_STRUCT,
  SCRATCH_VALUE,
  SOCKADDR_POINTER,
  STRUCT_POINTER,
  scratchView,
  scratchWords,
  VALUE_POINTER,
} from './scratch.ts';
import {
  AF_INET,
  AF_INET6,
  decodeSockaddr,
  encodeSockaddr,
  SOCKADDR_BYTES,
  type SocketAddress,
} from './sockaddr.ts';

const AF_INET_N = BigInt(AF_INET);
const AF_INET6_N = BigInt(AF_INET6);
const SOCK_STREAM_CLOEXEC = 0o2000001n;
const SOL_SOCKET = 1n;
const SO_REUSEADDR = 2n;
const SO_ERROR = 4n;
const SO_KEEPALIVE = 9n;
const SO_LINGER = 13n;
const SO_REUSEPORT = 15n;
const IPPROTO_TCP = 6n;
const TCP_NODELAY = 1n;
const TCP_KEEPIDLE = 4n;
const TCP_KEEPINTVL = 5n;
const TCP_KEEPCNT = 6n;
const TCP_USER_TIMEOUT = 18n;
const TCP_FASTOPEN = 23n;
const IPPROTO_IPV6 = 41n;
const IPV6_V6ONLY = 26n;
const SHUT_WR = 1n;
const MSG_PEEK_DONTWAIT = 0x42n;
const F_GETFL = 3n;
const F_SETFL = 4n;
const O_NONBLOCK = 0o4000;
const F_SETFD = 2n;
const FD_CLOEXEC = 1n;
const SO_TYPE = 3n;
const SO_ACCEPTCONN = 30n;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000n;
const F_SETPIPE_SZ = 1031n;
const PIPE_FLAGS = 0o2004000n; // O_CLOEXEC | O_NONBLOCK
const VALUE_WORD = SCRATCH_VALUE / 4;
const LENGTH_WORD = SCRATCH_LENGTH / 4;
const SOCKADDR_WORD = SCRATCH_SOCKADDR / 4;

/** A blocking, close-on-exec TCP socket of `family` 4 or 6. (Blocking: io_uring then waits instead of returning EAGAIN.) */
export function openSocket(family: number): number {
  return checked(native.socket(family === 4 ? AF_INET_N : AF_INET6_N, SOCK_STREAM_CLOEXEC, 0n));
}

function setOption(fd: number, level: bigint, name: bigint, value: number): number {
  scratchWords[VALUE_WORD] = value;
  return checked(native.setsockopt(num(fd), level, name, VALUE_POINTER, 4n));
}

/** TCP_NODELAY (tcp(7)): send small segments at once. */
export function setNoDelay(fd: number): number {
  return setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

/** Keepalive after `idleSecs` of silence, then every quarter of it, 4 probes; 0 leaves it off. */
function setKeepalive(fd: number, idleSecs: number): void {
  if (idleSecs <= 0) return;
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, Math.max(1, Math.round(idleSecs)));
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, Math.max(1, Math.round(idleSecs / 4)));
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

/** TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the kernel gives up; 0 keeps its default. */
function setUserTimeout(fd: number, seconds: number): void {
  if (seconds > 0) setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, Math.round(seconds * 1000));
}

/** What matters only to sessions that last: keepalive and TCP_USER_TIMEOUT, in seconds, 0 = leave. */
export function setLongLived(fd: number, keepaliveSecs: number, userTimeoutSecs: number): void {
  setKeepalive(fd, keepaliveSecs);
  setUserTimeout(fd, userTimeoutSecs);
}

/** Makes the next close(2) send RST instead of FIN (socket(7), SO_LINGER with time 0). */
export function setResetOnClose(fd: number): number {
  scratchWords[VALUE_WORD] = 1;
  scratchWords[VALUE_WORD + 1] = 0;
  return checked(native.setsockopt(num(fd), SOL_SOCKET, SO_LINGER, VALUE_POINTER, 8n));
}

/** Sends FIN after what is queued. Plain call: IORING_OP_SHUTDOWN is always punted to a kernel thread (+3 % measured). */
export function shutdownWrite(fd: number): number {
  return checked(native.shutdown(num(fd), SHUT_WR));
}

export function closeDescriptor(fd: number): number {
  return checked(native.close(num(fd), 0n));
}

/** What a receive would give now: 1 when a byte waits, which stays; 0 at the end of the stream; or -errno. */
export function peekByte(fd: number): number {
  return checked(native.recv(num(fd), VALUE_POINTER, 1n, MSG_PEEK_DONTWAIT));
}

/** Sets or clears O_NONBLOCK: for listeners, and for splice(2), which has no flag of its own for sockets. */
export function setNonblocking(fd: number, on: boolean): number {
  const flags = checked(native.fcntl(num(fd), F_GETFL, 0n));
  if (flags < 0) return flags;
  const wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  return checked(native.fcntl(num(fd), F_SETFL, BigInt(wanted)));
}

/** An end of a connection, as words (see sockaddr.ts) and port, without allocating. */
export interface PeerAddress {
  /** 4 or 6; an IPv4-mapped IPv6 peer is reported as 4. */
  family: number;
  /** Words as signed numbers: those above 31 bits would be boxed. */
  w0: number;
  w1: number;
  w2: number;
  w3: number;
  port: number;
}

function networkWord(index: number): number {
  const word = scratchWords[SOCKADDR_WORD + index];
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

/** Fills `peer` by getpeername(2) and returns 0, or -errno (ENOTCONN when the client is gone already). */
export function readPeerAddress(fd: number, peer: PeerAddress): number {
  scratchWords[LENGTH_WORD] = SOCKADDR_BYTES;
  const result = native.getpeername(num(fd), SOCKADDR_POINTER, LENGTH_POINTER);
  return result === 0 ? takeAddress(peer) : checked(result);
}

/** The same of this side of the connection, by getsockname(2). */
export function readLocalAddress(fd: number, local: PeerAddress): number {
  scratchWords[LENGTH_WORD] = SOCKADDR_BYTES;
  const result = native.getsockname(num(fd), SOCKADDR_POINTER, LENGTH_POINTER);
  return result === 0 ? takeAddress(local) : checked(result);
}

function takeAddress(peer: PeerAddress): number {
  const first = scratchWords[SOCKADDR_WORD];
  peer.port = ((first >>> 8) & 0xff00) | (first >>> 24);
  peer.family = 4;
  peer.w0 = 0;
  peer.w1 = 0;
  peer.w2 = 0;
  if ((first & 0xffff) === AF_INET) {
    peer.w3 = networkWord(1);
    return 0;
  }
  peer.w0 = networkWord(2);
  peer.w1 = networkWord(3);
  peer.w2 = networkWord(4);
  peer.w3 = networkWord(5);
  if (peer.w0 === 0 && peer.w1 === 0 && peer.w2 === 0xffff) peer.w2 = 0;
  else peer.family = 6;
  return 0;
}

/**
 * The pending error of a socket as -errno, 0 = none; reading clears it (SO_ERROR, socket(7)). While a connect goes on that
 * is also an ICMP error the kernel would yet have tried to get over.
 */
export function socketError(fd: number): number {
  scratchWords[LENGTH_WORD] = 4;
  const result = native.getsockopt(num(fd), SOL_SOCKET, SO_ERROR, VALUE_POINTER, LENGTH_POINTER);
  // From 0: a negated 0 would be -0, which is no small integer and gets boxed.
  return result < 0 ? checked(result) : 0 - scratchWords[VALUE_WORD];
}

export interface ListenOptions {
  readonly backlog: number;
  /** TCP_FASTOPEN queue length; 0 = off. */
  readonly fastOpenQueue: number;
  /** Several sockets share the address, one per worker (socket(7), SO_REUSEPORT). */
  readonly reusePort: boolean;
  /** An IPv6 listener takes IPv6 clients only; otherwise IPv4 clients arrive as IPv4-mapped ones too (ipv6(7)). */
  readonly v6Only: boolean;
}

/**
 * A bound socket that does not listen yet, or -errno. Accepted sockets inherit TCP_NODELAY from it (Linux), but not that it is
 * non-blocking: emptying its queue must end with EAGAIN. (io_uring waits on it all the same, since 5.19.)
 */
export function bindListener(
  address: SocketAddress,
  options: Omit<ListenOptions, 'backlog'>,
): number {
  const fd = openSocket(address.family);
  if (fd < 0) return fd;
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reusePort) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (address.family === 6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.v6Only ? 1 : 0);
  setNoDelay(fd);
  setNonblocking(fd, true);
  // A kernel without Fast Open, or with it switched off, refuses: the listener works the same without.
  if (options.fastOpenQueue > 0) setOption(fd, IPPROTO_TCP, TCP_FASTOPEN, options.fastOpenQueue);
  const length = encodeSockaddr(scratchView, SCRATCH_SOCKADDR, address);
  const result = checked(native.bind(num(fd), SOCKADDR_POINTER, num(length)));
  if (result === 0) return fd;
  closeDescriptor(fd);
  return result;
}

export function startListening(fd: number, backlog: number): number {
  return checked(native.listen(num(fd), num(backlog)));
}

/** A bound and listening socket, or -errno. */
export function openListener(address: SocketAddress, options: ListenOptions): number {
  const fd = bindListener(address, options);
  const result = fd < 0 ? fd : startListening(fd, options.backlog);
  if (result < 0 && fd >= 0) closeDescriptor(fd);
  return result < 0 ? result : fd;
}

function getOption(fd: number, level: bigint, name: bigint): number {
  scratchWords[LENGTH_WORD] = 4;
  const result = checked(native.getsockopt(num(fd), level, name, VALUE_POINTER, LENGTH_POINTER));
  return result < 0 ? result : scratchWords[VALUE_WORD];
}

/** Where a descriptor from another process listens, and whether for IPv6 clients only; null when it is no TCP listener. */
export function inspectListener(fd: number): { address: SocketAddress; v6Only: boolean } | null {
  const listens =
    getOption(fd, SOL_SOCKET, SO_TYPE) === SOCK_STREAM &&
    getOption(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1;
  const address = boundAddress(fd);
  if (!listens || address === null) return null;
  const v6Only = address.family === 6 && getOption(fd, IPPROTO_IPV6, IPV6_V6ONLY) === 1;
  return { address, v6Only };
}

/** Gives a listener from another process the options that openListener() gives; its backlog stays. */
export function adoptListener(fd: number, fastOpenQueue: number): void {
  native.fcntl(num(fd), F_SETFD, FD_CLOEXEC);
  setNonblocking(fd, true);
  setNoDelay(fd);
  if (fastOpenQueue > 0) setOption(fd, IPPROTO_TCP, TCP_FASTOPEN, fastOpenQueue);
}

/** A blocking, close-on-exec socket from a listener's queue, or -errno; the listener is non-blocking. */
export function acceptConnection(listener: number): number {
  return checked(native.accept4(num(listener), 0n, 0n, SOCK_CLOEXEC));
}

/** The address a socket is bound to, which tells the port the kernel chose; null on error. */
export function boundAddress(fd: number): SocketAddress | null {
  scratchWords[LENGTH_WORD] = SOCKADDR_BYTES;
  if (native.getsockname(num(fd), SOCKADDR_POINTER, LENGTH_POINTER) !== 0) return null;
  return decodeSockaddr(scratchView, SCRATCH_SOCKADDR, scratchWords[LENGTH_WORD]);
}

/** The two ends of a pipe, after `openPipe` returned 0. */
export const pipeEnds = { read: -1, write: -1 };

/** Opens a non-blocking pipe of `bytes` (or the size the system allows) into `pipeEnds`; 0 or -errno. */
export function openPipe(bytes: number): number {
  const result = checked(native.pipe2(STRUCT_POINTER, PIPE_FLAGS));
  if (result < 0) return result;
  pipeEnds.read = scratchView.getInt32(SCRATCH_STRUCT, true);
  pipeEnds.write = scratchView.getInt32(SCRATCH_STRUCT + 4, true);
  // Over the user's pipe quota the kernel refuses with EPERM and keeps the default of 64 KiB, which also works.
  native.fcntl(num(pipeEnds.write), F_SETPIPE_SZ, BigInt(bytes));
  return 0;
}
