// Splits what the kernel hands over at the TUN interface into packets that fit the MTU, as the kernel's own segmentation would
// (tcp_gso_segment, udp_gso_segment): headers copied in front of each payload, in place, so that one packet at a time is
// whole: the header of a packet overwrites the end of the payload before it, which has been sealed by then.

import type { Arena } from '../../sys/arena.ts';
import {
  VNET_BYTES,
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_FLAGS,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_GSO_UDP_L4,
  VNET_NEEDS_CSUM,
} from '../../sys/tun.ts';
import { fold, type Sum, swapped } from './checksum.ts';

const V4_HEADER_BYTES = 20;
const V6_HEADER_BYTES = 40;
const TCP_HEADER_BYTES = 20;
const UDP_HEADER_BYTES = 8;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const FIN_PSH = 0x09;
const CWR = 0x80;
/** IPv4 with its longest options and TCP with its longest, or IPv6 with as much in front of TCP. */
const TEMPLATE_BYTES = 256;
export const SPLIT_AREA_BYTES = TEMPLATE_BYTES;

/** A packet being split, and in `offset` and `length` the packet of it that is whole now. */
export interface Split {
  offset: number;
  length: number;
  isV4: boolean;
  /** Where the headers' template is, and their bytes. */
  readonly template: number;
  headerBytes: number;
  transport: number;
  isTcp: boolean;
  /** Payload not yet split: from `next` to `end`, `payloadBytes` each. */
  next: number;
  end: number;
  payloadBytes: number;
  sequence: number;
  identification: number;
  index: number;
  headerSum: number;
  transportSum: number;
  flags: number;
}

export function newSplit(template: number): Split {
  return {
    ...{ offset: 0, length: 0, isV4: true, template, headerBytes: 0, transport: 0, isTcp: false },
    ...{ next: 0, end: 0, payloadBytes: 0, sequence: 0, identification: 0, index: 0 },
    ...{ headerSum: 0, transportSum: 0, flags: 0 },
  };
}

/** Completes a checksum that was left to the device: over all from `start` on. */
function completeChecksum(
  a: Arena,
  sum: Sum,
  offset: number,
  length: number,
  start: number,
  field: number,
): boolean {
  if (start < V4_HEADER_BYTES || start + field + 2 > length) return false;
  const value = ~fold(sum(offset + start, length - start)) & 0xffff;
  // Zero means "no checksum" in UDP; the other form of zero is right for all.
  a.view.setUint16(offset + start + field, value === 0 ? 0xffff : value, true);
  return true;
}

function headersFit(s: Split, a: Arena, type: number, start: number, size: number): boolean {
  const { offset, length } = s;
  if (size === 0 || start < (s.isV4 ? V4_HEADER_BYTES : V6_HEADER_BYTES)) return false;
  // Headers are copied by words.
  if ((start & 3) !== 0 || length - start > 0xffff) return false;
  if (s.isV4 && start !== (a.bytes[offset] & 15) * 4) return false;
  s.isTcp = type !== VNET_GSO_UDP_L4;
  if (type === VNET_GSO_TCPV4 ? !s.isV4 : type === VNET_GSO_TCPV6 && s.isV4) return false;
  const least = s.isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
  if (start + least > length) return false;
  const bytes = s.isTcp ? (a.bytes[offset + start + 12] >> 4) * 4 : UDP_HEADER_BYTES;
  s.headerBytes = start + bytes;
  s.transport = start;
  return bytes >= least && s.headerBytes < length && s.headerBytes <= TEMPLATE_BYTES;
}

