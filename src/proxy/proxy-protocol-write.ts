// Writes PROXY protocol headers (proxy-protocol.ts has the layout): what tells a backend who its
// client is. Pure and without allocation. A version 2 header may carry TLVs of the range kept for
// applications, and a CRC32C over all of it:
//
//   0xE0  country of the client, two upper-case letters (ISO 3166-1 alpha-2)
//   0xE1  the POP's region, its name

import { assert } from '../base/assert.ts';
import {
  ascii,
  COMMAND_LOCAL,
  COMMAND_PROXY,
  CR,
  CRC_BYTES,
  FAMILY_TCP4,
  FAMILY_TCP6,
  headerChecksum,
  LF,
  type ProxyAddress,
  SPACE,
  TLV_CRC32C,
  V1_TCP4,
  V1_TCP6,
  V2_ADDRESSES,
  V2_COMMAND,
  V2_FAMILY,
  V2_LENGTH,
  V2_SIGNATURE,
} from './proxy-protocol.ts';

/** Room the writer needs: the longest is version 2 with IPv6, both TLVs and CRC32C. */
export const PROXY_WRITE_BYTES_MAX = 256;
const PROXY_POP_BYTES_MAX = 128;

export const TLV_COUNTRY = 0xe0;
export const TLV_POP = 0xe1;

const V1_UNKNOWN_LINE = ascii('PROXY UNKNOWN\r\n');
const DOT = 0x2e;
const COLON = 0x3a;
const MAPPED_WORD = 0xffff;

/** What a version 2 header carries besides addresses. */
export interface ProxyExtras {
  /** Two upper-case letters, '' = none. */
  country: string;
  /** UTF-8 of the POP's region name, PROXY_POP_BYTES_MAX at most; empty = none. */
  pop: Uint8Array;
  checksum: boolean;
}

/** Scratch, one for each thread: the IPv6 address at hand. */
const words = new Int32Array(4);

/**
 * Writes a header at `offset` and returns its length; PROXY_WRITE_BYTES_MAX bytes must be free.
 * When only one end is IPv4 it is written IPv4-mapped, because a header has one family. A source of
 * family 0 gives what stands for "no client": UNKNOWN, or LOCAL, as for a health check.
 */
export function writeProxyHeader(
  target: Uint8Array,
  offset: number,
  version: number,
  source: ProxyAddress,
  destination: ProxyAddress,
  extras: ProxyExtras,
): number {
  assert(offset + PROXY_WRITE_BYTES_MAX <= target.length, 'No room for a PROXY header');
  return version === 1
    ? writeV1(target, offset, source, destination)
    : writeV2(target, offset, source, destination, extras);
}

function writeV1(
  target: Uint8Array,
  offset: number,
  source: ProxyAddress,
  destination: ProxyAddress,
): number {
  if (source.family === 0) return writeBytes(target, offset, V1_UNKNOWN_LINE) - offset;
  const v4 = source.family === 4 && destination.family === 4;
  let at = writeBytes(target, offset, v4 ? V1_TCP4 : V1_TCP6);
  at = v4 ? writeIPv4Text(target, at, source.w3) : writeIPv6Text(target, at, source);
  target[at++] = SPACE;
  at = v4 ? writeIPv4Text(target, at, destination.w3) : writeIPv6Text(target, at, destination);
  target[at++] = SPACE;
  at = writeDecimal(target, at, source.port);
  target[at++] = SPACE;
  at = writeDecimal(target, at, destination.port);
  target[at++] = CR;
  target[at++] = LF;
  return at - offset;
}

function writeBytes(target: Uint8Array, offset: number, bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length; at++) target[offset + at] = bytes[at];
  return offset + bytes.length;
}

function writeDecimal(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let unit = 10_000;
  while (unit > value && unit > 1) unit = Math.floor(unit / 10);
  for (; unit >= 1; unit = Math.floor(unit / 10)) {
    target[at++] = 0x30 + (Math.floor(value / unit) % 10);
  }
  return at;
}

function writeIPv4Text(target: Uint8Array, offset: number, address: number): number {
  let at = offset;
  for (let shift = 24; shift >= 0; shift -= 8) {
    at = writeDecimal(target, at, (address >>> shift) & 255);
    if (shift > 0) target[at++] = DOT;
  }
  return at;
}

