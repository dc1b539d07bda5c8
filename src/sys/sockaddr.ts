// Socket addresses: text, words and the kernel's struct sockaddr_in / sockaddr_in6 (ip(7), ipv6(7)).
// An address is four 32-bit words in host order; IPv4 sits in word 3 with words 0 to 2 zero. Pure: no native calls.

import { isIPv4, isIPv6 } from 'node:net';

export const AF_INET = 2;
export const AF_INET6 = 10;
/** Room for either structure; both start with the 16-bit family. */
export const SOCKADDR_BYTES = 28;
const SOCKADDR_IN_BYTES = 16;
/** Distance between addresses in an array of them, aligned for word access. */
export const SOCKADDR_STRIDE = 32;

const FAMILY = 0;
const PORT = 2;
const IN_ADDRESS = 4;
const IN6_FLOWINFO = 4;
const IN6_ADDRESS = 8;
const IN6_SCOPE = 24;

/** `family` 4 or 6; `words` as above; `port` 0..65535. */
export interface SocketAddress {
  family: 4 | 6;
  words: [number, number, number, number];
  port: number;
}

function parseIPv4(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number) as [number, number, number, number];
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

function parseGroups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const v4 = parseIPv4(group);
    return [v4 >>> 16, v4 & 0xffff];
  });
}

/** The words of an IPv4 or IPv6 literal (no zone), or null when `text` is neither. */
export function parseAddress(text: string): Pick<SocketAddress, 'family' | 'words'> | null {
  if (isIPv4(text)) return { family: 4, words: [0, 0, 0, parseIPv4(text)] };
  if (!isIPv6(text) || text.includes('%')) return null;
  const [head, tail] = text.split('::') as [string, string | undefined];
  const left = parseGroups(head);
  const right = tail === undefined ? [] : parseGroups(tail);
  const groups = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  const word = (index: number): number =>
    (((groups[index * 2] as number) << 16) | (groups[index * 2 + 1] as number)) >>> 0;
  return { family: 6, words: [word(0), word(1), word(2), word(3)] };
}

/** True for ::ffff:0:0/96, an IPv4 client on an IPv6 socket. */
export function isMapped(w0: number, w1: number, w2: number): boolean {
  return w0 === 0 && w1 === 0 && w2 === 0xffff;
}

function formatIPv4(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
}

/** RFC 5952 text of an address; an IPv4-mapped one as `::ffff:1.2.3.4`. */
export function formatAddress(family: number, words: ArrayLike<number>): string {
  const [w0, w1, w2, w3] = [words[0], words[1], words[2], words[3]] as number[] as [
    number,
    number,
    number,
    number,
  ];
  if (family === 4) return formatIPv4(w3);
  if (isMapped(w0, w1, w2)) return `::ffff:${formatIPv4(w3)}`;
  const groups = [w0, w1, w2, w3].flatMap((word) => [word >>> 16, word & 0xffff]);
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > bestLength) {
      bestStart = start;
      bestLength = end - start;
    }
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(':');
  return bestStart < 0 ? hex(0, 8) : `${hex(0, bestStart)}::${hex(bestStart + bestLength, 8)}`;
}

/** `1.2.3.4:80` or `[::1]:80`. */
export function formatSocketAddress(address: SocketAddress): string {
  const host = formatAddress(address.family, address.words);
  return address.family === 4 ? `${host}:${address.port}` : `[${host}]:${address.port}`;
}

/** Writes the kernel's structure at `offset` and returns its length; the view must hold SOCKADDR_BYTES there. */
export function encodeSockaddr(view: DataView, offset: number, address: SocketAddress): number {
  const { family, words, port } = address;
  for (let index = 0; index < SOCKADDR_BYTES; index += 4) view.setUint32(offset + index, 0);
  view.setUint16(offset + FAMILY, family === 4 ? AF_INET : AF_INET6, true);
  view.setUint16(offset + PORT, port);
  if (family === 4) {
    view.setUint32(offset + IN_ADDRESS, words[3]);
    return SOCKADDR_IN_BYTES;
  }
  view.setUint32(offset + IN6_FLOWINFO, 0);
  for (let index = 0; index < 4; index++) {
    view.setUint32(offset + IN6_ADDRESS + index * 4, words[index] as number);
  }
  view.setUint32(offset + IN6_SCOPE, 0);
  return SOCKADDR_BYTES;
}

/** Reads what the kernel wrote; null when `length` is too short for the family or the family is another one. */
export function decodeSockaddr(
  view: DataView,
  offset: number,
  length: number,
): SocketAddress | null {
  if (length < 2 || offset < 0 || offset + length > view.byteLength) return null;
  const family = view.getUint16(offset + FAMILY, true);
  if (family === AF_INET && length >= 8) {
    const port = view.getUint16(offset + PORT);
    return { family: 4, words: [0, 0, 0, view.getUint32(offset + IN_ADDRESS)], port };
  }
  if (family === AF_INET6 && length >= 24) {
    const port = view.getUint16(offset + PORT);
    const word = (index: number): number => view.getUint32(offset + IN6_ADDRESS + index * 4);
    return { family: 6, words: [word(0), word(1), word(2), word(3)], port };
  }
  return null;
}

function toNetworkOrder(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}

/**
 * The same structure written through a word array at word index `at`, without allocating: `words[offset..offset+3]` is the
 * address. Returns its length in bytes; SOCKADDR_STRIDE bytes are overwritten. Little-endian hosts only (x86-64, arm64).
 */
export function encodeSockaddrWords(
  target: Int32Array,
  at: number,
  family: number,
  words: Uint32Array,
  offset: number,
  port: number,
): number {
  const portBytes = ((port & 0xff) << 24) | ((port & 0xff00) << 8);
  if (family === 4) {
    target[at] = AF_INET | portBytes;
    target[at + 1] = toNetworkOrder(words[offset + 3]);
    target[at + 2] = 0;
    target[at + 3] = 0;
    return SOCKADDR_IN_BYTES;
  }
  target[at] = AF_INET6 | portBytes;
  target[at + 1] = 0;
  target[at + 2] = toNetworkOrder(words[offset]);
  target[at + 3] = toNetworkOrder(words[offset + 1]);
  target[at + 4] = toNetworkOrder(words[offset + 2]);
  target[at + 5] = toNetworkOrder(words[offset + 3]);
  target[at + 6] = 0;
  return SOCKADDR_BYTES;
}
