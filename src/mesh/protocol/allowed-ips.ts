// The allowed IPs of all peers: which peer an inner address belongs to, by the longest prefix (paper §2: cryptokey
// routing). The machine on the main thread changes them; the data threads look packets up without a lock or allocation.
//
// Two prefix trees (route/prefix-tree.ts) share the buffer, and one of them is current. A change builds the other one and
// then makes it current. A reader that was held up long enough to see its tree being rebuilt notices it by the version,
// and looks again. Meanwhile it may follow links of the wrong tree, but never leaves it.
//
//   version: odd = tree 1 is current | unused 7 words | tree 0 | tree 1; the roots of a tree: IPv4, IPv6

import {
  addPrefixNode,
  findPrefix,
  insertPrefix,
  NODE_WORDS,
  type PrefixTree,
  prefixTreeWords,
  prefixValue,
  setPrefixValue,
} from '../../route/prefix-tree.ts';
import type { Prefix } from '../../sys/prefix.ts';
import { PrefixOwners } from './prefix-owners.ts';

const HEADER_WORDS = 8;
const WORD_BYTES = 4;
const ROOTS = 2;
const ROOT_V4 = 0;
const ROOT_V6 = NODE_WORDS;
const V4_BITS = 96;
const MAPPED = [0, 0, 0xffff, 0] as const;
const UNSPECIFIED = [0, 0, 0, 0] as const;

/** The shared words; every thread makes its own over the same buffer. */
export class AllowedIpsTable {
  readonly version: Int32Array;
  readonly trees: readonly [Int32Array, Int32Array];

  constructor(buffer: SharedArrayBuffer, offset: number, prefixesMax: number) {
    const treeWords = prefixTreeWords(ROOTS, prefixesMax);
    this.version = new Int32Array(buffer, offset, HEADER_WORDS);
    const start = offset + HEADER_WORDS * WORD_BYTES;
    this.trees = [
      new Int32Array(buffer, start, treeWords),
      new Int32Array(buffer, start + treeWords * WORD_BYTES, treeWords),
    ];
  }

  /** Bytes of the buffer that a table of so many prefixes takes; it starts at a multiple of 4. */
  static bytes(prefixesMax: number): number {
    return (HEADER_WORDS + 2 * prefixTreeWords(ROOTS, prefixesMax)) * WORD_BYTES;
  }
}

/** The peer whose prefixes hold the address, or -1. Words are signed, IPv4 as ::ffff:0:0/96. For any thread. */
export function peerOfAddress(
  table: AllowedIpsTable,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  const isV4 = w0 === 0 && w1 === 0 && w2 === 0xffff;
  for (;;) {
    // Before the tree is read: sees all of the tree that was built before this version was stored.
    const version = Atomics.load(table.version, 0);
    const nodes = table.trees[version & 1] as Int32Array;
    // The root of a family that has no prefix of length 0 has no value either; it is skipped like a fork.
    const node = findPrefix(nodes, isV4 ? ROOT_V4 : ROOT_V6, w0, w1, w2, w3);
    const peer = node < 0 ? -1 : prefixValue(nodes, node) - 1;
    // After it: an unchanged version says that nobody rebuilt this tree meanwhile.
    if (Atomics.load(table.version, 0) === version) return peer;
  }
}

/** What the machine keeps: the prefixes of each peer. */
export class AllowedIps {
  readonly #table: AllowedIpsTable;
  readonly #prefixesMax: number;
  readonly #owners = new PrefixOwners<number>();

  constructor(table: AllowedIpsTable, prefixesMax: number) {
    this.#table = table;
    this.#prefixesMax = prefixesMax;
    this.publish();
  }

  /** Gives a prefix to a peer, taking it from whom it was. Throws when there are too many; publish() makes it so. */
  set(prefix: Prefix, peer: number): void {
    if (this.#owners.size >= this.#prefixesMax && !this.#owners.has(prefix)) {
      throw new RangeError(`Cannot add allowed IPs: at most ${this.#prefixesMax} prefixes in all`);
    }
    this.#owners.set(prefix, peer);
  }

  removePeer(peer: number): void {
    this.#owners.removeOwner(peer);
  }

  of(peer: number): Prefix[] {
    return this.#owners.of(peer);
  }

  /** Shows the data threads what has been changed. */
  publish(): void {
    const { version, trees } = this.#table;
    const next = Atomics.load(version, 0) + 1;
    const nodes = trees[next & 1] as Int32Array;
    nodes.fill(0);
    const tree: PrefixTree = { nodes, end: 0 };
    addPrefixNode(tree, MAPPED, V4_BITS);
    addPrefixNode(tree, UNSPECIFIED, 0);
    for (const [peer, prefix] of this.#owners.all()) {
      const root = isV4Prefix(prefix) ? ROOT_V4 : ROOT_V6;
      setPrefixValue(nodes, insertPrefix(tree, root, prefix.words, prefix.length), peer + 1);
    }
    // Last: whoever sees the version sees the tree.
    Atomics.store(version, 0, next);
  }
}

function isV4Prefix({ words, length }: Prefix): boolean {
  return length >= V4_BITS && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
}
