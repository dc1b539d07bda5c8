// The PROXY protocol, versions 1 and 2 (doc/proxy-protocol.txt of HAProxy): its layout, and the
// reader of the header that a trusted proxy put before the client's bytes (proxy-protocol-write.ts
// writes them). Pure: bytes in, numbers out, no allocation. The reader takes the bytes so far and
// says "more" until a header is whole, so it may come split anywhere; a refusal is final.
//
// Read: addresses of TCP over IPv4 and IPv6. LOCAL, UNKNOWN, UNSPEC, UDP and UNIX are accepted as
// "no address" (family 0: the real peer counts), as the specification says. TLVs must fit; a CRC32C
// is checked; no other is looked at. Behind LOCAL or UNSPEC nobody knows where TLVs start: skipped.

import { decimal, isMappedIPv4, readDecimal, readIPv4, readIPv6 } from '../route/address-text.ts';

/** What the reader accepts: one version or both. */
export const PROXY_ACCEPT_V1 = 1;
export const PROXY_ACCEPT_V2 = 2;
export const PROXY_ACCEPT_ANY = PROXY_ACCEPT_V1 | PROXY_ACCEPT_V2;

/** Answers of parseProxyHeader besides the header's length. */
export const PROXY_NEED_MORE = 0;
export const PROXY_MALFORMED = -1;

/**
 * Longest header accepted. Version 2 could say 64 KiB; addresses and every registered TLV at its
 * usual size fit in a tenth of this, and it bounds what a proxy can make us hold.
 */
export const PROXY_HEADER_BYTES_MAX = 4096;
export const TLV_CRC32C = 0x03;
const TLV_HEADER_BYTES = 3;
export const CRC_BYTES = 4;

const V1_LINE_BYTES_MAX = 107;
export const V1_TCP4 = ascii('PROXY TCP4 ');
export const V1_TCP6 = ascii('PROXY TCP6 ');
const V1_UNKNOWN = ascii('PROXY UNKNOWN');

export const SPACE = 0x20;
export const CR = 0x0d;
export const LF = 0x0a;

/** Offsets into a version 2 header. */
export const V2_SIGNATURE = ascii('\r\n\r\n\0\r\nQUIT\n');
export const V2_COMMAND = 12;
export const V2_FAMILY = 13;
export const V2_LENGTH = 14;
export const V2_ADDRESSES = 16;
export const COMMAND_LOCAL = 0x20;
export const COMMAND_PROXY = 0x21;
export const FAMILY_TCP4 = 0x11;
export const FAMILY_TCP6 = 0x21;
/** Bytes of the address block by family: UNSPEC, IPv4, IPv6, UNIX. */
const ADDRESS_BYTES = Uint8Array.of(0, 12, 36, 216);
/** Transport: UNSPEC, STREAM, DGRAM. */
const TRANSPORT_MAX = 2;

/** An end of a connection, shaped as sys/socket.ts has a peer. Reused for every header. */
export interface ProxyAddress {
  /** 4 or 6; an IPv4-mapped IPv6 address reads as 4. 0: no address, use the real peer's. */
  family: number;
  /** Signed words in host order; IPv4 is in w3. */
  w0: number;
  w1: number;
  w2: number;
  w3: number;
  port: number;
}

/** Scratch, one for each thread: the address at hand. */
const words = new Int32Array(4);
const crcTable = makeCrcTable();

export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/**
 * Reads the header at `offset`, of which `length` bytes are there. Returns its length in bytes and
 * fills `source` with the client's address and `destination` with the one it connected to, or
 * PROXY_NEED_MORE, or PROXY_MALFORMED: also for a version that `accept` does not hold. What follows
 * the header is not looked at.
 */
export function parseProxyHeader(
  bytes: Uint8Array,
  offset: number,
  length: number,
  accept: number,
  source: ProxyAddress,
  destination: ProxyAddress,
): number {
  if (length <= 0) return PROXY_NEED_MORE;
  const first = bytes[offset];
  if (first === V1_TCP4[0] && (accept & PROXY_ACCEPT_V1) !== 0) {
    return parseV1(bytes, offset, length, source, destination);
  }
  if (first === V2_SIGNATURE[0] && (accept & PROXY_ACCEPT_V2) !== 0) {
    return parseV2(bytes, offset, length, source, destination);
  }
  return PROXY_MALFORMED;
}