/** Keeps the headers with the changing fields zero, and the sums of what does not change. */
function takeTemplate(s: Split, a: Arena, sum: Sum): void {
  const { offset, template, transport, headerBytes } = s;
  const { bytes, view } = a;
  const checksum = transport + (s.isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  // The kernel left the sum of the pseudo-header, the whole length in it, in the checksum field.
  const partial = view.getUint16(offset + checksum, true);
  const wholeLength = swapped(s.length - transport);
  bytes.copyWithin(template, offset, offset + headerBytes);
  view.setUint16(template + checksum, 0);
  if (s.isV4) {
    s.identification = view.getUint16(template + 4);
    view.setUint16(template + 2, 0);
    view.setUint16(template + 4, 0);
    view.setUint16(template + 10, 0);
    s.headerSum = sum(template, transport);
  } else {
    view.setUint16(template + 4, 0);
  }
  if (s.isTcp) {
    s.sequence = view.getInt32(template + transport + 4);
    s.flags = bytes[template + transport + 13];
    view.setInt32(template + transport + 4, 0);
    bytes[template + transport + 13] = 0;
  } else {
    view.setUint16(template + transport + 4, 0);
  }
  s.transportSum =
    sum(template + transport, headerBytes - transport) + partial + (~wholeLength & 0xffff);
}

/** Begins with a packet of `length` bytes at `offset` (4-aligned), its virtio header VNET_BYTES before; false: malformed. */
export function beginSplit(s: Split, a: Arena, sum: Sum, offset: number, length: number): boolean {
  const { bytes, view } = a;
  const vnet = offset - VNET_BYTES;
  const type = bytes[vnet + VNET_GSO_TYPE] & ~VNET_GSO_ECN;
  const start = view.getUint16(vnet + VNET_CSUM_START, true);
  const version = length === 0 ? 0 : bytes[offset] >> 4;
  s.isV4 = version === 4;
  if (version !== 4 && version !== 6) return false;
  if (length < (s.isV4 ? V4_HEADER_BYTES : V6_HEADER_BYTES)) return false;
  s.offset = offset;
  s.length = length;
  s.index = 0;
  s.next = 0;
  s.end = 0;
  const needsChecksum = (bytes[vnet + VNET_FLAGS] & VNET_NEEDS_CSUM) !== 0;
  if (type === VNET_GSO_NONE) {
    if (!needsChecksum) return true;
    const field = view.getUint16(vnet + VNET_CSUM_OFFSET, true);
    return completeChecksum(a, sum, offset, length, start, field);
  }
  if (type !== VNET_GSO_TCPV4 && type !== VNET_GSO_TCPV6 && type !== VNET_GSO_UDP_L4) return false;
  const size = view.getUint16(vnet + VNET_GSO_SIZE, true);
  if (!needsChecksum || !headersFit(s, a, type, start, size)) return false;
  takeTemplate(s, a, sum);
  s.next = offset + s.headerBytes;
  s.end = offset + length;
  s.payloadBytes = size;
  return true;
}

/** Makes the next packet whole; false when there is none left. The first call gives the first one. */
export function nextSegment(s: Split, a: Arena, sum: Sum): boolean {
  if (s.end === 0) return s.index++ === 0;
  if (s.next >= s.end) return false;
  const { view, bytes } = a;
  const { template, transport, headerBytes } = s;
  const payload = Math.min(s.payloadBytes, s.end - s.next);
  const isLast = s.next + payload >= s.end;
  const at = s.next - headerBytes;
  for (let byte = 0; byte < headerBytes; byte += 4) {
    view.setInt32(at + byte, view.getInt32(template + byte, true), true);
  }
  const payloadSum = sum(s.next, payload);
  s.offset = at;
  s.length = headerBytes + payload;
  const transportBytes = s.length - transport;
  if (s.isV4) {
    const identification = (s.identification + s.index) & 0xffff;
    view.setUint16(at + 2, s.length);
    view.setUint16(at + 4, identification);
    const header = s.headerSum + swapped(s.length) + swapped(identification);
    view.setUint16(at + 10, ~fold(header) & 0xffff, true);
  } else {
    view.setUint16(at + 4, s.length - V6_HEADER_BYTES);
  }
  let total = s.transportSum + payloadSum + swapped(transportBytes);
  if (s.isTcp) {
    // FIN and PSH belong to the last one, CWR to the first.
    let flags = isLast ? s.flags : s.flags & ~FIN_PSH;
    if (s.index > 0) flags &= ~CWR;
    view.setInt32(at + transport + 4, s.sequence);
    bytes[at + transport + 13] = flags;
    total += swapped(s.sequence >>> 16) + swapped(s.sequence & 0xffff) + (flags << 8);
    s.sequence = (s.sequence + payload) | 0;
  } else {
    view.setUint16(at + transport + 4, transportBytes);
    total += swapped(transportBytes);
  }
  const checksum = ~fold(total) & 0xffff;
  const field = at + transport + (s.isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  view.setUint16(field, checksum === 0 && !s.isTcp ? 0xffff : checksum, true);
  s.next += payload;
  s.index++;
  return true;
}
