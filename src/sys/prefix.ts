// Address prefixes as text: `10.0.0.0/8`, `2001:db8::/32`, or one address. Both families in one form, as IPv6: an IPv4
// prefix is that of the IPv4-mapped addresses, so that neither can be taken for the other's. Pure: no native calls.

import { formatAddress, isMapped, parseAddress } from './sockaddr.ts';

/** `words` in host order, IPv4 as ::ffff:a.b.c.d; `length` 0 to 128, of IPv4 96 to 128. */
export interface Prefix {
  readonly words: readonly number[];
  readonly length: number;
}

const MAPPED_BITS = 96;
const WORDS = [0, 1, 2, 3];

/** Bits of word `index` that belong to a prefix of `length`. */
function prefixMask(length: number, index: number): number {
  const bits = Math.min(32, Math.max(0, length - index * 32));
  return bits === 0 ? 0 : -1 << (32 - bits);
}

/** The prefix, or what is wrong with the text. */
export function parsePrefix(text: string): Prefix | string {
  const [host = '', bits, ...more] = text.split('/');
  const address = parseAddress(host);
  if (address === null || more.length > 0) {
    return 'must be an address, or a prefix as in 10.0.0.0/8 or 2001:db8::/32';
  }
  const isV4 = address.family === 4;
  const bitsMax = isV4 ? 32 : 128;
  if (bits !== undefined && !(/^(0|[1-9]\d{0,2})$/.test(bits) && Number(bits) <= bitsMax)) {
    return `must have a prefix length from 0 to ${bitsMax}`;
  }
  const length = Number(bits ?? bitsMax) + (isV4 ? MAPPED_BITS : 0);
  const all = isV4 ? [0, 0, 0xffff, address.words[3]] : address.words;
  const words = WORDS.map((index) => (all[index] & prefixMask(length, index)) >>> 0);
  if (words.every((word, index) => word === all[index])) return { words, length };
  return `must not have bits beyond its prefix length, as in ${formatPrefix({ words, length })}`;
}

/** As parsePrefix() reads it; an address alone without its length. */
export function formatPrefix({ words, length }: Prefix): string {
  const isV4 = length >= MAPPED_BITS && isMapped(words[0], words[1], words[2]);
  const address = formatAddress(isV4 ? 4 : 6, words);
  return length === 128 ? address : `${address}/${isV4 ? length - MAPPED_BITS : length}`;
}