/** Whether what is there of `expected` agrees with it. */
function agrees(bytes: Uint8Array, offset: number, length: number, expected: Uint8Array): boolean {
  const end = Math.min(length, expected.length);
  for (let at = 0; at < end; at++) {
    if (bytes[offset + at] !== expected[at]) return false;
  }
  return true;
}

function clearAddress(address: ProxyAddress): void {
  address.family = 0;
  address.w0 = 0;
  address.w1 = 0;
  address.w2 = 0;
  address.w3 = 0;
  address.port = 0;
}

function setAddress(address: ProxyAddress, family: number, port: number): void {
  const mapped = family === 6 && isMappedIPv4(words[0], words[1], words[2]);
  address.family = mapped ? 4 : family;
  address.w0 = words[0];
  address.w1 = words[1];
  address.w2 = mapped ? 0 : words[2];
  address.w3 = words[3];
  address.port = port;
}

function parseV1(
  bytes: Uint8Array,
  offset: number,
  length: number,
  source: ProxyAddress,
  destination: ProxyAddress,
): number {
  const tcp4 = agrees(bytes, offset, length, V1_TCP4);
  const tcp6 = agrees(bytes, offset, length, V1_TCP6);
  const unknown = agrees(bytes, offset, length, V1_UNKNOWN);
  if (!tcp4 && !tcp6 && !unknown) return PROXY_MALFORMED;
  const line = lineBytes(bytes, offset, length);
  if (line <= 0) return line;
  const end = offset + line - 2;
  if (unknown) {
    // "UNKNOWN" alone, or a blank and text that must be ignored.
    const at = offset + V1_UNKNOWN.length;
    if (at < end && bytes[at] !== SPACE) return PROXY_MALFORMED;
    clearAddress(source);
    clearAddress(destination);
    return line;
  }
  // All of it is judged before anything is written to the caller's addresses.
  const family = tcp4 ? 4 : 6;
  const from = offset + V1_TCP4.length;
  const target = readAddress(bytes, from, end, family);
  const ports = target < 0 ? -1 : readAddress(bytes, target, end, family);
  const next = ports < 0 ? -1 : readDecimal(bytes, ports, end, 0xffff);
  if (next < 0 || next >= end || bytes[next] !== SPACE) return PROXY_MALFORMED;
  const port = decimal[0];
  if (readDecimal(bytes, next + 1, end, 0xffff) !== end) return PROXY_MALFORMED;
  setAddress(destination, family, decimal[0]);
  readAddress(bytes, from, end, family);
  setAddress(source, family, port);
  return line;
}

/** An address and the one blank behind it, into `words`. Returns the offset after, or -1. */
function readAddress(bytes: Uint8Array, at: number, end: number, family: number): number {
  const next = family === 4 ? readIPv4(bytes, at, end, words) : readIPv6(bytes, at, end, words);
  return next >= 0 && next < end && bytes[next] === SPACE ? next + 1 : -1;
}

/** Length of the line with its CR LF; neither may come alone. */
function lineBytes(bytes: Uint8Array, offset: number, length: number): number {
  const end = offset + Math.min(length, V1_LINE_BYTES_MAX);
  for (let at = offset; at < end; at++) {
    if (bytes[at] === LF) return PROXY_MALFORMED;
    if (bytes[at] !== CR) continue;
    if (at + 1 === end) break;
    return bytes[at + 1] === LF ? at + 2 - offset : PROXY_MALFORMED;
  }
  return length >= V1_LINE_BYTES_MAX ? PROXY_MALFORMED : PROXY_NEED_MORE;
}

