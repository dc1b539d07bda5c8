// UDP sockets of a tunnel (udp(7), ipv6(7)): one dual-stack socket on which IPv4 peers have IPv4-mapped addresses, or an IPv4
// socket where IPv6 is off. Many equal datagrams go out by one sendmsg with UDP_SEGMENT (Linux 4.18) and come in joined by
// UDP_GRO (5.0). Structures are those of 64-bit Linux, in an arena. Results: negative is -errno.

import { type Arena, pointerTo } from './arena.ts';
import { bindNative, checked, native, num } from './native.ts';
import {
  LENGTH_POINTER,
  SCRATCH_LENGTH,
  SCRATCH_SOCKADDR,
  SCRATCH_VALUE,
  SOCKADDR_POINTER,
  scratchView,
  scratchWords,
  VALUE_POINTER,
} from './scratch.ts';
import { AF_INET, AF_INET6, encodeSockaddr, SOCKADDR_BYTES } from './sockaddr.ts';
import { closeDescriptor } from './socket.ts';

const THREE = ['pointer', 'pointer', 'pointer'] as const;
const FIVE = ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'] as const;
const { dup3, poll, recvmmsg, sendmsg } = bindNative({
  dup3: { arguments: THREE, return: 'int32' },
  poll: { arguments: THREE, return: 'int32' },
  recvmmsg: { arguments: FIVE, return: 'int32' },
  sendmsg: { arguments: THREE, return: 'int32' },
});

const SOCK_DGRAM_NONBLOCK_CLOEXEC = 0o2004002n;
const SOCK_RAW_NONBLOCK_CLOEXEC = 0o2004003n;
const AF_NETLINK = 16;
const RTMGRP_LINK = 1;
const O_CLOEXEC = 0o2000000n;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const IP_TOS = 1;
const IP_PKTINFO = 8;
const IP_RECVTOS = 13;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const IPV6_PKTINFO = 50;
const IPV6_RECVTCLASS = 66;
const IPV6_TCLASS = 67;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const MSG_DONTWAIT_NOSIGNAL = 0x4040n;
const MSG_DONTWAIT = 0x40n;

// struct msghdr, struct mmsghdr (a msghdr and the received length), struct cmsghdr.
const MSGHDR_BYTES = 56;
export const MMSGHDR_BYTES = 64;
export const IOVEC_BYTES = 16;
const MSG_NAME = 0;
const MSG_NAME_BYTES = 8;
const MSG_VECTORS = 16;
const MSG_VECTOR_COUNT = 24;
const MSG_CONTROL = 32;
const MSG_CONTROL_BYTES = 40;
const MSG_FLAGS = 48;
const MMSG_LENGTH = 56;
const MSG_TRUNC_OR_CTRUNC = 0x28;
const CMSG_HEADER_BYTES = 16;
/** Room for the control data of one message either way. */
export const CONTROL_BYTES = 128;
/** Room for a name: struct sockaddr_in6. */
export const NAME_BYTES = 32;
/** An address and a port as both ends of the tunnel have them: 16 bytes, mapped if IPv4, and 2 in network order. */
const ADDRESS_BYTES = 16;

function setOption(fd: number, level: number, name: number, value: number): number {
  scratchWords[SCRATCH_VALUE / 4] = value;
  return checked(native.setsockopt(num(fd), BigInt(level), BigInt(name), VALUE_POINTER, 4n));
}

/** With the privilege beyond the system's limit, else up to it. The kernel doubles the number for its own use. */
function setBuffers(fd: number, bytes: number): void {
  if (setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes) < 0) {
    setOption(fd, SOL_SOCKET, SO_RCVBUF, bytes);
  }
  if (setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes) < 0) {
    setOption(fd, SOL_SOCKET, SO_SNDBUF, bytes);
  }
}

/** SO_MARK, for the system's routing rules; 0 = none. */
export function setMark(fd: number, mark: number): number {
  return setOption(fd, SOL_SOCKET, SO_MARK, mark | 0);
}

export interface DatagramSocket {
  readonly fd: number;
  /** AF_INET6, or AF_INET where the system has no IPv6. */
  readonly family: number;
  readonly port: number;
}

