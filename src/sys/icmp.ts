// Sockets for ICMP and ICMPv6 echo through one interface: raw where that is allowed, else the kernel's ping sockets. They are
// opened while the process may; what is sent names the interface by its index (IP_PKTINFO, ip(7)) instead of binding the
// socket to it, because an interface that is made anew has another index, and binding again needs the privilege back. So
// nothing is ever sent through another one. Packets carry the kernel's time of arrival (SO_TIMESTAMPNS): a reader that is late
// does not distort the RTT. They are never fragmented, whatever the kernel believes the path MTU to be (IP_PMTUDISC_PROBE).

import { EACCES, EPERM } from './errno.ts';
import { type Mapping, mapMemory } from './memory.ts';
import { bindNative, checked, native, num } from './native.ts';
import {
  CLOCK_POINTER,
  SCRATCH_CLOCK,
  scratchView,
  scratchWords,
  VALUE_POINTER,
} from './scratch.ts';
import { AF_INET, AF_INET6 } from './sockaddr.ts';
import { closeDescriptor } from './socket.ts';

const SOCK_RAW = 3;
const SOCK_DGRAM = 2;
const SOCK_FLAGS = 0o2004000; // SOCK_CLOEXEC | SOCK_NONBLOCK
const IPPROTO_ICMP = 1n;
const IPPROTO_ICMPV6 = 58n;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_TIMESTAMPNS = 35;
const SOL_IP = 0;
const IP_PKTINFO = 8;
const IP_MTU_DISCOVER = 10;
const SOL_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_RECVPKTINFO = 49;
const IPV6_PKTINFO = 50;
const IPV6_DONTFRAG = 62;
const PMTUDISC_PROBE = 3;
const SOL_RAW = 255;
const ICMP_FILTER = 1;
const SOL_ICMPV6 = 58;
const ICMPV6_FILTER = 1;
const REPLY_V4 = 0;
const REPLY_V6 = 129;
const RECEIVE_BYTES = 1 << 20;
const CLOCK_REALTIME = 0n;
const MSG_DONTWAIT = 0x40n;
const MSG_DONTWAIT_TRUNC = 0x60n;
const MSG_CUT = 0x28; // MSG_TRUNC | MSG_CTRUNC

/** Areas of one mapping: struct msghdr, iovec, address, control data, packet. */
const AREA_IOV = 64;
const AREA_NAME = 96;
const AREA_CONTROL = 128;
const CONTROL_BYTES = 256;
const AREA_PACKET = 512;
const PACKET_BYTES_MAX = 65_536;
const CMSG_BYTES = 16;

export interface EchoSocket {
  readonly fd: number;
  readonly family: 4 | 6;
  /** Keeps our identifier and, for IPv4, comes with the IP header. */
  readonly isRaw: boolean;
}

/** One packet that came, valid until the next call. */
export interface EchoArrival {
  /** With the IPv4 header if the socket is raw. */
  readonly packet: Uint8Array;
  /** Host order; IPv4 is words 0, 0, 0, address. */
  readonly words: readonly number[];
  /** Index of the interface, 0 = unknown. */
  readonly interfaceIndex: number;
  /** Milliseconds of CLOCK_REALTIME as the kernel took it; NaN without a time stamp. */
  readonly arrivedMs: number;
}

interface Calls {
  readonly area: Mapping;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly sendmsg: (...args: bigint[]) => number;
  readonly recvmsg: (...args: bigint[]) => number;
  readonly if_nametoindex: (...args: bigint[]) => number;
}

let opened: Calls | undefined;

function calls(): Calls {
  if (opened !== undefined) return opened;
  const area = mapMemory(AREA_PACKET + PACKET_BYTES_MAX, 'echo packets');
  const three = ['pointer', 'pointer', 'pointer'] as const;
  const functions = bindNative({
    sendmsg: { arguments: three, return: 'int32' },
    recvmsg: { arguments: three, return: 'int32' },
    if_nametoindex: { arguments: ['pointer', 'pointer'], return: 'int32' },
  });
  const view = new DataView(area.buffer);
  opened = { area, view, bytes: new Uint8Array(area.buffer), ...functions };
  return opened;
}