function parseV2(
  bytes: Uint8Array,
  offset: number,
  length: number,
  source: ProxyAddress,
  destination: ProxyAddress,
): number {
  if (!agrees(bytes, offset, length, V2_SIGNATURE)) return PROXY_MALFORMED;
  if (length <= V2_COMMAND) return PROXY_NEED_MORE;
  const command = bytes[offset + V2_COMMAND];
  if (command !== COMMAND_LOCAL && command !== COMMAND_PROXY) return PROXY_MALFORMED;
  if (length < V2_ADDRESSES) return PROXY_NEED_MORE;
  const total = V2_ADDRESSES + readU16(bytes, offset + V2_LENGTH);
  if (total > PROXY_HEADER_BYTES_MAX) return PROXY_MALFORMED;
  const family = bytes[offset + V2_FAMILY];
  // A LOCAL header's family is ignored, whatever it is; its bytes are skipped.
  const tlvs = command === COMMAND_LOCAL ? total : tlvOffset(family, total);
  if (tlvs < 0) return PROXY_MALFORMED;
  if (length < total) return PROXY_NEED_MORE;
  if (!checkTlvs(bytes, offset, tlvs, total)) return PROXY_MALFORMED;
  if (command === COMMAND_PROXY && (family === FAMILY_TCP4 || family === FAMILY_TCP6)) {
    readV2Addresses(bytes, offset + V2_ADDRESSES, family, source, destination);
  } else {
    clearAddress(source);
    clearAddress(destination);
  }
  return total;
}

/** Where the TLVs of a PROXY header start: `total` when that cannot be known, -1 when malformed. */
function tlvOffset(family: number, total: number): number {
  const address = family >>> 4;
  const transport = family & 15;
  if (address >= ADDRESS_BYTES.length || transport > TRANSPORT_MAX) return -1;
  if (address === 0 || transport === 0) return total;
  const tlvs = V2_ADDRESSES + ADDRESS_BYTES[address];
  return tlvs > total ? -1 : tlvs;
}

/** Every TLV lies within the header, and the checksum is right if there is one. */
function checkTlvs(bytes: Uint8Array, offset: number, tlvs: number, total: number): boolean {
  let at = tlvs;
  let checksumAt = -1;
  while (at < total) {
    if (total - at < TLV_HEADER_BYTES) return false;
    const valueBytes = readU16(bytes, offset + at + 1);
    const value = at + TLV_HEADER_BYTES;
    if (valueBytes > total - value) return false;
    if (bytes[offset + at] === TLV_CRC32C) {
      // A second one could not be right: each is computed with only itself as zeros.
      if (valueBytes !== CRC_BYTES || checksumAt >= 0) return false;
      checksumAt = value;
    }
    at = value + valueBytes;
  }
  if (checksumAt < 0) return true;
  return readU32(bytes, offset + checksumAt) === headerChecksum(bytes, offset, total, checksumAt);
}

function readV2Addresses(
  bytes: Uint8Array,
  at: number,
  family: number,
  source: ProxyAddress,
  destination: ProxyAddress,
): void {
  if (family === FAMILY_TCP4) {
    readV2IPv4(bytes, at, source, readU16(bytes, at + 8));
    readV2IPv4(bytes, at + 4, destination, readU16(bytes, at + 10));
  } else {
    readV2IPv6(bytes, at, source, readU16(bytes, at + 32));
    readV2IPv6(bytes, at + 16, destination, readU16(bytes, at + 34));
  }
}

function readV2IPv4(bytes: Uint8Array, at: number, target: ProxyAddress, port: number): void {
  words.fill(0);
  words[3] = readU32(bytes, at);
  setAddress(target, 4, port);
}

function readV2IPv6(bytes: Uint8Array, at: number, target: ProxyAddress, port: number): void {
  for (let word = 0; word < 4; word++) words[word] = readU32(bytes, at + word * 4);
  setAddress(target, 6, port);
}

function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

/** Signed, like all words here. */
function readU32(bytes: Uint8Array, at: number): number {
  return (readU16(bytes, at) << 16) | readU16(bytes, at + 2);
}

function makeCrcTable(): Int32Array {
  // CRC32c (Castagnoli), reflected: RFC 4960 appendix B.
  return Int32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) {
      value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f6_3b78 : value >>> 1;
    }
    return value;
  });
}

/** CRC32c of the header, its four checksum bytes read as zeros. Signed. */
export function headerChecksum(
  bytes: Uint8Array,
  offset: number,
  total: number,
  checksumAt: number,
): number {
  let crc = -1;
  for (let at = 0; at < total; at++) {
    const own = at >= checksumAt && at < checksumAt + CRC_BYTES;
    const byte = own ? 0 : bytes[offset + at];
    crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  }
  return ~crc;
}
