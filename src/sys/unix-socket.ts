// Unix sockets (unix(7)) that carry messages: datagrams to a service manager, and packets that pass descriptors to another
// process (SCM_RIGHTS) whose identity the kernel vouches for (SO_PEERCRED). For the control plane: rare, never blocking.
// Names starting with `@` are abstract: in no file system, gone with their socket, one set per network namespace.

import { EINVAL } from './errno.ts';
import { type Mapping, mapMemory } from './memory.ts';
import { bindNative, checked, native, num } from './native.ts';
import { LENGTH_POINTER, SCRATCH_LENGTH, scratchWords } from './scratch.ts';

const POINTERS = ['pointer', 'pointer', 'pointer'] as const;

const AF_UNIX = 1;
const AF_UNIX_N = BigInt(AF_UNIX);
const SOCK_DGRAM = 2n;
const SOCK_SEQPACKET = 5n;
const SOCK_NONBLOCK_CLOEXEC = 0o2004000n;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17n;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000n;
const MSG_CMSG_CLOEXEC = 0x4000_0000n;
const MSG_CTRUNC = 8;
const MSG_TRUNC = 0x20;
const NAME_BYTES_MAX = 107;
/** Descriptors one message may carry: SCM_MAX_FD of the kernel. */
export const PASSED_MAX = 253;

// One area for all calls: struct msghdr, one iovec, a sockaddr_un, control data, the message. 64-bit layouts.
const MSG_NAME = 0;
const MSG_NAME_BYTES = 8;
const MSG_IOV = 16;
const MSG_IOV_COUNT = 24;
const MSG_CONTROL = 32;
const MSG_CONTROL_BYTES = 40;
const MSG_FLAGS = 48;
const AREA_IOV = 64;
const AREA_CREDENTIALS = 96;
const AREA_NAME = 128;
const AREA_CONTROL = 256;
const CMSG_HEADER_BYTES = 16;
const CONTROL_BYTES = CMSG_HEADER_BYTES + PASSED_MAX * 4 + 4;
const AREA_MESSAGE = 4096;
/** Longer messages are refused. */
const MESSAGE_BYTES_MAX = 16_384;

interface Calls {
  readonly area: Mapping;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly sendmsg: (...args: bigint[]) => number;
  readonly recvmsg: (...args: bigint[]) => number;
}

let opened: Calls | null = null;

/** Bound and mapped at first use: most starts need neither. */
function calls(): Calls {
  if (opened !== null) return opened;
  const area = mapMemory(AREA_MESSAGE + MESSAGE_BYTES_MAX, 'messages of unix sockets');
  const functions = bindNative({
    sendmsg: { arguments: POINTERS, return: 'int32' },
    recvmsg: { arguments: POINTERS, return: 'int32' },
  });
  const view = new DataView(area.buffer);
  opened = { area, view, bytes: new Uint8Array(area.buffer), ...functions };
  return opened;
}

/** A non-blocking, close-on-exec unix socket, or -errno. `packets` keep their bounds and order on a connection. */
export function openUnixSocket(kind: 'datagrams' | 'packets'): number {
  const type = (kind === 'packets' ? SOCK_SEQPACKET : SOCK_DGRAM) | SOCK_NONBLOCK_CLOEXEC;
  return checked(native.socket(AF_UNIX_N, type, 0n));
}

/** Writes struct sockaddr_un and returns its length; -EINVAL for a name that does not fit. */
function encodeName(name: string): number {
  const { view, bytes } = calls();
  const encoded = new TextEncoder().encode(name);
  if (encoded.length === 0 || encoded.length > NAME_BYTES_MAX) return -EINVAL;
  view.setUint16(AREA_NAME, AF_UNIX, true);
  bytes.set(encoded, AREA_NAME + 2);
  const isAbstract = name.startsWith('@');
  bytes[AREA_NAME + 2 + (isAbstract ? 0 : encoded.length)] = 0;
  // An abstract name ends with the length, a path with a zero byte.
  return 2 + encoded.length + (isAbstract ? 0 : 1);
}

function withName(call: (...args: bigint[]) => number, fd: number, name: string): number {
  const length = encodeName(name);
  if (length < 0) return length;
  return checked(call(num(fd), calls().area.address + BigInt(AREA_NAME), num(length)));
}

/** Takes `name`; 0 or -errno (-EADDRINUSE: another socket has it). */
export function bindUnix(fd: number, name: string): number {
  return withName(native.bind, fd, name);
}

/** The same, and lets others connect. */
export function listenUnix(fd: number, name: string, backlog: number): number {
  const result = bindUnix(fd, name);
  return result < 0 ? result : checked(native.listen(num(fd), num(backlog)));
}

/** Connects at once; 0 or -errno (-ECONNREFUSED: nobody has the name, -EAGAIN: its queue is full). */
export function connectUnix(fd: number, name: string): number {
  return withName(native.connect, fd, name);
}

/** A connection that waits, or -errno (-EAGAIN: none does). */
export function acceptUnix(fd: number): number {
  return checked(native.accept4(num(fd), 0n, 0n, SOCK_NONBLOCK_CLOEXEC));
}

export interface Credentials {
  /** As this process' namespace has it; 0 when it is not visible from here. */
  readonly pid: number;
  readonly uid: number;
}

