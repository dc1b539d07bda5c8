// The geo table: the country of a client address, from one immutable SharedArrayBuffer that every
// worker reads. It is a MaxMind binary search tree with 24-bit records, two jump tables for the
// upper levels, and one byte per leaf value; mmdb.ts builds and checks it. Lookups allocate
// nothing, and stay inside the buffer and end within the address's bits whatever the tree says.
//
//   0          64            64 KiB * 4       128 Ki * 4     6 bytes * nodes   1 byte * leaf values
//   | header   | jump IPv4   | jump IPv6      | tree         | country bytes   | (unused)
//
// A record below nodeCount is a node; else record - nodeCount is its position in the country bytes,
// of which the first is 0, no country. In a MaxMind file the tree is followed by the data section,
// and a leaf's distance from nodeCount is its distance from there: so a file read to
// GEO_FILE_OFFSET needs no rewriting of its tree, only the country bytes written over its data
// section.

/** Jump tables: 16 bits for IPv4; for IPv6 bits 3 to 20 of 2000::/3, all unicast space so far. */
export const JUMP4_BITS = 16;
export const JUMP6_SKIP = 3;
export const JUMP6_BITS = 17;

/** Byte positions in the buffer. */
const HEADER_BYTES = 64;
const JUMP4_OFFSET = HEADER_BYTES;
const JUMP6_OFFSET = JUMP4_OFFSET + 4 * 2 ** JUMP4_BITS;
export const GEO_FILE_OFFSET = JUMP6_OFFSET + 4 * 2 ** JUMP6_BITS;

/** Header words (Int32). */
export const HEADER_MAGIC = 0;
export const HEADER_NODE_COUNT = 1;
export const HEADER_ROOT_IPV4 = 2;
export const HEADER_ROOT_IPV6 = 3;
export const GEO_MAGIC = 0x45475431;

export const NODE_BYTES = 6;
/** Leaf values follow the nodes in 24 bits, so a tree has at most this many nodes. */
export const GEO_NODES_MAX = 2 ** 24 - 256;

/** Views of the buffer; made by openGeoTable, once per thread. */
export interface GeoTable {
  /** Words by position; see HEADER_ above. */
  readonly header: Int32Array;
  /**
   * Record reached by the upper bits of an IPv4 address. Local and multicast space reads as empty.
   */
  readonly jump4: Int32Array;
  /** Record reached by bits 3 to 20 of an address in 2000::/3. */
  readonly jump6: Int32Array;
  /** Tree and country bytes. */
  readonly tree: Uint8Array;
  readonly nodeCount: number;
  /** Record of the root of the IPv6 tree; nodeCount (empty) in an IPv4 database. */
  readonly rootIPv6: number;
}

/** Room for a table whose tree and leaf values, or whole MMDB file, take `fileBytes`. */
export function allocateGeoBuffer(fileBytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(GEO_FILE_OFFSET + fileBytes);
}

/** Views over a buffer that may not be filled yet; openGeoTable is the checked way in. */
export function viewGeoBuffer(buffer: SharedArrayBuffer): GeoTable {
  const header = new Int32Array(buffer, 0, HEADER_BYTES / 4);
  return {
    header,
    jump4: new Int32Array(buffer, JUMP4_OFFSET, 2 ** JUMP4_BITS),
    jump6: new Int32Array(buffer, JUMP6_OFFSET, 2 ** JUMP6_BITS),
    tree: new Uint8Array(buffer, GEO_FILE_OFFSET),
    nodeCount: header[HEADER_NODE_COUNT] as number,
    rootIPv6: header[HEADER_ROOT_IPV6] as number,
  };
}

/** The table in a buffer that parseMmdb or compileMmdb made, in this or another thread. */
export function openGeoTable(buffer: SharedArrayBuffer): GeoTable {
  if (buffer.byteLength < GEO_FILE_OFFSET || new Int32Array(buffer, 0, 1)[0] !== GEO_MAGIC) {
    throw new TypeError('Cannot open geo table: the buffer was not made by parseMmdb');
  }
  return viewGeoBuffer(buffer);
}

/** Country index of an IPv4 address as a 32-bit number; 0 when it has none. */
export function lookupIPv4(table: GeoTable, address: number): number {
  const { nodeCount, tree } = table;
  let record = table.jump4[address >>> (32 - JUMP4_BITS)] as number;
  let bits = address << JUMP4_BITS;
  for (let left = 32 - JUMP4_BITS; record < nodeCount; left--) {
    if (left === 0) return 0; // a node below the last bit: no address is there
    const offset = record * NODE_BYTES + (bits >>> 31) * 3;
    record =
      ((tree[offset] as number) << 16) |
      ((tree[offset + 1] as number) << 8) |
      (tree[offset + 2] as number);
    bits <<= 1;
  }
  return (tree[record + nodeCount * (NODE_BYTES - 1)] as number) | 0; // | 0: beyond the end is none
}

/** Follows the upper `count` bits of `bits` from a record; returns the record they lead to. */
function descend(table: GeoTable, from: number, bits: number, count: number): number {
  const { nodeCount, tree } = table;
  let record = from;
  let rest = bits;
  for (let left = count; left !== 0 && record < nodeCount; left--) {
    const offset = record * NODE_BYTES + (rest >>> 31) * 3;
    record =
      ((tree[offset] as number) << 16) |
      ((tree[offset + 1] as number) << 8) |
      (tree[offset + 2] as number);
    rest <<= 1;
  }
  return record;
}

/** Country index of an IPv6 address as four 32-bit words; 0 when it has none. */
export function lookupIPv6(
  table: GeoTable,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  const nodeCount = table.nodeCount;
  let record = 0;
  if (w0 >>> 29 === 1) {
    const skip = JUMP6_SKIP + JUMP6_BITS;
    record = table.jump6[(w0 << JUMP6_SKIP) >>> (32 - JUMP6_BITS)] as number;
    if (record < nodeCount) record = descend(table, record, w0 << skip, 32 - skip);
  } else {
    // ::ffff:a.b.c.d, and ::a.b.c.d, where :: and ::1 read as 0.0.0.0/8: no country.
    if ((w0 | w1) === 0 && (w2 === 0 || w2 >>> 0 === 0xffff)) return lookupIPv4(table, w3);
    if (isLocalIPv6(w0)) return 0;
    record = descend(table, table.rootIPv6, w0, 32);
  }
  if (record < nodeCount) record = descend(table, record, w1, 32);
  if (record < nodeCount) record = descend(table, record, w2, 32);
  if (record < nodeCount) record = descend(table, record, w3, 32);
  if (record < nodeCount) return 0; // a node below the last bit: no address is there
  return (table.tree[record + nodeCount * (NODE_BYTES - 1)] as number) | 0;
}

/**
 * Unique local fc00::/7, link-local fe80::/10 (and the old site-local fec0::/10), multicast
 * ff00::/8.
 */
function isLocalIPv6(w0: number): boolean {
  return w0 >>> 25 === 0x7e || w0 >>> 23 === 0x1fd || w0 >>> 24 === 0xff;
}
