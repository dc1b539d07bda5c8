// What the device must know of an inner packet: its length by its own header, whose address counts for the allowed IPs, and
// its ECN bits. A raw parser: every length is checked before a byte is read.

import type { Arena } from '../../sys/arena.ts';
import { type AllowedIpsTable, peerOfAddress } from '../protocol/allowed-ips.ts';
import { fold } from './checksum.ts';

const V4_HEADER_BYTES = 20;
const V6_HEADER_BYTES = 40;
const V4_SOURCE = 12;
const V4_DESTINATION = 16;
const V6_SOURCE = 8;
const V6_DESTINATION = 24;
const ECN_CE = 3;

/** Bytes of the packet at `offset` by its header, at most `length` (the rest is padding); 0 = no whole IP packet. */
export function innerLength(a: Arena, offset: number, length: number): number {
  if (length < V4_HEADER_BYTES) return 0;
  const version = a.bytes[offset] >> 4;
  if (version === 4) {
    const total = a.view.getUint16(offset + 2);
    const header = (a.bytes[offset] & 15) * 4;
    return header >= V4_HEADER_BYTES && total >= header && total <= length ? total : 0;
  }
  if (version !== 6 || length < V6_HEADER_BYTES) return 0;
  const total = V6_HEADER_BYTES + a.view.getUint16(offset + 4);
  return total <= length ? total : 0;
}

function peerOf(a: Arena, table: AllowedIpsTable, offset: number, v4: number, v6: number): number {
  const { view } = a;
  if (a.bytes[offset] >> 4 === 4) {
    return peerOfAddress(table, 0, 0, 0xffff, view.getInt32(offset + v4));
  }
  const at = offset + v6;
  return peerOfAddress(
    table,
    view.getInt32(at),
    view.getInt32(at + 4),
    view.getInt32(at + 8),
    view.getInt32(at + 12),
  );
}

/** The peer to which a whole packet goes, or -1. */
export function peerOfDestination(a: Arena, table: AllowedIpsTable, offset: number): number {
  return peerOf(a, table, offset, V4_DESTINATION, V6_DESTINATION);
}

/** The peer from which a whole packet may come, or -1. */
export function peerOfSource(a: Arena, table: AllowedIpsTable, offset: number): number {
  return peerOf(a, table, offset, V4_SOURCE, V6_SOURCE);
}

/** ECN bits of a whole packet (RFC 3168). */
export function innerEcn(a: Arena, offset: number): number {
  if (a.bytes[offset] >> 4 === 4) return a.bytes[offset + 1] & 3;
  return (a.bytes[offset + 1] >> 4) & 3;
}

/** Says in a packet what the outer header said: congestion (RFC 6040 §4.2). False: it is to be dropped. */
export function applyEcn(a: Arena, offset: number, outer: number): boolean {
  if (outer !== ECN_CE) return true;
  const inner = innerEcn(a, offset);
  if (inner === 0) return false;
  if (a.bytes[offset] >> 4 === 6) {
    a.bytes[offset + 1] |= ECN_CE << 4;
    return true;
  }
  const before = a.view.getUint16(offset);
  a.bytes[offset + 1] |= ECN_CE;
  // RFC 1624: the checksum of a packet that was wrong stays wrong.
  const sum = (~a.view.getUint16(offset + 10) & 0xffff) + (~before & 0xffff);
  a.view.setUint16(offset + 10, ~fold(sum + a.view.getUint16(offset)) & 0xffff);
  return true;
}
