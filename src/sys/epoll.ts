// epoll(7) and the socket calls of a readiness engine, as plain native calls. Results: negative is -errno.
// struct epoll_event is packed on x86-64 (12 bytes) and aligned elsewhere (16 bytes).

import { checked, native, num } from './native.ts';
import {
  SCRATCH_SOCKADDR,
  SCRATCH_STRUCT,
  SOCKADDR_POINTER,
  STRUCT_POINTER,
  scratchWords,
} from './scratch.ts';
import { AF_INET, AF_INET6, encodeSockaddrWords } from './sockaddr.ts';

export const EPOLLIN = 1;
export const EPOLLPRI = 2;
export const EPOLLOUT = 4;
export const EPOLLERR = 8;
export const EPOLLHUP = 16;
export const EPOLLRDHUP = 0x2000;
/** Wake one of those who watch, not all (Linux 4.5). */
export const EPOLLEXCLUSIVE = 1 << 28;
export const EPOLLET = 0x8000_0000 | 0;

const IS_PACKED = process.arch === 'x64';
/** Words of one epoll_event, and where in it the 64 bits of data start. */
export const EPOLL_EVENT_WORDS = IS_PACKED ? 3 : 4;
export const EPOLL_DATA_WORD = IS_PACKED ? 1 : 2;

const EPOLL_CLOEXEC = 0o2000000n;
const EPOLL_CTL_ADD = 1n;
const EPOLL_CTL_DEL = 2n;
const SOCK_NONBLOCK_CLOEXEC = 0o2004000n;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 0o2004001n;
const MSG_NOSIGNAL = 0x4000n;
const STRUCT_WORD = SCRATCH_STRUCT / 4;

/** A new epoll descriptor, or -errno. */
export function openEpoll(): number {
  return checked(native.epoll_create1(EPOLL_CLOEXEC, 0n));
}

/** Watches `fd` for `mask`; `low` and `high` come back in each event's data. */
export function addWatch(
  epoll: bigint,
  fd: number,
  mask: number,
  low: number,
  high: number,
): number {
  scratchWords[STRUCT_WORD] = mask;
  scratchWords[STRUCT_WORD + EPOLL_DATA_WORD] = low;
  scratchWords[STRUCT_WORD + EPOLL_DATA_WORD + 1] = high;
  return checked(native.epoll_ctl(epoll, EPOLL_CTL_ADD, num(fd), STRUCT_POINTER));
}

export function removeWatch(epoll: bigint, fd: number): number {
  return checked(native.epoll_ctl(epoll, EPOLL_CTL_DEL, num(fd), STRUCT_POINTER));
}

/** Events written at `events`, at most `max`; waits `timeoutMs`, -1 = no limit. */
export function waitEpoll(epoll: bigint, events: bigint, max: number, timeoutMs: number): number {
  // num(-1) has the low 32 bits of -1, all that an int parameter takes; a choice between two BigInts would be boxed.
  return checked(native.epoll_wait(epoll, events, num(max), num(timeoutMs)));
}

/** A non-blocking accepted socket, or -errno (accept4(2)). */
export function acceptNonblocking(listener: number): number {
  return checked(native.accept4(num(listener), 0n, 0n, SOCK_NONBLOCK_CLOEXEC));
}

/** A non-blocking TCP socket of family 4 or 6, or -errno. */
export function openNonblockingSocket(family: number): number {
  const domain = num(family === 4 ? AF_INET : AF_INET6);
  return checked(native.socket(domain, SOCK_STREAM_NONBLOCK_CLOEXEC, 0n));
}

/** Starts connecting: -EINPROGRESS, 0 when connected at once, or another -errno. Address as in sys/sockaddr.ts. */
export function connectSocket(
  fd: number,
  family: number,
  words: Uint32Array,
  offset: number,
  port: number,
): number {
  const at = SCRATCH_SOCKADDR / 4;
  const bytes = encodeSockaddrWords(scratchWords, at, family, words, offset, port);
  return checked(native.connect(num(fd), SOCKADDR_POINTER, num(bytes)));
}

export function receiveBytes(fd: number, address: bigint, bytes: bigint): number {
  return checked(native.recv(num(fd), address, bytes, 0n));
}

export function sendBytes(fd: number, address: bigint, bytes: number): number {
  return checked(native.send(num(fd), address, num(bytes), MSG_NOSIGNAL));
}

/** Empties an eventfd. */
export function drainEventfd(fd: number): void {
  native.read(num(fd), STRUCT_POINTER, 8n);
}
