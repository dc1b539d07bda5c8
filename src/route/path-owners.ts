// Which peer of the mesh a backend is behind: the one whose allowed IPs hold its address, by the longest prefix, as
// WireGuard itself chooses. Pure.

import type { PrefixWords } from './prefix-list.ts';
import {
  addPrefixNode,
  findPrefix,
  insertPrefix,
  NODE_WORDS,
  prefixTreeWords,
  prefixValue,
  setPrefixValue,
} from './prefix-tree.ts';

const MAPPED_WORD = 0xffff;
const MAPPED_BITS = 96;
const IPV4_ROOT = NODE_WORDS;

/** Made by createPathOwners(). */
export type PathOwners = Int32Array;

function isMapped(words: readonly number[]): boolean {
  return words[0] === 0 && words[1] === 0 && words[2] === MAPPED_WORD;
}

/** `prefixes` by peer; IPv4 as IPv4-mapped. Of peers with the same prefix the first has it. */
export function createPathOwners(peers: readonly (readonly PrefixWords[])[]): PathOwners {
  const count = peers.reduce((sum, prefixes) => sum + prefixes.length, 0);
  const nodes = new Int32Array(prefixTreeWords(2, count));
  const tree = { nodes, end: 0 };
  addPrefixNode(tree, [0, 0, 0, 0], 0);
  addPrefixNode(tree, [0, 0, MAPPED_WORD, 0], MAPPED_BITS);
  peers.forEach((prefixes, peer) => {
    for (const { words, length } of prefixes) {
      const isV4 = length >= MAPPED_BITS && isMapped(words);
      const node = insertPrefix(tree, isV4 ? IPV4_ROOT : 0, words, length);
      if (prefixValue(nodes, node) === 0) setPrefixValue(nodes, node, peer + 1);
    }
  });
  return nodes;
}

/** Number of the peer in the list given to createPathOwners(), -1 = none; words as there. */
export function pathOwner(owners: PathOwners, words: readonly number[]): number {
  const [w0, w1, w2, w3] = words as [number, number, number, number];
  const root = isMapped(words) ? IPV4_ROOT : 0;
  const node = findPrefix(owners, root, w0, w1, w2, w3);
  return node < 0 ? -1 : prefixValue(owners, node) - 1;
}
