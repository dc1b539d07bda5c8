// A tree of address prefixes with path compression (a radix tree): finds the longest prefix that holds an address. Built
// once, in place, then only read. Addresses are four words, IPv4 as the IPv4-mapped IPv6 address; each root starts a tree
// of its own.
//
//   node (8 words): address, 4 words | length of its prefix | value, 0 = only a fork | child by the next bit: 0, 1 (0 = none)

const LENGTH = 4;
const VALUE = 5;
const CHILDREN = 6;
export const NODE_WORDS = 8;

/** A tree being built. Nodes are named by their position in the array. */
export interface PrefixTree {
  readonly nodes: Int32Array;
  /** Position of the next node. */
  end: number;
}

/** Words for `roots` trees of `prefixes` prefixes in all: each prefix takes its own node and one fork at most. */
export function prefixTreeWords(roots: number, prefixes: number): number {
  return (roots + prefixes * 2) * NODE_WORDS;
}

export function prefixValue(nodes: Int32Array, node: number): number {
  return nodes[node + VALUE];
}

export function setPrefixValue(nodes: Int32Array, node: number, value: number): void {
  nodes[node + VALUE] = value;
}

export function prefixLength(nodes: Int32Array, node: number): number {
  return nodes[node + LENGTH];
}

/** A node that hangs on nothing yet, or a root. Bits of `words` beyond `length` are never looked at. */
export function addPrefixNode(tree: PrefixTree, words: readonly number[], length: number): number {
  const node = tree.end;
  for (let word = 0; word < 4; word++) tree.nodes[node + word] = words[word];
  tree.nodes[node + LENGTH] = length;
  tree.end += NODE_WORDS;
  return node;
}

/** The node of exactly this prefix, made if there is none; `root` must hold it. */
export function insertPrefix(
  tree: PrefixTree,
  root: number,
  words: readonly number[],
  length: number,
): number {
  const { nodes } = tree;
  const [w0, w1, w2, w3] = words as [number, number, number, number];
  let node = root;
  /** Where the link to `node` is. */
  let link = 0;
  for (;;) {
    const nodeLength = nodes[node + LENGTH];
    const common = Math.min(length, nodeLength, commonBits(nodes, node, w0, w1, w2, w3));
    if (common < nodeLength) {
      // They part, or the new one ends, within this node's prefix: what both share comes before it.
      const fork = addPrefixNode(tree, words, common);
      nodes[fork + CHILDREN + bitOf(nodes[node + (common >> 5)], common)] = node;
      nodes[link] = fork;
      node = fork;
    }
    if (common === length) return node;
    link = node + CHILDREN + bitOf(words[common >> 5], common);
    if (nodes[link] === 0) {
      nodes[link] = addPrefixNode(tree, words, length);
      return nodes[link];
    }
    node = nodes[link];
  }
}

/** The node of the longest prefix with a value that holds the address, or -1. */
export function findPrefix(
  nodes: Int32Array,
  root: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  let found = -1;
  let node = root;
  do {
    const length = nodes[node + LENGTH];
    // Forks need not be compared: below one that does not hold the address no prefix does.
    if (nodes[node + VALUE] !== 0) {
      if (commonBits(nodes, node, w0, w1, w2, w3) < length) break;
      found = node;
      if (length === 128) break;
    }
    const word = length < 64 ? (length < 32 ? w0 : w1) : length < 96 ? w2 : w3;
    node = nodes[node + CHILDREN + bitOf(word, length)];
  } while (node !== 0);
  return found;
}

/** Bit `bit` of an address, in its word. */
function bitOf(word: number, bit: number): number {
  return (word >>> (31 - (bit & 31))) & 1;
}

/** Leading bits that a node's address shares with another. */
function commonBits(
  nodes: Int32Array,
  node: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  let differs = nodes[node] ^ w0;
  if (differs !== 0) return Math.clz32(differs);
  differs = nodes[node + 1] ^ w1;
  if (differs !== 0) return 32 + Math.clz32(differs);
  differs = nodes[node + 2] ^ w2;
  if (differs !== 0) return 64 + Math.clz32(differs);
  return 96 + Math.clz32(nodes[node + 3] ^ w3);
}
