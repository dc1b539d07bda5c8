// Compiles a MaxMind-format country or city database into a geo table (see geo-table.ts): checks
// every record of the tree, decodes each distinct data record once, and fills the jump tables. Runs
// once per file, cold, so it counts in the time to start: a small 24-bit database keeps its tree
// where the file was read to (one branch-free pass over it); others are rewritten by
// mmdb-compact.ts.

import {
  allocateGeoBuffer,
  GEO_FILE_OFFSET,
  GEO_MAGIC,
  type GeoTable,
  HEADER_MAGIC,
  HEADER_NODE_COUNT,
  HEADER_ROOT_IPV4,
  HEADER_ROOT_IPV6,
  JUMP4_BITS,
  JUMP6_BITS,
  JUMP6_SKIP,
  NODE_BYTES,
  viewGeoBuffer,
} from './geo-table.ts';
import { compactMmdb } from './mmdb-compact.ts';
import {
  COUNTRY_KEY_MISSING,
  DataReader,
  geoError,
  type MmdbMetadata,
  readMmdbMetadata,
  SEPARATOR_BYTES,
} from './mmdb-data.ts';

/**
 * Country bytes cover the whole data section of a tree kept as it is: fine for hundreds of records.
 */
const DATA_BYTES_MAX = 256 * 1024;

/** Upper 16 bits, from and to, of what has no country wherever the database puts it. */
const LOCAL_IPV4 = [
  [0x0000, 0x0100], // 0.0.0.0/8, unspecified
  [0x0a00, 0x0b00], // 10.0.0.0/8, private
  [0x6440, 0x6480], // 100.64.0.0/10, carrier-grade NAT
  [0x7f00, 0x8000], // 127.0.0.0/8, loopback
  [0xa9fe, 0xa9ff], // 169.254.0.0/16, link-local
  [0xac10, 0xac20], // 172.16.0.0/12, private
  [0xc0a8, 0xc0a9], // 192.168.0.0/16, private
  [0xe000, 0xf000], // 224.0.0.0/4, multicast
] as const;

/** Compiles a database. Throws ProxyError ERR_GEO_DATABASE when it is corrupt or not supported. */
export function parseMmdb(bytes: Uint8Array): SharedArrayBuffer {
  const metadata = readMmdbMetadata(bytes);
  const buffer = allocateGeoBuffer(bytes.length);
  new Uint8Array(buffer, GEO_FILE_OFFSET).set(bytes);
  return compile(buffer, metadata, false);
}

export interface CompiledMmdb {
  readonly buffer: SharedArrayBuffer;
  readonly metadata: MmdbMetadata;
}

/**
 * The same without a copy: takes over a buffer of allocateGeoBuffer with the file at
 * GEO_FILE_OFFSET. The result is in that buffer or in a smaller one. `trusted` leaves out the check
 * of each tree record (6 ms for the embedded database, 20 ms when no second core is free to
 * optimise the loop): only for a file that ships with the program. Lookups would stay in bounds
 * even if such a file were damaged.
 */
export function compileMmdb(buffer: SharedArrayBuffer, trusted = false): CompiledMmdb {
  const metadata = readMmdbMetadata(new Uint8Array(buffer, GEO_FILE_OFFSET));
  return { buffer: compile(buffer, metadata, trusted), metadata };
}

function compile(
  buffer: SharedArrayBuffer,
  metadata: MmdbMetadata,
  trusted: boolean,
): SharedArrayBuffer {
  const file = new Uint8Array(buffer, GEO_FILE_OFFSET);
  const dataBytes = metadata.dataEnd - metadata.treeBytes;
  const compact = metadata.recordSize !== 24 || dataBytes > DATA_BYTES_MAX;
  const table = compact ? compactMmdb(file, metadata) : keepTree(buffer, metadata, trusted);
  fillHeader(table, metadata.ipVersion);
  return table.tree.buffer as SharedArrayBuffer;
}

