// Micro-benchmark of the geo table: `node src/route/geo-table.bench.ts [lookups]`. Prints cold load
// time, table size, and ns per lookup over uniformly random addresses and over random allocated
// prefixes, with a hash of the results so that nothing can be optimised away. Runs short in the
// test of its neighbour.

import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type GeoTable, lookupIPv4, lookupIPv6, NODE_BYTES, openGeoTable } from './geo-table.ts';
import { parseMmdb } from './mmdb.ts';

/** Distinct addresses per case: 1 MB of them, more than a second-level cache holds. */
const ADDRESSES = 2 ** 16;

interface Result {
  name: string;
  nsPerLookup: number;
  hash: number;
}

/** xorshift32. */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Random 32-bit words, four for each address. */
function uniformAddresses(random: () => number): Uint32Array {
  return new Uint32Array(4 * ADDRESSES).map(random);
}

/**
 * Addresses below leaves with a country: at each node a random side, the other one if that is
 * empty.
 */
function allocatedAddresses(table: GeoTable, root: number, random: () => number): Uint32Array {
  const words = uniformAddresses(random);
  const { tree, nodeCount } = table;
  for (let base = 0; base < words.length; base += 4) {
    let record = root;
    for (let bit = 0; bit < 128 && record < nodeCount; bit++) {
      const word = base + (bit >> 5);
      const mask = 2 ** (31 - (bit & 31));
      let side = ((words[word] as number) & mask) === 0 ? 0 : 1;
      let next = readRecord(tree, record, side);
      if (next === nodeCount) {
        side = 1 - side;
        words[word] = ((words[word] as number) ^ mask) >>> 0;
        next = readRecord(tree, record, side);
      }
      record = next;
    }
  }
  return words;
}

function readRecord(tree: Uint8Array, node: number, side: number): number {
  const at = node * NODE_BYTES + side * 3;
  return ((tree[at] as number) << 16) | ((tree[at + 1] as number) << 8) | (tree[at + 2] as number);
}

function runIPv4(table: GeoTable, words: Uint32Array, count: number): number {
  let hash = 0;
  for (let index = 0; index < count; index++) {
    hash = (Math.imul(hash, 31) + lookupIPv4(table, words[(index * 4) % words.length]!)) | 0;
  }
  return hash;
}

function runIPv6(table: GeoTable, words: Uint32Array, count: number): number {
  let hash = 0;
  for (let index = 0; index < count; index++) {
    const at = (index * 4) % words.length;
    const country = lookupIPv6(table, words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!);
    hash = (Math.imul(hash, 31) + country) | 0;
  }
  return hash;
}

type Run = (table: GeoTable, words: Uint32Array, count: number) => number;

function measure(name: string, run: Run, table: GeoTable, words: Uint32Array, count: number) {
  run(table, words, Math.min(count, 200_000));
  const start = performance.now();
  const hash = run(table, words, count);
  const result: Result = {
    name,
    nsPerLookup: ((performance.now() - start) * 1e6) / count,
    hash: hash >>> 0,
  };
  return result;
}

/** All cases over one table; the hashes depend only on table, seed and count. */
export function benchLookups(table: GeoTable, rootIPv4: number, count: number): Result[] {
  const random = makeRandom(0x9e3779b9);
  const uniform = uniformAddresses(random);
  const unicast = uniform.map((word, index) =>
    index % 4 === 0 ? (0x20000000 | (word & 0x1fffffff)) >>> 0 : word,
  );
  const allocated4 = allocatedAddresses(table, rootIPv4, random);
  const allocated6 = allocatedAddresses(table, table.rootIPv6, random);
  return [
    measure('IPv4 uniform', runIPv4, table, uniform, count),
    measure('IPv4 allocated', runIPv4, table, allocated4, count),
    measure('IPv6 uniform', runIPv6, table, uniform, count),
    measure('IPv6 uniform in 2000::/3', runIPv6, table, unicast, count),
    measure('IPv6 allocated', runIPv6, table, allocated6, count),
  ];
}

if (import.meta.main) {
  const specifier = '@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb';
  const start = performance.now();
  const bytes = readFileSync(fileURLToPath(import.meta.resolve(specifier)));
  const read = performance.now();
  const buffer = parseMmdb(bytes);
  const parsed = performance.now();
  const table = openGeoTable(buffer);
  const lines = [
    `${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.version}`,
    `cold: read ${(read - start).toFixed(1)} ms, parse ${(parsed - read).toFixed(1)} ms`,
    `table ${buffer.byteLength} bytes, ${table.nodeCount} nodes`,
  ];
  const count = Number(process.argv[2] ?? 5_000_000);
  for (const { name, nsPerLookup, hash } of benchLookups(table, table.header[2]!, count)) {
    lines.push(
      `${name}: ${nsPerLookup.toFixed(1)} ns per lookup, result hash ${hash.toString(16)}`,
    );
  }
  process.stdout.write(`${lines.join('\n')}\n`);
}
