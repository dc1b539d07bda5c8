// Joins TCP segments of one flow that came one after the other into super-packets of up to 64 KB for the TUN interface, as the
// kernel's generic receive offload would: only what splitting gives back bit by bit, and only after the segment's own
// checksum has been verified, because the kernel does not look at it again. Nothing is copied: the payloads are written
// from where they were decrypted. Several flows at once, so that interleaved connections are joined too.

import type { Arena } from '../../sys/arena.ts';
import { setVector } from '../../sys/datagram.ts';
import {
  VNET_BYTES,
  VNET_CSUM_OFFSET,
  VNET_CSUM_START,
  VNET_DATA_VALID,
  VNET_FLAGS,
  VNET_GSO_NONE,
  VNET_GSO_SIZE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_TYPE,
  VNET_HEADER_BYTES,
  VNET_NEEDS_CSUM,
} from '../../sys/tun.ts';
import { fold, type Sum, swapped } from './checksum.ts';

const FLOWS = 8;
const VECTORS = 72;
const VNET_STRIDE = 16;
const FLOW_BYTES = VNET_STRIDE + VECTORS * 16;
export const COALESCE_AREA_BYTES = FLOWS * FLOW_BYTES;
const TOTAL_MAX = 65_000;
const PROTOCOL_TCP = 6;
const V4_HEADER_BYTES = 20;
const V6_HEADER_BYTES = 40;
const TCP_HEADER_BYTES = 20;
const TCP_CHECKSUM = 16;
const ACK = 0x10;
const PSH = 0x08;
/** Don't fragment may be set, all else of the fragment word not. */
const FRAGMENT_MASK = 0xbfff;

/** Takes `count` vectors at `vectors` as one packet; 0 or more, or -errno. */
export type PacketWriter = (vectors: number, count: number) => number;

export interface Coalescer {
  readonly area: number;
  readonly write: PacketWriter;
  /** By flow: packets held (0 = the flow is free), offset of the first, its headers, payload of each, bytes in all, … */
  readonly held: Int32Array;
  readonly first: Int32Array;
  readonly headers: Int32Array;
  readonly payload: Int32Array;
  readonly total: Int32Array;
  readonly sequence: Int32Array;
  readonly identification: Int32Array;
  active: number;
  victim: number;
  failures: number;
}

export function newCoalescer(area: number, write: PacketWriter): Coalescer {
  const column = (): Int32Array => new Int32Array(FLOWS);
  return {
    ...{ area, write, held: column(), first: column(), headers: column(), payload: column() },
    ...{ total: column(), sequence: column(), identification: column() },
    ...{ active: 0, victim: 0, failures: 0 },
  };
}

const vnetOf = (c: Coalescer, flow: number): number => c.area + flow * FLOW_BYTES;
const vectorOf = (c: Coalescer, flow: number, index: number): number =>
  c.area + flow * FLOW_BYTES + VNET_STRIDE + index * 16;
const transportOf = (a: Arena, offset: number): number =>
  a.bytes[offset] >> 4 === 4 ? V4_HEADER_BYTES : V6_HEADER_BYTES;

/** Sum of the pseudo-header without the length. */
function pseudoSum(a: Arena, sum: Sum, offset: number): number {
  const addresses = a.bytes[offset] >> 4 === 4 ? sum(offset + 12, 8) : sum(offset + 8, 32);
  return addresses + swapped(PROTOCOL_TCP);
}

function clearVnet(a: Arena, vnet: number): void {
  for (let byte = 0; byte < VNET_BYTES; byte += 2) a.view.setInt16(vnet + byte, 0);
}

/** Writes one packet by itself, through the vectors of `flow`. */
function writeAlone(
  c: Coalescer,
  a: Arena,
  flow: number,
  offset: number,
  length: number,
  isVerified: boolean,
): void {
  const vnet = vnetOf(c, flow);
  clearVnet(a, vnet);
  a.bytes[vnet + VNET_FLAGS] = isVerified ? VNET_DATA_VALID : 0;
  a.bytes[vnet + VNET_GSO_TYPE] = VNET_GSO_NONE;
  setVector(a, vectorOf(c, flow, 0), vnet, VNET_BYTES);
  setVector(a, vectorOf(c, flow, 1), offset, length);
  if (c.write(vectorOf(c, flow, 0), 2) < 0) c.failures++;
}

