// A TUN interface (Documentation/networking/tuntap.rst of the kernel): whole IP packets, each behind a struct virtio_net_hdr,
// so that the kernel may hand over TCP and UDP super-packets of up to 64 KB and take such ones. Results: negative is -errno.

import { EAGAIN, EINTR } from './errno.ts';
import { bindNative, checked, native, num } from './native.ts';
import { SCRATCH_STRUCT, STRUCT_POINTER, scratchView } from './scratch.ts';
import { closeDescriptor } from './socket.ts';

const THREE = ['pointer', 'pointer', 'pointer'] as const;
const { ioctl, open, writev } = bindNative({
  ioctl: { arguments: THREE, return: 'int32' },
  open: { arguments: THREE, return: 'int32' },
  writev: { arguments: THREE, return: 'int32' },
});

const O_RDWR_NONBLOCK_CLOEXEC = 0o2004002n;
const TUNSETIFF = 0x4004_54can;
const TUNSETOFFLOAD = 0x4004_54d0n;
const SIOCGIFMTU = 0x8921n;
const SIOCSIFMTU = 0x8922n;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, and with it TUN_F_USO4 | TUN_F_USO6 (Linux 6.2). */
const OFFLOAD_TCP = 0x07n;
const OFFLOAD_TCP_UDP = 0x67n;
const IFREQ_BYTES = 40;
const IFREQ_UNION = 16;
const INTERFACE_NAME_BYTES_MAX = 15;

// struct virtio_net_hdr, little-endian on these hosts.
export const VNET_BYTES = 10;
export const VNET_FLAGS = 0;
export const VNET_GSO_TYPE = 1;
export const VNET_HEADER_BYTES = 2;
export const VNET_GSO_SIZE = 4;
export const VNET_CSUM_START = 6;
export const VNET_CSUM_OFFSET = 8;
export const VNET_NEEDS_CSUM = 1;
export const VNET_DATA_VALID = 2;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_UDP_L4 = 5;
/** Set in the GSO type when the first segment alone carries CWR. */
export const VNET_GSO_ECN = 0x80;

function writeName(name: string): void {
  const encoded = new TextEncoder().encode(name);
  if (encoded.length === 0 || encoded.length > INTERFACE_NAME_BYTES_MAX) {
    throw new RangeError(`Interface name "${name}": 1 to ${INTERFACE_NAME_BYTES_MAX} bytes`);
  }
  for (let at = 0; at < IFREQ_BYTES; at++) scratchView.setUint8(SCRATCH_STRUCT + at, 0);
  encoded.forEach((byte, at) => {
    scratchView.setUint8(SCRATCH_STRUCT + at, byte);
  });
}

/** Makes the interface, which lives as long as the descriptor does; non-blocking. */
export function openTun(name: string): number {
  const path = new TextEncoder().encode('/dev/net/tun\0');
  path.forEach((byte, at) => {
    scratchView.setUint8(SCRATCH_STRUCT + at, byte);
  });
  const fd = checked(open(STRUCT_POINTER, O_RDWR_NONBLOCK_CLOEXEC, 0n));
  if (fd < 0) return fd;
  writeName(name);
  scratchView.setUint16(SCRATCH_STRUCT + IFREQ_UNION, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, true);
  let result = checked(ioctl(num(fd), TUNSETIFF, STRUCT_POINTER));
  if (result >= 0) {
    result = checked(ioctl(num(fd), TUNSETOFFLOAD, OFFLOAD_TCP_UDP));
    if (result < 0) result = checked(ioctl(num(fd), TUNSETOFFLOAD, OFFLOAD_TCP));
  }
  if (result >= 0) return fd;
  closeDescriptor(fd);
  return result;
}

/** The interface's MTU, asked through any socket of its network namespace. */
export function readMtu(socket: number, name: string): number {
  writeName(name);
  const result = checked(ioctl(num(socket), SIOCGIFMTU, STRUCT_POINTER));
  return result < 0 ? result : scratchView.getInt32(SCRATCH_STRUCT + IFREQ_UNION, true);
}

export function writeMtu(socket: number, name: string, mtu: number): number {
  writeName(name);
  scratchView.setInt32(SCRATCH_STRUCT + IFREQ_UNION, mtu, true);
  return checked(ioctl(num(socket), SIOCSIFMTU, STRUCT_POINTER));
}

/** One packet behind its virtio header; -EAGAIN: there is none now. -EBADFD: the interface is gone. */
export function readPacket(fd: bigint, address: bigint, bytes: bigint): number {
  return checked(native.read(fd, address, bytes));
}

/** Gives the kernel one packet: virtio header, then the packet, in `count` pieces (struct iovec). */
export function writePacket(fd: bigint, vectors: bigint, count: number): number {
  return checked(writev(fd, vectors, num(count)));
}

/** Nothing there now: wait for it. */
export function isPause(result: number): boolean {
  return result === -EAGAIN || result === -EINTR;
}