function setOption(fd: number, level: number, name: number, value: number): void {
  scratchWords[0] = value;
  native.setsockopt(num(fd), num(level), num(name), VALUE_POINTER, 4n);
}

/** Only echo replies come through: the kernel drops the rest before it is queued. */
function filterReplies(fd: number, family: 4 | 6): void {
  if (family === 4) {
    setOption(fd, SOL_RAW, ICMP_FILTER, ~(1 << REPLY_V4));
    return;
  }
  for (let word = 0; word < 8; word++) {
    scratchWords[word] = word === REPLY_V6 >> 5 ? ~(1 << (REPLY_V6 & 31)) : -1;
  }
  native.setsockopt(num(fd), num(SOL_ICMPV6), num(ICMPV6_FILTER), VALUE_POINTER, 32n);
}

/** A socket for one family, or -errno (-EACCES, -EPERM: neither kind is allowed). */
export function openEchoSocket(family: 4 | 6): EchoSocket | number {
  const domain = num(family === 4 ? AF_INET : AF_INET6);
  const protocol = family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  let isRaw = true;
  let fd = checked(native.socket(domain, num(SOCK_RAW | SOCK_FLAGS), protocol));
  if (fd === -EPERM || fd === -EACCES) {
    isRaw = false;
    fd = checked(native.socket(domain, num(SOCK_DGRAM | SOCK_FLAGS), protocol));
  }
  if (fd < 0) return fd;
  setOption(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  setOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BYTES);
  if (family === 4) {
    setOption(fd, SOL_IP, IP_PKTINFO, 1);
    setOption(fd, SOL_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE);
  } else {
    setOption(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
    setOption(fd, SOL_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE);
    setOption(fd, SOL_IPV6, IPV6_DONTFRAG, 1);
  }
  if (isRaw) filterReplies(fd, family);
  return { fd, family, isRaw };
}

export function closeEchoSocket(socket: EchoSocket): void {
  closeDescriptor(socket.fd);
}

/** Index of an interface of this network namespace, 0 when there is none of that name. */
export function interfaceIndex(name: string): number {
  const { area, bytes, if_nametoindex } = calls();
  const encoded = new TextEncoder().encode(name);
  bytes.set(encoded, AREA_CONTROL);
  bytes[AREA_CONTROL + encoded.length] = 0;
  return if_nametoindex(area.address + BigInt(AREA_CONTROL), 0n);
}

/** CLOCK_REALTIME in ms, the clock of arrivals. */
export function realtimeMs(): number {
  native.clock_gettime(CLOCK_REALTIME, CLOCK_POINTER);
  return timespecMs(scratchView, SCRATCH_CLOCK);
}

function timespecMs(view: DataView, at: number): number {
  return Number(view.getBigInt64(at, true)) * 1000 + Number(view.getBigInt64(at + 8, true)) / 1e6;
}

function prepare(nameBytes: number, bytes: number, controlBytes: number): bigint {
  const { area, view } = calls();
  const at = (offset: number): bigint => area.address + BigInt(offset);
  view.setBigUint64(0, at(AREA_NAME), true);
  view.setUint32(8, nameBytes, true);
  view.setBigUint64(16, at(AREA_IOV), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(AREA_IOV, at(AREA_PACKET), true);
  view.setBigUint64(AREA_IOV + 8, BigInt(bytes), true);
  view.setBigUint64(32, at(AREA_CONTROL), true);
  view.setBigUint64(40, BigInt(controlBytes), true);
  view.setInt32(48, 0, true);
  return area.address;
}

/** Writes struct sockaddr_in or sockaddr_in6; its length. */
function writeName(family: 4 | 6, words: readonly number[]): number {
  const { view, bytes } = calls();
  bytes.fill(0, AREA_NAME, AREA_NAME + 28);
  view.setUint16(AREA_NAME, family === 4 ? AF_INET : AF_INET6, true);
  if (family === 4) {
    view.setUint32(AREA_NAME + 4, words[3]);
    return 16;
  }
  for (let word = 0; word < 4; word++) view.setUint32(AREA_NAME + 8 + word * 4, words[word]);
  return 28;
}

/** Writes the control message that names the interface; its length. */
function writeInterface(family: 4 | 6, index: number): number {
  const { view, bytes } = calls();
  const dataBytes = family === 4 ? 12 : 20;
  bytes.fill(0, AREA_CONTROL, AREA_CONTROL + CMSG_BYTES + 24);
  view.setBigUint64(AREA_CONTROL, BigInt(CMSG_BYTES + dataBytes), true);
  view.setInt32(AREA_CONTROL + 8, family === 4 ? SOL_IP : SOL_IPV6, true);
  view.setInt32(AREA_CONTROL + 12, family === 4 ? IP_PKTINFO : IPV6_PKTINFO, true);
  view.setInt32(AREA_CONTROL + CMSG_BYTES + (family === 4 ? 0 : 16), index, true);
  return CMSG_BYTES + (family === 4 ? 16 : 24);
}

/** Where sendEcho() takes the message from. */
export function echoBuffer(): Uint8Array {
  return calls().bytes.subarray(AREA_PACKET, AREA_PACKET + PACKET_BYTES_MAX);
}

/** Sends the first `bytes` of echoBuffer() to an address through interface `index`; bytes sent or -errno. */
export function sendEcho(
  { fd, family }: EchoSocket,
  words: readonly number[],
  index: number,
  bytes: number,
): number {
  const name = writeName(family, words);
  const control = writeInterface(family, index);
  return checked(calls().sendmsg(num(fd), prepare(name, bytes, control), MSG_DONTWAIT));
}

/** The next packet; null when none waits, or -errno. */
export function receiveEcho({ fd, family }: EchoSocket): EchoArrival | number {
  const { view, bytes, recvmsg } = calls();
  const header = prepare(28, PACKET_BYTES_MAX, CONTROL_BYTES);
  const length = checked(recvmsg(num(fd), header, MSG_DONTWAIT_TRUNC));
  if (length < 0) return length;
  const isCut = (view.getInt32(48, true) & MSG_CUT) !== 0;
  let index = 0;
  let arrivedMs = Number.NaN;
  const end = AREA_CONTROL + Math.min(CONTROL_BYTES, Number(view.getBigUint64(40, true)));
  for (let at = AREA_CONTROL; at + CMSG_BYTES <= end; ) {
    const messageBytes = Number(view.getBigUint64(at, true));
    if (messageBytes < CMSG_BYTES || at + messageBytes > end) break;
    const kind = view.getInt32(at + 8, true) * 1000 + view.getInt32(at + 12, true);
    const data = at + CMSG_BYTES;
    if (kind === SOL_SOCKET * 1000 + SO_TIMESTAMPNS) arrivedMs = timespecMs(view, data);
    else if (kind === SOL_IP * 1000 + IP_PKTINFO) index = view.getInt32(data, true);
    else if (kind === SOL_IPV6 * 1000 + IPV6_PKTINFO) index = view.getInt32(data + 16, true);
    at += Math.ceil(messageBytes / 8) * 8;
  }
  const words =
    family === 4
      ? [0, 0, 0, view.getUint32(AREA_NAME + 4)]
      : [0, 1, 2, 3].map((word) => view.getUint32(AREA_NAME + 8 + word * 4));
  return {
    packet: bytes.subarray(AREA_PACKET, AREA_PACKET + (isCut ? 0 : length)),
    words,
    interfaceIndex: index,
    arrivedMs,
  };
}