function flushFlow(c: Coalescer, a: Arena, sum: Sum, flow: number): void {
  const held = c.held[flow];
  if (held === 0) return;
  c.held[flow] = 0;
  c.active--;
  const offset = c.first[flow];
  const headers = c.headers[flow];
  const length = headers + c.total[flow];
  if (held === 1) {
    writeAlone(c, a, flow, offset, length, true);
    return;
  }
  const isV4 = a.bytes[offset] >> 4 === 4;
  const transport = isV4 ? V4_HEADER_BYTES : V6_HEADER_BYTES;
  if (isV4) {
    a.view.setUint16(offset + 2, length);
    a.view.setUint16(offset + 10, 0);
    a.view.setUint16(offset + 10, ~fold(sum(offset, V4_HEADER_BYTES)) & 0xffff, true);
  } else {
    a.view.setUint16(offset + 4, length - V6_HEADER_BYTES);
  }
  // The rest of the sum is left to whoever needs it.
  const partial = fold(pseudoSum(a, sum, offset) + swapped(length - transport));
  a.view.setUint16(offset + transport + TCP_CHECKSUM, partial, true);
  const vnet = vnetOf(c, flow);
  a.bytes[vnet + VNET_FLAGS] = VNET_NEEDS_CSUM;
  a.bytes[vnet + VNET_GSO_TYPE] = isV4 ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6;
  a.view.setUint16(vnet + VNET_HEADER_BYTES, headers, true);
  a.view.setUint16(vnet + VNET_GSO_SIZE, c.payload[flow], true);
  a.view.setUint16(vnet + VNET_CSUM_START, transport, true);
  a.view.setUint16(vnet + VNET_CSUM_OFFSET, TCP_CHECKSUM, true);
  setVector(a, vectorOf(c, flow, 0), vnet, VNET_BYTES);
  if (c.write(vectorOf(c, flow, 0), held + 1) < 0) c.failures++;
}

/** Writes all that is held; before the receive buffers are used again. */
export function flushCoalescer(c: Coalescer, a: Arena, sum: Sum): void {
  for (let flow = 0; flow < FLOWS && c.active > 0; flow++) flushFlow(c, a, sum, flow);
}

/** Bytes of all headers of a TCP packet without IP options or extensions, 0 = something else. */
function tcpHeaders(a: Arena, offset: number, length: number): number {
  const isV4 = a.bytes[offset] >> 4 === 4;
  if (isV4) {
    if (a.bytes[offset] !== 0x45 || a.bytes[offset + 9] !== PROTOCOL_TCP) return 0;
    if ((a.view.getUint16(offset + 6) & FRAGMENT_MASK) !== 0) return 0;
  } else if (a.bytes[offset + 6] !== PROTOCOL_TCP) {
    return 0;
  }
  const transport = isV4 ? V4_HEADER_BYTES : V6_HEADER_BYTES;
  if (length < transport + TCP_HEADER_BYTES) return 0;
  const headers = transport + (a.bytes[offset + transport + 12] >> 4) * 4;
  return headers >= transport + TCP_HEADER_BYTES && headers <= length ? headers : 0;
}

function areSame(a: Arena, one: number, other: number, bytes: number): boolean {
  for (let byte = 0; byte < bytes; byte += 4) {
    if (a.view.getInt32(one + byte) !== a.view.getInt32(other + byte)) return false;
  }
  return true;
}

function findFlow(c: Coalescer, a: Arena, offset: number): number {
  if (c.active === 0) return -1;
  const isV4 = a.bytes[offset] >> 4 === 4;
  const start = isV4 ? 12 : 8;
  // Addresses, and behind them (there are no options) the ports.
  const bytes = isV4 ? 12 : 36;
  for (let flow = 0; flow < FLOWS; flow++) {
    if (c.held[flow] === 0) continue;
    const first = c.first[flow];
    if (a.bytes[first] >> 4 !== a.bytes[offset] >> 4) continue;
    if (areSame(a, first + start, offset + start, bytes)) return flow;
  }
  return -1;
}

/** Whether the packet's own checksums are right. */
function isIntact(a: Arena, sum: Sum, offset: number, length: number): boolean {
  const transport = transportOf(a, offset);
  if (transport === V4_HEADER_BYTES && fold(sum(offset, V4_HEADER_BYTES)) !== 0xffff) return false;
  const bytes = length - transport;
  const total = sum(offset + transport, bytes) + pseudoSum(a, sum, offset) + swapped(bytes);
  return fold(total) === 0xffff;
}

