// A short list of address prefixes that one asks for each connection: which peers are trusted proxies. Pure and without
// allocation; one pass over the list, about a nanosecond an entry. All addresses in one form, IPv4 as ::ffff:0:0/96; yet
// the families are apart, as in access lists: ::/0 holds no IPv4 address.

/** Words of an entry: address, then mask, most significant first. */
const ENTRY_WORDS = 8;
const MAPPED_WORD = 0xffff;

export interface PrefixWords {
  /** Four words, the bits beyond `length` 0. */
  readonly words: readonly number[];
  /** 0 to 128. */
  readonly length: number;
}

export function encodePrefixes(prefixes: readonly PrefixWords[]): Int32Array {
  return Int32Array.from(
    prefixes.flatMap(({ words, length }) => {
      const masks = [0, 1, 2, 3].map((index) => {
        const bits = Math.min(32, Math.max(0, length - index * 32));
        return bits === 0 ? 0 : -1 << (32 - bits);
      });
      return [...words, ...masks];
    }),
  );
}

/** Whether a prefix of the list holds the address; words are signed. */
export function isListed(
  list: Int32Array,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): boolean {
  const isV4 = w0 === 0 && w1 === 0 && w2 === MAPPED_WORD;
  for (let at = 0; at < list.length; at += ENTRY_WORDS) {
    // A prefix of IPv4 has all of the first three words.
    if (isV4 && list[at + 6] !== -1) continue;
    const differs =
      ((w0 ^ list[at]) & list[at + 4]) |
      ((w1 ^ list[at + 1]) & list[at + 5]) |
      ((w2 ^ list[at + 2]) & list[at + 6]) |
      ((w3 ^ list[at + 3]) & list[at + 7]);
    if (differs === 0) return true;
  }
  return false;
}