/** A bound socket with all that receiving needs, or -errno; port 0 = any. */
export function openDatagramSocket(port: number, bufferBytes: number): DatagramSocket | number {
  let family = AF_INET6;
  let fd = checked(native.socket(BigInt(AF_INET6), SOCK_DGRAM_NONBLOCK_CLOEXEC, 0n));
  if (fd < 0) {
    family = AF_INET;
    fd = checked(native.socket(BigInt(AF_INET), SOCK_DGRAM_NONBLOCK_CLOEXEC, 0n));
  }
  if (fd < 0) return fd;
  if (family === AF_INET6) {
    setOption(fd, SOL_IPV6, IPV6_V6ONLY, 0);
    setOption(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    setOption(fd, SOL_IPV6, IPV6_RECVTCLASS, 1);
  } else {
    setOption(fd, SOL_IP, IP_PKTINFO, 1);
  }
  setOption(fd, SOL_IP, IP_RECVTOS, 1);
  setOption(fd, SOL_UDP, UDP_GRO, 1);
  setBuffers(fd, bufferBytes);
  const any = { family: family === AF_INET6 ? 6 : 4, words: [0, 0, 0, 0], port } as const;
  const length = encodeSockaddr(scratchView, SCRATCH_SOCKADDR, { ...any, words: [0, 0, 0, 0] });
  let result = checked(native.bind(num(fd), SOCKADDR_POINTER, num(length)));
  if (result >= 0) {
    scratchWords[SCRATCH_LENGTH / 4] = SOCKADDR_BYTES;
    result = checked(native.getsockname(num(fd), SOCKADDR_POINTER, LENGTH_POINTER));
  }
  if (result >= 0) return { fd, family, port: scratchView.getUint16(SCRATCH_SOCKADDR + 2) };
  closeDescriptor(fd);
  return result;
}

/** A socket that becomes readable when an interface of this network namespace changes (rtnetlink(7)), or -errno. */
export function openLinkWatch(): number {
  const fd = checked(native.socket(BigInt(AF_NETLINK), SOCK_RAW_NONBLOCK_CLOEXEC, 0n));
  if (fd < 0) return fd;
  scratchWords.fill(0, SCRATCH_SOCKADDR / 4, SCRATCH_SOCKADDR / 4 + 3);
  scratchWords[SCRATCH_SOCKADDR / 4] = AF_NETLINK;
  scratchWords[SCRATCH_SOCKADDR / 4 + 2] = RTMGRP_LINK;
  const result = checked(native.bind(num(fd), SOCKADDR_POINTER, 12n));
  if (result >= 0) return fd;
  closeDescriptor(fd);
  return result;
}

/** Makes the number `target` mean what `fd` means, at once for all threads, and closes `fd`. */
export function replaceDescriptor(fd: number, target: number): number {
  const result = checked(dup3(num(fd), num(target), O_CLOEXEC));
  closeDescriptor(fd);
  return result;
}

export const POLLIN = 1;
export const POLLFD_BYTES = 8;

/** Fills a struct pollfd that waits for input. */
export function watchInput(a: Arena, offset: number, fd: number): void {
  a.words[offset >> 2] = fd;
  a.words[(offset + 4) >> 2] = POLLIN;
}

/** What happened at a struct pollfd, 0 = nothing. */
export function pollEvents(a: Arena, offset: number): number {
  return a.words[(offset + 4) >> 2] >>> 16;
}

/** Waits for `count` descriptors without a limit. */
export function waitForInput(pollfds: bigint, count: bigint): number {
  return checked(poll(pollfds, count, 0xffff_ffffn));
}

/** Writes a peer's name for sending and returns its length. `from`: its 18 bytes; `scope`: interface of a link-local one. */
export function writeName(
  a: Arena,
  name: number,
  family: number,
  from: number,
  scope: number,
): number {
  const port = a.bytes[from + ADDRESS_BYTES] | (a.bytes[from + ADDRESS_BYTES + 1] << 8);
  a.words[name >> 2] = family | (port << 16);
  if (family === AF_INET) {
    a.view.setInt32(name + 4, a.view.getInt32(from + 12));
    a.words[(name + 8) >> 2] = 0;
    a.words[(name + 12) >> 2] = 0;
    return 16;
  }
  a.words[(name + 4) >> 2] = 0;
  for (let at = 0; at < ADDRESS_BYTES; at += 4) {
    a.view.setInt32(name + 8 + at, a.view.getInt32(from + at));
  }
  a.words[(name + 24) >> 2] = scope;
  return SOCKADDR_BYTES;
}

/** What writeName() made of an address, read back: 18 bytes to `to`. */
export function readName(a: Arena, name: number, to: number): void {
  const isV4 = (a.words[name >> 2] & 0xffff) === AF_INET;
  for (let at = 0; at < ADDRESS_BYTES; at++) {
    if (!isV4) a.bytes[to + at] = a.bytes[name + 8 + at];
    else if (at < 12) a.bytes[to + at] = at < 10 ? 0 : 255;
    else a.bytes[to + at] = a.bytes[name + 4 + at - 12];
  }
  a.bytes[to + ADDRESS_BYTES] = a.bytes[name + 2];
  a.bytes[to + ADDRESS_BYTES + 1] = a.bytes[name + 3];
}

/** The interface of a link-local sender. */
export function readScope(a: Arena, name: number): number {
  return (a.words[name >> 2] & 0xffff) === AF_INET ? 0 : a.words[(name + 24) >> 2];
}

/** Where an outgoing message is described: msghdr, then name, then control data. */
export const SEND_AREA_BYTES = MSGHDR_BYTES + 8 + NAME_BYTES + CONTROL_BYTES;
const SEND_NAME = MSGHDR_BYTES + 8;
const SEND_CONTROL = SEND_NAME + NAME_BYTES;

function setPointer(a: Arena, field: number, offset: number): void {
  a.words[field >> 2] = a.base + offset;
  a.unsigned[(field + 4) >> 2] = a.pointerWords[1];
}

function setWide(a: Arena, field: number, value: number): void {
  a.words[field >> 2] = value;
  a.words[(field + 4) >> 2] = 0;
}

/** Fills a struct iovec. */
export function setVector(a: Arena, vector: number, offset: number, bytes: number): void {
  setPointer(a, vector, offset);
  setWide(a, vector + 8, bytes);
}

function beginControl(a: Arena, at: number, bytes: number, level: number, type: number): void {
  setWide(a, at, CMSG_HEADER_BYTES + bytes);
  a.words[(at + 8) >> 2] = level;
  a.words[(at + 12) >> 2] = type;
}

/** Describes a message to the peer at `from`; control data follows by the functions below, in any number. */
export function beginMessage(
  a: Arena,
  area: number,
  family: number,
  from: number,
  scope: number,
): void {
  setPointer(a, area + MSG_NAME, area + SEND_NAME);
  setWide(a, area + MSG_NAME_BYTES, writeName(a, area + SEND_NAME, family, from, scope));
  setPointer(a, area + MSG_CONTROL, area + SEND_CONTROL);
  setWide(a, area + MSG_CONTROL_BYTES, 0);
  setWide(a, area + MSG_FLAGS, 0);
}

/** The datagrams are cut from the bytes, each of `bytes`, the last may be shorter. */
export function addSegmentSize(a: Arena, area: number, bytes: number): void {
  const at = area + SEND_CONTROL + a.words[(area + MSG_CONTROL_BYTES) >> 2];
  beginControl(a, at, 2, SOL_UDP, UDP_SEGMENT);
  a.words[(at + CMSG_HEADER_BYTES) >> 2] = bytes;
  a.words[(area + MSG_CONTROL_BYTES) >> 2] += 24;
}

/** The datagrams carry these ECN bits. */
export function addEcn(a: Arena, area: number, isV4: boolean, ecn: number): void {
  const at = area + SEND_CONTROL + a.words[(area + MSG_CONTROL_BYTES) >> 2];
  beginControl(a, at, 4, isV4 ? SOL_IP : SOL_IPV6, isV4 ? IP_TOS : IPV6_TCLASS);
  a.words[(at + CMSG_HEADER_BYTES) >> 2] = ecn;
  a.words[(area + MSG_CONTROL_BYTES) >> 2] += 24;
}

/** The datagrams leave from the address at `local` (16 bytes), through interface `scope` if that is not 0. */
export function addSource(
  a: Arena,
  area: number,
  family: number,
  local: number,
  scope: number,
): void {
  const at = area + SEND_CONTROL + a.words[(area + MSG_CONTROL_BYTES) >> 2];
  if (family === AF_INET) {
    beginControl(a, at, 12, SOL_IP, IP_PKTINFO);
    a.words[(at + CMSG_HEADER_BYTES) >> 2] = 0;
    a.view.setInt32(at + CMSG_HEADER_BYTES + 4, a.view.getInt32(local + 12));
    a.words[(at + CMSG_HEADER_BYTES + 8) >> 2] = 0;
    a.words[(area + MSG_CONTROL_BYTES) >> 2] += 32;
    return;
  }
  beginControl(a, at, 20, SOL_IPV6, IPV6_PKTINFO);
  for (let byte = 0; byte < ADDRESS_BYTES; byte += 4) {
    a.view.setInt32(at + CMSG_HEADER_BYTES + byte, a.view.getInt32(local + byte));
  }
  a.words[(at + CMSG_HEADER_BYTES + ADDRESS_BYTES) >> 2] = scope;
  a.words[(area + MSG_CONTROL_BYTES) >> 2] += 40;
}

/** Sends what the `count` vectors hold; never waits. */
export function sendMessage(
  a: Arena,
  fd: bigint,
  area: number,
  vectors: number,
  count: number,
): number {
  setPointer(a, area + MSG_VECTORS, vectors);
  setWide(a, area + MSG_VECTOR_COUNT, count);
  return checked(sendmsg(fd, pointerTo(a, area), MSG_DONTWAIT_NOSIGNAL));
}

/** Prepares a struct mmsghdr for the next receiving. */
export function prepareReceive(
  a: Arena,
  header: number,
  name: number,
  vector: number,
  control: number,
): void {
  setPointer(a, header + MSG_NAME, name);
  setWide(a, header + MSG_NAME_BYTES, NAME_BYTES - 4);
  setPointer(a, header + MSG_VECTORS, vector);
  setWide(a, header + MSG_VECTOR_COUNT, 1);
  setPointer(a, header + MSG_CONTROL, control);
  setWide(a, header + MSG_CONTROL_BYTES, CONTROL_BYTES);
  setWide(a, header + MSG_FLAGS, 0);
}

/** Receives what is there, at most `count` messages; how many came. */
export function receiveMessages(fd: bigint, headers: bigint, count: bigint): number {
  return checked(recvmmsg(fd, headers, count, MSG_DONTWAIT, 0n));
}

/** What was said about the message read last by readControl(). */
export interface Received {
  /** Bytes in all. */
  bytes: number;
  /** Bytes of each datagram in it but the last. */
  segmentBytes: number;
  /** ECN bits of the outer header. */
  ecn: number;
  /** Offset of the 16 (or, IPv4 socket, 4) bytes of the local address, 0 = not said. */
  local: number;
  /** The message was cut: not to be used. */
  isCut: boolean;
}

/** Reads a received struct mmsghdr and its control data, whose lengths are the kernel's but checked all the same. */
export function readControl(a: Arena, header: number, control: number, into: Received): void {
  const bytes = a.words[(header + MMSG_LENGTH) >> 2];
  into.bytes = bytes;
  into.segmentBytes = bytes;
  into.ecn = 0;
  into.local = 0;
  into.isCut = (a.words[(header + MSG_FLAGS) >> 2] & MSG_TRUNC_OR_CTRUNC) !== 0;
  const end = control + Math.min(CONTROL_BYTES, a.words[(header + MSG_CONTROL_BYTES) >> 2]);
  let at = control;
  while (at + CMSG_HEADER_BYTES < end) {
    const length = a.words[at >> 2];
    if (length < CMSG_HEADER_BYTES || at + length > end) return;
    const level = a.words[(at + 8) >> 2];
    const type = a.words[(at + 12) >> 2];
    const data = at + CMSG_HEADER_BYTES;
    if (level === SOL_UDP && type === UDP_GRO) {
      const segment = a.words[data >> 2];
      if (segment > 0) into.segmentBytes = segment;
    } else if (level === SOL_IPV6 && type === IPV6_PKTINFO) {
      into.local = data;
    } else if (level === SOL_IP && type === IP_PKTINFO) {
      into.local = data + 8;
    } else if (level === SOL_IP && type === IP_TOS) {
      into.ecn = a.bytes[data] & 3;
    } else if (level === SOL_IPV6 && type === IPV6_TCLASS) {
      into.ecn = a.words[data >> 2] & 3;
    }
    at += (length + 7) & ~7;
  }
}