/** Whether the packet continues what `flow` holds, so that splitting would give both back. */
function continues(c: Coalescer, a: Arena, flow: number, offset: number, length: number): boolean {
  const first = c.first[flow];
  const headers = c.headers[flow];
  const payload = length - headers;
  if (payload > c.payload[flow] || c.total[flow] + payload > TOTAL_MAX) return false;
  if (c.held[flow] + 2 > VECTORS) return false;
  const { view, bytes } = a;
  const transport = transportOf(a, offset);
  if (transport === V4_HEADER_BYTES) {
    if (view.getUint16(first) !== view.getUint16(offset)) return false;
    if (view.getUint16(first + 6) !== view.getUint16(offset + 6)) return false;
    if (bytes[first + 8] !== bytes[offset + 8]) return false;
    if (view.getUint16(offset + 4) !== c.identification[flow]) return false;
  } else {
    if (view.getInt32(first) !== view.getInt32(offset)) return false;
    if (bytes[first + 7] !== bytes[offset + 7]) return false;
  }
  const one = first + transport;
  const other = offset + transport;
  return (
    view.getInt32(other + 4) === c.sequence[flow] &&
    view.getInt32(one + 8) === view.getInt32(other + 8) &&
    // Length of the header, reserved bits and window; the flags of both are known but for PSH.
    bytes[one + 12] === bytes[other + 12] &&
    view.getUint16(one + 14) === view.getUint16(other + 14) &&
    view.getUint16(one + 18) === view.getUint16(other + 18) &&
    areSame(a, one + TCP_HEADER_BYTES, other + TCP_HEADER_BYTES, headers - transport - 20)
  );
}

function append(c: Coalescer, a: Arena, flow: number, offset: number, length: number): void {
  const headers = c.headers[flow];
  const payload = length - headers;
  c.held[flow]++;
  setVector(a, vectorOf(c, flow, c.held[flow]), offset + headers, payload);
  c.total[flow] += payload;
  c.sequence[flow] += payload;
  c.identification[flow] = (c.identification[flow] + 1) & 0xffff;
}

function takeFlow(c: Coalescer, a: Arena, sum: Sum): number {
  for (let flow = 0; flow < FLOWS; flow++) if (c.held[flow] === 0) return flow;
  c.victim = (c.victim + 1) % FLOWS;
  flushFlow(c, a, sum, c.victim);
  return c.victim;
}

function begin(c: Coalescer, a: Arena, flow: number, offset: number, length: number): void {
  const headers = tcpHeaders(a, offset, length);
  c.held[flow] = 1;
  c.active++;
  c.first[flow] = offset;
  c.headers[flow] = headers;
  c.payload[flow] = length - headers;
  c.total[flow] = length - headers;
  c.sequence[flow] = a.view.getInt32(offset + transportOf(a, offset) + 4) + length - headers;
  c.identification[flow] = (a.view.getUint16(offset + 4) + 1) & 0xffff;
  setVector(a, vectorOf(c, flow, 1), offset, length);
}

/** Takes a whole inner packet (innerLength() of it is `length`), which must stay where it is until flushCoalescer(). */
export function coalesce(c: Coalescer, a: Arena, sum: Sum, offset: number, length: number): void {
  const headers = tcpHeaders(a, offset, length);
  if (headers === 0) {
    writeAlone(c, a, takeFlow(c, a, sum), offset, length, false);
    return;
  }
  const flags = a.bytes[offset + transportOf(a, offset) + 13];
  const flow = findFlow(c, a, offset);
  const isData = length > headers && (flags & ~PSH) === ACK;
  // What is not intact is left to the kernel to refuse and to count.
  if (!isData || !isIntact(a, sum, offset, length)) {
    if (flow >= 0) flushFlow(c, a, sum, flow);
    writeAlone(c, a, flow >= 0 ? flow : takeFlow(c, a, sum), offset, length, false);
    return;
  }
  const isFollowed =
    flow >= 0 && headers === c.headers[flow] && continues(c, a, flow, offset, length);
  if (isFollowed) {
    append(c, a, flow, offset, length);
    const first = c.first[flow];
    a.bytes[first + transportOf(a, first) + 13] |= flags & PSH;
    const isShort = length - headers < c.payload[flow];
    if (isShort || (flags & PSH) !== 0) flushFlow(c, a, sum, flow);
    return;
  }
  if (flow >= 0) flushFlow(c, a, sum, flow);
  const free = flow >= 0 ? flow : takeFlow(c, a, sum);
  begin(c, a, free, offset, length);
  if ((flags & PSH) !== 0) flushFlow(c, a, sum, free);
}