/** Leaves the tree as it is and writes the country bytes over the data section. */
function keepTree(buffer: SharedArrayBuffer, metadata: MmdbMetadata, trusted: boolean): GeoTable {
  const { nodeCount, treeBytes, dataEnd } = metadata;
  const file = new Uint8Array(buffer, GEO_FILE_OFFSET);
  const leaves = new Uint8Array(dataEnd - treeBytes);
  const reader = new DataReader(file, treeBytes + SEPARATOR_BYTES, dataEnd);
  if (trusted) {
    // Each value of the data section is a record, as the test of the embedded file makes sure.
    for (let leaf = SEPARATOR_BYTES; leaf < leaves.length; ) {
      leaves[leaf] = 1;
      leaf = reader.skip(treeBytes + leaf) - treeBytes;
    }
  } else if (!markLeaves(file, nodeCount, leaves)) {
    throw geoError('a record of its tree is out of bounds');
  }
  let records = 0;
  let found = 0;
  for (let leaf = 1; leaf < leaves.length; leaf++) {
    if (leaves[leaf] === 0) continue;
    if (leaf < SEPARATOR_BYTES) throw geoError('a record of its tree is out of bounds');
    const country = reader.countryAt(treeBytes + leaf);
    records++;
    if (country !== COUNTRY_KEY_MISSING) found++;
    leaves[leaf] = Math.max(0, country);
  }
  if (records > 0 && found === 0) {
    throw geoError(`no record has a country (its type is "${metadata.databaseType}")`);
  }
  leaves[0] = 0;
  file.fill(0, treeBytes); // so that not even a damaged tree finds another byte as its country
  file.set(leaves, treeBytes);
  new Int32Array(buffer, 0, HEADER_NODE_COUNT + 1)[HEADER_NODE_COUNT] = nodeCount;
  return viewGeoBuffer(buffer);
}

/**
 * Sets leaves[record - nodeCount] for each record that is not a node; returns whether all were in
 * bounds. Whether a record is a leaf is as good as random: without branches, the pass takes half
 * the time.
 */
function markLeaves(tree: Uint8Array, nodeCount: number, leaves: Uint8Array): boolean {
  const end = nodeCount * NODE_BYTES;
  const limit = leaves.length;
  for (let offset = 0; offset < end; offset += 3) {
    const record =
      ((tree[offset] as number) << 16) |
      ((tree[offset + 1] as number) << 8) |
      (tree[offset + 2] as number);
    const above = record - nodeCount;
    const leaf = above & ~(above >> 31); // 0 for a node; so is "no data", which needs no mark
    if (leaf >= limit) return false;
    leaves[leaf] = 1;
  }
  return true;
}

/** Fills the jump tables and roots, and marks the buffer as complete. */
function fillHeader(table: GeoTable, ipVersion: number): void {
  const { header, jump4, jump6, nodeCount } = table;
  let rootIPv4 = 0;
  if (ipVersion === 6) {
    for (let bit = 0; bit < 96 && rootIPv4 < nodeCount; bit++) rootIPv4 = child(table, rootIPv4, 0);
  }
  const rootIPv6 = ipVersion === 6 ? 0 : nodeCount;
  header[HEADER_ROOT_IPV4] = rootIPv4;
  header[HEADER_ROOT_IPV6] = rootIPv6;
  fillJump(table, jump4, JUMP4_BITS, rootIPv4);
  for (const [from, to] of LOCAL_IPV4) jump4.fill(nodeCount, from, to);
  let unicast = rootIPv6; // 2000::/3 is 001
  for (let bit = 0; bit < JUMP6_SKIP; bit++) unicast = child(table, unicast, bit === 2 ? 1 : 0);
  fillJump(table, jump6, JUMP6_BITS, unicast);
  header[HEADER_MAGIC] = GEO_MAGIC;
}

/**
 * Fills an entry for each value of the next `bits` bits with the record they lead to from `root`.
 * One loop over the upper tree in address order; a call per node would take twice the time, cold.
 */
function fillJump(table: GeoTable, jump: Int32Array, bits: number, root: number): void {
  const { tree, nodeCount } = table;
  const pending = new Int32Array(bits); // by depth: the right record of the node on the way down
  let record = root;
  let depth = 0;
  for (let at = 0; ; ) {
    while (record < nodeCount && depth < bits) {
      const offset = record * NODE_BYTES;
      pending[depth++] = readRecord(tree, offset + 3);
      record = readRecord(tree, offset);
    }
    const end = at + (1 << (bits - depth));
    if (end - at < 16) while (at < end) jump[at++] = record;
    else jump.fill(record, at, end);
    at = end;
    if (at === jump.length) return;
    depth = bits - (31 - Math.clz32(at & -at)); // the lowest set bit is the one that just turned
    record = pending[depth - 1] as number;
  }
}

/** The record of a node; a leaf is its own child. */
function child(table: GeoTable, record: number, side: 0 | 1): number {
  return record < table.nodeCount ? readRecord(table.tree, record * NODE_BYTES + side * 3) : record;
}

function readRecord(tree: Uint8Array, offset: number): number {
  return (
    ((tree[offset] as number) << 16) |
    ((tree[offset + 1] as number) << 8) |
    (tree[offset + 2] as number)
  );
}
