// IP addresses as text bytes, read strictly and without allocating: PROXY protocol v1 lines and
// access lists. Words are signed, in host order, IPv4 in word 3. A reader returns the offset after
// what it read, or -1; it takes the longest run of characters and leaves judging the next one.

const DOT = 0x2e;
const COLON = 0x3a;
const ZERO = 0x30;
const MAPPED_WORD = 0xffff;
const GROUPS = 8;

/** Scratch, one for each thread: the groups of the IPv6 address at hand. */
const groups = new Uint16Array(GROUPS);
/** Scratch: the number readDecimal() read. */
export const decimal = new Int32Array(1);

/** A decimal number of at most `max`, without leading zeros, into `decimal[0]`. */
export function readDecimal(bytes: Uint8Array, from: number, end: number, max: number): number {
  let at = from;
  let value = 0;
  while (at < end) {
    const digit = bytes[at] - ZERO;
    if (digit < 0 || digit > 9) break;
    if (at > from && value === 0) return -1;
    value = value * 10 + digit;
    if (value > max) return -1;
    at++;
  }
  decimal[0] = value;
  return at === from ? -1 : at;
}

/** Four decimal numbers and dots; words 0 to 2 become 0. */
export function readIPv4(bytes: Uint8Array, from: number, end: number, words: Int32Array): number {
  let at = from;
  let address = 0;
  for (let part = 0; part < 4; part++) {
    if (part > 0 && (at >= end || bytes[at++] !== DOT)) return -1;
    at = readDecimal(bytes, at, end, 255);
    if (at < 0) return -1;
    address = (address << 8) | decimal[0];
  }
  words[0] = 0;
  words[1] = 0;
  words[2] = 0;
  words[3] = address;
  return at;
}

/** What inet_pton(3) takes: upper or lower case, one `::`, a dotted tail; no zone, no brackets. */
export function readIPv6(bytes: Uint8Array, from: number, end: number, words: Int32Array): number {
  let at = from;
  let count = 0;
  /** Groups before the `::`; -1 = none. */
  let gap = -1;
  if (at + 1 < end && bytes[at] === COLON && bytes[at + 1] === COLON) {
    gap = 0;
    at += 2;
  }
  while (count < GROUPS) {
    const next = readGroup(bytes, at, end, count);
    if (next < 0) {
      // Only right behind `::` may a group be missing: then the address ends there.
      if (gap === count && (at >= end || hexDigit(bytes[at]) < 0)) break;
      return -1;
    }
    if (next < end && bytes[next] === DOT) {
      if (count > GROUPS - 2) return -1;
      at = readIPv4(bytes, at, end, words);
      if (at < 0) return -1;
      groups[count++] = words[3] >>> 16;
      groups[count++] = words[3] & 0xffff;
      break;
    }
    count++;
    at = next;
    if (at >= end || bytes[at] !== COLON || count === GROUPS) break;
    at++;
    if (at >= end || bytes[at] !== COLON) continue;
    if (gap >= 0) return -1;
    gap = count;
    at++;
  }
  return fillWords(words, count, gap) ? at : -1;
}

/** One to four hexadecimal digits into `groups[index]`. */
function readGroup(bytes: Uint8Array, from: number, end: number, index: number): number {
  let at = from;
  let value = 0;
  while (at < end) {
    const digit = hexDigit(bytes[at]);
    if (digit < 0) break;
    if (at - from === 4) return -1;
    value = value * 16 + digit;
    at++;
  }
  groups[index] = value;
  return at === from ? -1 : at;
}

function hexDigit(byte: number): number {
  if (byte >= ZERO && byte <= 0x39) return byte - ZERO;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/** `::` stands for one group at least; without it all eight are there. */
function fillWords(words: Int32Array, count: number, gap: number): boolean {
  if (gap < 0 ? count !== GROUPS : count === GROUPS) return false;
  const missing = GROUPS - count;
  for (let word = 0; word < 4; word++) {
    words[word] = (groupAt(word * 2, gap, missing) << 16) | groupAt(word * 2 + 1, gap, missing);
  }
  return true;
}

function groupAt(index: number, gap: number, missing: number): number {
  if (gap < 0 || index < gap) return groups[index];
  return index < gap + missing ? 0 : groups[index - missing];
}

/** Whether the words are those of an IPv4-mapped IPv6 address, ::ffff:0:0/96. */
export function isMappedIPv4(w0: number, w1: number, w2: number): boolean {
  return w0 === 0 && w1 === 0 && w2 === MAPPED_WORD;
}