/** Who is at the other end: the process that connected, resp. that listened. */
export function peerCredentials(fd: number): Credentials | null {
  const { area, view } = calls();
  scratchWords[SCRATCH_LENGTH / 4] = 12;
  const pointer = area.address + BigInt(AREA_CREDENTIALS);
  const level = BigInt(SOL_SOCKET);
  if (native.getsockopt(num(fd), level, SO_PEERCRED, pointer, LENGTH_POINTER) !== 0) return null;
  return {
    pid: view.getInt32(AREA_CREDENTIALS, true),
    uid: view.getUint32(AREA_CREDENTIALS + 4, true),
  };
}

/** Fills struct msghdr for `bytes` of the message area and `controlBytes` of control data. */
function prepare(nameBytes: number, bytes: number, controlBytes: number): bigint {
  const { area, view } = calls();
  const at = (offset: number): bigint => area.address + BigInt(offset);
  view.setBigUint64(MSG_NAME, nameBytes > 0 ? at(AREA_NAME) : 0n, true);
  view.setUint32(MSG_NAME_BYTES, nameBytes, true);
  view.setBigUint64(MSG_IOV, at(AREA_IOV), true);
  view.setBigUint64(MSG_IOV_COUNT, 1n, true);
  view.setBigUint64(AREA_IOV, at(AREA_MESSAGE), true);
  view.setBigUint64(AREA_IOV + 8, BigInt(bytes), true);
  view.setBigUint64(MSG_CONTROL, controlBytes > 0 ? at(AREA_CONTROL) : 0n, true);
  view.setBigUint64(MSG_CONTROL_BYTES, BigInt(controlBytes), true);
  view.setInt32(MSG_FLAGS, 0, true);
  return area.address;
}

function writeMessage(text: string): number {
  const encoded = new TextEncoder().encode(text);
  if (encoded.length > MESSAGE_BYTES_MAX) return -EINVAL;
  calls().bytes.set(encoded, AREA_MESSAGE);
  return encoded.length;
}

/** Sends a message to whoever has the name; bytes sent or -errno. */
export function sendDatagram(fd: number, name: string, text: string): number {
  const bytes = writeMessage(text);
  const nameBytes = encodeName(name);
  if (bytes < 0 || nameBytes < 0) return -EINVAL;
  return checked(calls().sendmsg(num(fd), prepare(nameBytes, bytes, 0), MSG_NOSIGNAL));
}

/** Sends a message with copies of at most PASSED_MAX descriptors; bytes sent or -errno. */
export function sendPacket(fd: number, text: string, descriptors: readonly number[] = []): number {
  const { view, sendmsg } = calls();
  const bytes = writeMessage(text);
  if (bytes < 0 || descriptors.length > PASSED_MAX) return -EINVAL;
  const dataBytes = descriptors.length * 4;
  if (dataBytes > 0) {
    view.setBigUint64(AREA_CONTROL, BigInt(CMSG_HEADER_BYTES + dataBytes), true);
    view.setInt32(AREA_CONTROL + 8, SOL_SOCKET, true);
    view.setInt32(AREA_CONTROL + 12, SCM_RIGHTS, true);
    descriptors.forEach((descriptor, index) => {
      view.setInt32(AREA_CONTROL + CMSG_HEADER_BYTES + index * 4, descriptor, true);
    });
  }
  const controlBytes = dataBytes > 0 ? CMSG_HEADER_BYTES + Math.ceil(dataBytes / 8) * 8 : 0;
  return checked(sendmsg(num(fd), prepare(0, bytes, controlBytes), MSG_NOSIGNAL));
}

export interface Packet {
  /** '' = the peer has closed. */
  readonly text: string;
  /** Copies that belong to the caller now; close-on-exec. */
  readonly descriptors: readonly number[];
  /** Something was cut off: descriptors over this process' limit, or a message that is too long. */
  readonly isCut: boolean;
}

/** The next message, or -errno (-EAGAIN: none is there yet). */
export function receivePacket(fd: number): Packet | number {
  const { view, bytes, recvmsg } = calls();
  const header = prepare(0, MESSAGE_BYTES_MAX, CONTROL_BYTES);
  const result = checked(recvmsg(num(fd), header, MSG_CMSG_CLOEXEC));
  if (result < 0) return result;
  const text = new TextDecoder().decode(bytes.slice(AREA_MESSAGE, AREA_MESSAGE + result));
  const descriptors: number[] = [];
  if (Number(view.getBigUint64(MSG_CONTROL_BYTES, true)) >= CMSG_HEADER_BYTES) {
    const end = AREA_CONTROL + Number(view.getBigUint64(AREA_CONTROL, true));
    const isRights =
      view.getInt32(AREA_CONTROL + 8, true) === SOL_SOCKET &&
      view.getInt32(AREA_CONTROL + 12, true) === SCM_RIGHTS;
    for (let at = AREA_CONTROL + CMSG_HEADER_BYTES; isRights && at + 4 <= end; at += 4) {
      descriptors.push(view.getInt32(at, true));
    }
  }
  const isCut = (view.getInt32(MSG_FLAGS, true) & (MSG_CTRUNC | MSG_TRUNC)) !== 0;
  return { text, descriptors, isCut };
}