/** Loads the address as IPv6, IPv4 as a mapped one. */
function loadIPv6(address: ProxyAddress): void {
  words[0] = address.w0;
  words[1] = address.w1;
  words[2] = address.family === 4 ? MAPPED_WORD : address.w2;
  words[3] = address.w3;
}

function group(index: number): number {
  return (words[index >> 1] >>> ((index & 1) === 0 ? 16 : 0)) & 0xffff;
}

/** RFC 5952, but never with a dotted tail: version 1 knows hexadecimal groups only. */
function writeIPv6Text(target: Uint8Array, offset: number, address: ProxyAddress): number {
  loadIPv6(address);
  let gap = 8;
  let gapGroups = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && group(end) === 0) end++;
    if (end - start <= gapGroups) continue;
    gap = start;
    gapGroups = end - start;
  }
  let at = offset;
  for (let index = 0; index < 8; index++) {
    if (index === gap) {
      target[at++] = COLON;
      if (gap + gapGroups === 8) target[at++] = COLON;
      index += gapGroups - 1;
      continue;
    }
    if (index > 0) target[at++] = COLON;
    at = writeGroup(target, at, group(index));
  }
  return at;
}

function writeGroup(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let shift = 12;
  while (shift > 0 && value >>> shift === 0) shift -= 4;
  for (; shift >= 0; shift -= 4) {
    const digit = (value >>> shift) & 15;
    target[at++] = digit < 10 ? 0x30 + digit : 0x57 + digit;
  }
  return at;
}

function writeV2(
  target: Uint8Array,
  offset: number,
  source: ProxyAddress,
  destination: ProxyAddress,
  extras: ProxyExtras,
): number {
  writeBytes(target, offset, V2_SIGNATURE);
  const local = source.family === 0;
  const v4 = source.family === 4 && destination.family === 4;
  target[offset + V2_COMMAND] = local ? COMMAND_LOCAL : COMMAND_PROXY;
  target[offset + V2_FAMILY] = local ? 0 : v4 ? FAMILY_TCP4 : FAMILY_TCP6;
  let at = offset + V2_ADDRESSES;
  let checksumAt = -1;
  if (!local) {
    at = writeV2Address(target, at, source, v4);
    at = writeV2Address(target, at, destination, v4);
    at = writeU16(target, at, source.port);
    at = writeU16(target, at, destination.port);
    at = writeCountry(target, at, extras.country);
    at = writePop(target, at, extras.pop);
    if (extras.checksum) {
      target[at] = TLV_CRC32C;
      checksumAt = writeU16(target, at + 1, CRC_BYTES);
      at = checksumAt + CRC_BYTES;
    }
  }
  writeU16(target, offset + V2_LENGTH, at - offset - V2_ADDRESSES);
  if (checksumAt >= 0) {
    const checksum = headerChecksum(target, offset, at - offset, checksumAt - offset);
    writeU32(target, checksumAt, checksum);
  }
  return at - offset;
}

function writeV2Address(
  target: Uint8Array,
  offset: number,
  address: ProxyAddress,
  v4: boolean,
): number {
  if (v4) return writeU32(target, offset, address.w3);
  loadIPv6(address);
  let at = offset;
  for (let word = 0; word < 4; word++) at = writeU32(target, at, words[word]);
  return at;
}

function writeCountry(target: Uint8Array, offset: number, country: string): number {
  if (country.length !== 2) return offset;
  target[offset] = TLV_COUNTRY;
  const at = writeU16(target, offset + 1, 2);
  target[at] = country.charCodeAt(0);
  target[at + 1] = country.charCodeAt(1);
  return at + 2;
}

function writePop(target: Uint8Array, offset: number, pop: Uint8Array): number {
  if (pop.length === 0) return offset;
  assert(pop.length <= PROXY_POP_BYTES_MAX, 'POP name too long for a PROXY header');
  target[offset] = TLV_POP;
  return writeBytes(target, writeU16(target, offset + 1, pop.length), pop);
}

function writeU16(target: Uint8Array, at: number, value: number): number {
  target[at] = value >>> 8;
  target[at + 1] = value;
  return at + 2;
}

function writeU32(target: Uint8Array, at: number, value: number): number {
  return writeU16(target, writeU16(target, at, (value >>> 16) & 0xffff), value & 0xffff);
}
