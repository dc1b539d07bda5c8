// Rewrites the tree of a database that cannot stay as it is (28- or 32-bit records, or a long data
// section, as city databases have) into a geo table: 24-bit records whose leaves are countries, and
// nodes with the same country on both sides folded away. Linear passes over arrays and no
// recursion, so that neither shared subtrees nor loops in a corrupt tree cost more than their
// nodes.

import {
  allocateGeoBuffer,
  GEO_FILE_OFFSET,
  GEO_NODES_MAX,
  type GeoTable,
  HEADER_NODE_COUNT,
  NODE_BYTES,
  viewGeoBuffer,
} from './geo-table.ts';
import {
  COUNTRY_KEY_MISSING,
  DataReader,
  geoError,
  type MmdbMetadata,
  SEPARATOR_BYTES,
} from './mmdb-data.ts';
import { COUNTRIES_COUNT } from './regions.ts';

/** The tree as arrays by node. An edge >= 0 is a node; a leaf is -1 - country. */
interface Edges {
  readonly left: Int32Array;
  readonly right: Int32Array;
  /** 0, or 1 + country where the whole subtree of the node has that country. */
  readonly folded: Uint8Array;
}

/**
 * The table of a database; header and jump tables are still to be filled, apart from the node
 * count.
 */
export function compactMmdb(file: Uint8Array, metadata: MmdbMetadata): GeoTable {
  const { nodeCount } = metadata;
  const edges: Edges = {
    left: new Int32Array(nodeCount),
    right: new Int32Array(nodeCount),
    folded: new Uint8Array(nodeCount),
  };
  readEdges(file, metadata, edges);
  foldEqual(edges);
  return writeTree(edges);
}

/** Reads all records, decoding each distinct data record once. */
function readEdges(file: Uint8Array, metadata: MmdbMetadata, edges: Edges): void {
  const { nodeCount, recordSize } = metadata;
  const { left, right } = edges;
  const nodeBytes = recordSize / 4;
  const leaves = new LeafReader(file, metadata);
  for (let node = 0, at = 0; node < nodeCount; node++, at += nodeBytes) {
    // The middle bytes: none for 24 bits, one shared by halves for 28, the fourth of each for 32.
    const first = threeBytes(file, at);
    let low = first;
    let high = 0;
    if (recordSize === 24) {
      high = threeBytes(file, at + 3);
    } else if (recordSize === 28) {
      const middle = file[at + 3] as number;
      low = ((middle & 0xf0) << 20) | first;
      high = ((middle & 0x0f) << 24) | threeBytes(file, at + 4);
    } else {
      low = first * 256 + (file[at + 3] as number);
      high = threeBytes(file, at + 4) * 256 + (file[at + 7] as number);
    }
    left[node] = low < nodeCount ? low : leaves.edgeOf(low - nodeCount);
    right[node] = high < nodeCount ? high : leaves.edgeOf(high - nodeCount);
  }
  leaves.finish(metadata.databaseType);
}

function threeBytes(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number)
  );
}

/** Turns leaf values into edges, remembering what each data record holds. */
class LeafReader {
  readonly #reader: DataReader;
  readonly #treeBytes: number;
  /**
   * By leaf value: 0 before it is decoded, then 1 + country. Untouched pages of it take no memory.
   */
  readonly #known: Uint8Array;
  #records = 0;
  #found = 0;

  constructor(file: Uint8Array, { treeBytes, dataEnd }: MmdbMetadata) {
    this.#reader = new DataReader(file, treeBytes + SEPARATOR_BYTES, dataEnd);
    this.#treeBytes = treeBytes;
    this.#known = new Uint8Array(dataEnd - treeBytes);
  }

  edgeOf(leaf: number): number {
    if (leaf === 0) return -1;
    if (leaf < SEPARATOR_BYTES || leaf >= this.#known.length) {
      throw geoError('a record of its tree is out of bounds');
    }
    const known = this.#known[leaf] as number;
    return known === 0 ? -this.#decode(leaf) : -known;
  }

  #decode(leaf: number): number {
    const country = this.#reader.countryAt(this.#treeBytes + leaf);
    this.#records++;
    if (country !== COUNTRY_KEY_MISSING) this.#found++;
    const known = 1 + Math.max(0, country);
    this.#known[leaf] = known;
    return known;
  }

  /** A database of something else (networks, say) has records, but never a country. */
  finish(databaseType: string): void {
    if (this.#records > 0 && this.#found === 0) {
      throw geoError(`no record has a country (its type is "${databaseType}")`);
    }
  }
}

/** An edge to a folded node is an edge to its country. */
function followFold(edge: number, folded: Uint8Array): number {
  return edge >= 0 && folded[edge] !== 0 ? -(folded[edge] as number) : edge;
}

/**
 * Marks nodes whose two sides are one country; children follow parents in files, so from the end.
 */
function foldEqual({ left, right, folded }: Edges): void {
  for (let node = left.length - 1; node > 0; node--) {
    const low = followFold(left[node] as number, folded);
    const high = followFold(right[node] as number, folded);
    if (low < 0 && low === high) folded[node] = -low;
  }
}

/** Writes the nodes that are left (always the root), in their order, and the country bytes. */
function writeTree({ left, right, folded }: Edges): GeoTable {
  const renumbered = new Int32Array(left.length);
  let kept = 0;
  for (let node = 0; node < left.length; node++) {
    renumbered[node] = kept;
    if (folded[node] === 0) kept++;
  }
  if (kept > GEO_NODES_MAX) throw geoError(`${kept} nodes are too many, at most ${GEO_NODES_MAX}`);
  const buffer = allocateGeoBuffer(kept * NODE_BYTES + COUNTRIES_COUNT + 1);
  new Int32Array(buffer, 0, HEADER_NODE_COUNT + 1)[HEADER_NODE_COUNT] = kept;
  const tree = new Uint8Array(buffer, GEO_FILE_OFFSET);
  let at = 0;
  for (let node = 0; node < left.length; node++) {
    if (folded[node] !== 0) continue;
    const low = followFold(left[node] as number, folded);
    const high = followFold(right[node] as number, folded);
    writeRecord(tree, at, low < 0 ? kept - 1 - low : (renumbered[low] as number));
    writeRecord(tree, at + 3, high < 0 ? kept - 1 - high : (renumbered[high] as number));
    at += NODE_BYTES;
  }
  for (let country = 0; country <= COUNTRIES_COUNT; country++) tree[at + country] = country;
  return viewGeoBuffer(buffer);
}

function writeRecord(tree: Uint8Array, at: number, record: number): void {
  tree[at] = record >>> 16;
  tree[at + 1] = record >>> 8;
  tree[at + 2] = record;
}
