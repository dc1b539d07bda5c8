// The database reader: every shape of file, every kind of damage we could think of, and fuzzing.
// A fuzz run prints its seed; EDGEPROXY_FUZZ_SEED=… replays it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ProxyError } from '../base/errors.ts';
import { type MmdbOptions, type MmdbValue, writeMmdb } from '../testing/mmdb-writer.ts';
import {
  allocateGeoBuffer,
  GEO_FILE_OFFSET,
  lookupIPv4,
  lookupIPv6,
  openGeoTable,
} from './geo-table.ts';
import { compileMmdb, parseMmdb } from './mmdb.ts';
import { readMmdbMetadata } from './mmdb-data.ts';
import { countryCode } from './regions.ts';

/** Code found for 8.8.8.8 in a database whose record for 8.0.0.0/8 is `value`. */
function codeOf(value: MmdbValue, options: MmdbOptions = {}): string {
  const networks = [
    { cidr: '8.0.0.0/8', value },
    { cidr: '9.0.0.0/8', value: { country_code: 'AQ' } },
  ];
  return countryCode(lookupIPv4(openGeoTable(parseMmdb(writeMmdb(networks, options))), 0x08080808));
}

const ISO = (code: string) => ({ iso_code: code });
const LONG = 'x'.repeat(70_000);

const SHAPES: [string, MmdbValue, string][] = [
  ['country.iso_code', { country: ISO('BR') }, 'BR'],
  ['a code in lower case', { country: ISO('br') }, 'BR'],
  [
    'country before registered_country',
    { registered_country: ISO('US'), country: ISO('BR') },
    'BR',
  ],
  ['registered_country.iso_code', { registered_country: ISO('US') }, 'US'],
  [
    'a country without a code',
    { country: { names: { en: 'x' } }, registered_country: ISO('US') },
    'US',
  ],
  ['country_code', { country_code: 'ZA' }, 'ZA'],
  [
    'registered_country before country_code',
    { country_code: 'ZA', registered_country: ISO('US') },
    'US',
  ],
  ['an unknown code', { country: ISO('ZZ') }, ''],
  ['a continent code', { country_code: 'EU' }, ''],
  ['an empty code', { country_code: '' }, ''],
  ['a three-letter code', { country_code: 'BRA' }, ''],
  ['a record without a country', { continent: { code: 'EU' } }, ''],
  ['an empty record', {}, ''],
  ['a record that is a string', 'BR', ''],
  [
    'values of every type before it',
    {
      a: { double: 1.5 },
      b: new Uint8Array([1, 2, 3]),
      c: 65_535,
      d: 4_000_000_000,
      e: -5,
      f: 2n ** 63n,
      g: 2n ** 100n,
      h: ['x', { country: ISO('US') }, [1, [true]]],
      i: true,
      j: false,
      k: '',
      l: 'y'.repeat(100),
      m: LONG.slice(0, 1000),
      n: LONG,
      o: {},
      p: [],
      country: ISO('IN'),
    },
    'IN',
  ],
];

for (const recordSize of [24, 28, 32] as const) {
  for (const ipVersion of [4, 6] as const) {
    for (const pointers of [true, false]) {
      const options = { recordSize, ipVersion, pointers };
      test(`parseMmdb() reads each kind of record: ${JSON.stringify(options)}`, () => {
        for (const [name, value, expected] of SHAPES)
          assert.equal(codeOf(value, options), expected, name);
      });
    }
  }
}

test('parseMmdb() follows pointers of every length', () => {
  // Both networks share the map and strings of the first, which lie beyond the padding.
  for (const paddingBytes of [0, 2100, 200_000, 600_000]) {
    const country = { names: { en: 'Brazil' }, iso_code: 'BR' };
    const networks = [
      { cidr: '9.0.0.0/8', value: { country, note: 'first' } },
      { cidr: '8.0.0.0/8', value: { note: 'second', country } },
    ];
    const table = openGeoTable(parseMmdb(writeMmdb(networks, { paddingBytes })));
    assert.equal(countryCode(lookupIPv4(table, 0x08080808)), 'BR', `padding ${paddingBytes}`);
    assert.equal(countryCode(lookupIPv4(table, 0x09080808)), 'BR', `padding ${paddingBytes}`);
  }
});

test('parseMmdb() reads records and pointers beyond 16 MB', () => {
  const far = 2 ** 24 + 5;
  for (const recordSize of [28, 32] as const) {
    for (const [start, address] of [
      [0, 0x08080808],
      [1, 0x88080808],
    ] as const) {
      const template = writeMmdb([], { recordSize, ipVersion: 4 });
      const { treeBytes, dataEnd } = readMmdbMetadata(template);
      const data = treeBytes + 16;
      const bytes = new Uint8Array(data + far + 100 + template.length - dataEnd);
      const record = 1 + 16 + far; // one node
      const middle = start === 0 ? 0x10 : 0x01;
      const tree28 = start === 0 ? [0, 0, 22, middle, 0, 0, 1] : [0, 0, 1, middle, 0, 0, 22];
      const tree32 = start === 0 ? [1, 0, 0, 22, 0, 0, 0, 1] : [0, 0, 0, 1, 1, 0, 0, 22];
      assert.equal(record, 2 ** 24 + 22);
      bytes.set(recordSize === 28 ? tree28 : tree32, 0);
      // A map whose key is a pointer of four bytes (the low bits of its head do not count).
      bytes.set([0xe1, 0x3f, 1, 0, 0, 5 + 20, 0x42, 0x42, 0x52], data + far);
      bytes.set([0x4c, ...new TextEncoder().encode('country_code')], data + far + 20);
      bytes.set(template.subarray(dataEnd), data + far + 100);
      const table = openGeoTable(parseMmdb(bytes));
      assert.equal(countryCode(lookupIPv4(table, address)), 'BR', `${recordSize}, side ${start}`);
      assert.equal(lookupIPv4(table, address ^ 0x80000000), 0);
    }
  }
});

test('parseMmdb() folds networks of a city database that share a country', () => {
  const networks = Array.from({ length: 256 }, (_, index) => ({
    cidr: `8.8.${index}.0/24`,
    value: { city: { geoname_id: 1000 + index }, country: ISO('US') },
  }));
  const folded = openGeoTable(parseMmdb(writeMmdb(networks, { recordSize: 28 })));
  const kept = openGeoTable(parseMmdb(writeMmdb(networks, { recordSize: 24 })));
  assert.equal(folded.nodeCount, 96 + 16);
  assert.equal(kept.nodeCount, 96 + 16 + 255);
  for (const table of [folded, kept]) {
    assert.equal(countryCode(lookupIPv4(table, 0x080800ff)), 'US');
    assert.equal(countryCode(lookupIPv4(table, 0x0808ffff)), 'US');
    assert.equal(lookupIPv4(table, 0x08090000), 0);
    assert.equal(lookupIPv4(table, 0x0807ffff), 0);
  }
});

test('parseMmdb() reads a database in which everything is one country', () => {
  for (const recordSize of [24, 28] as const) {
    const bytes = writeMmdb([{ cidr: '::/0', value: { country_code: 'FR' } }], { recordSize });
    const table = openGeoTable(parseMmdb(bytes));
    assert.equal(countryCode(lookupIPv4(table, 0x08080808)), 'FR');
    assert.equal(countryCode(lookupIPv6(table, 0x20010db8, 0, 0, 1)), 'FR');
  }
});

test('parseMmdb() leaves its input as it was', () => {
  const bytes = writeMmdb([{ cidr: '8.0.0.0/8', value: { country_code: 'US' } }]);
  const copy = bytes.slice();
  parseMmdb(bytes);
  assert.deepEqual(bytes, copy);
});

test('readMmdbMetadata() reads what a file says of itself', () => {
  const metadata = {
    description: { de: 'Länder', en: 'Countries – all' },
    build_epoch: 2n ** 32n + 5n,
  };
  const bytes = writeMmdb([], { recordSize: 28, ipVersion: 4, metadata });
  const read = readMmdbMetadata(bytes);
  assert.equal(read.description, 'Countries – all');
  assert.equal(read.databaseType, 'Test-Country');
  assert.equal(read.buildEpoch, 2 ** 32 + 5);
  assert.equal(read.recordSize, 28);
  assert.equal(read.ipVersion, 4);
  assert.equal(read.nodeCount, 1);
});

function assertRefused(bytes: Uint8Array, reason: RegExp): void {
  assert.throws(
    () => parseMmdb(bytes),
    (error: unknown) => {
      assert.ok(error instanceof ProxyError, String(error));
      assert.equal(error.code, 'ERR_GEO_DATABASE');
      assert.match(error.message, /^Cannot read country database: /);
      assert.match(error.message, reason);
      return true;
    },
  );
}

test('parseMmdb() refuses what is not a database, or not one it can read', () => {
  assertRefused(new Uint8Array(0), /not an MMDB file/);
  assertRefused(new TextEncoder().encode('<html>Not found</html>'), /not an MMDB file/);
  assertRefused(new Uint8Array(300_000), /not an MMDB file/);
  const networks = [{ cidr: '8.0.0.0/8', value: { country_code: 'US' } as MmdbValue }];
  const write = (metadata: { [key: string]: MmdbValue }) => writeMmdb(networks, { metadata });
  assertRefused(write({ binary_format_major_version: 3 }), /version 3 is not supported, only 2/);
  assertRefused(write({ record_size: 20 }), /record size 20 is not supported, only 24, 28 and 32/);
  assertRefused(write({ ip_version: 5 }), /IP version 5 is not 4 or 6/);
  assertRefused(write({ node_count: 0 }), /0 nodes do not fit/);
  assertRefused(write({ node_count: 4_000_000_000 }), /4000000000 nodes do not fit/);
  assertRefused(write({ node_count: 'many' }), /metadata "node_count" is not a number/);
  assertRefused(write({ node_count: 3 }), /not separated by zeros/);
  const networksOnly = [{ cidr: '8.0.0.0/8', value: { autonomous_system_number: 15_169 } }];
  for (const recordSize of [24, 28] as const) {
    const metadata = { database_type: 'GeoLite2-ASN' };
    const bytes = writeMmdb(networksOnly, { recordSize, metadata });
    assertRefused(bytes, /no record has a country \(its type is "GeoLite2-ASN"\)/);
  }
});

/** A small database, and where its first record and its data section are. */
function smallFile(recordSize: 24 | 28 | 32, value: MmdbValue = { country_code: 'US' }) {
  const bytes = writeMmdb([{ cidr: '128.0.0.0/1', value }], { recordSize, ipVersion: 4 });
  const treeBytes = recordSize / 4;
  return { bytes, data: treeBytes + 16 };
}

test('parseMmdb() refuses a tree record that leads out of the file or between the sections', () => {
  for (const recordSize of [24, 28, 32] as const) {
    const far = smallFile(recordSize).bytes;
    far[0] = 0x7f;
    assertRefused(far, /a record of its tree is out of bounds/);
    const between = smallFile(recordSize).bytes;
    // One node: its empty left record is 1; 2 to 16 lie in the separator.
    between[recordSize === 32 ? 3 : 2] = 9;
    assertRefused(between, /a record of its tree is out of bounds/);
  }
});

test('parseMmdb() refuses broken data records', () => {
  const broken = (changes: [offset: number, byte: number][], reason: RegExp) => {
    for (const recordSize of [24, 28, 32] as const) {
      const { bytes, data } = smallFile(recordSize, { country: { iso_code: 'US' } });
      for (const [offset, byte] of changes) bytes[data + offset] = byte;
      assertRefused(bytes, reason);
    }
  };
  broken(
    [
      [0, 0x20],
      [1, 0x00],
    ],
    /a pointer leads to a pointer/,
  ); // to itself
  broken(
    [
      [1, 0x20],
      [2, 0x01],
    ],
    /a pointer leads to a pointer/,
  ); // a key, to itself
  broken(
    [
      [0, 0x27],
      [1, 0xff],
    ],
    /an offset is out of bounds/,
  );
  broken(
    [
      [1, 0x5f],
      [2, 0xff],
    ],
    /a value is cut short/,
  );
  broken([[1, 0xa0]], /a map key is not a string/);
  broken(
    [
      [1, 0x00],
      [2, 0x09],
    ],
    /a value has the unknown type 16/,
  );
  broken([[1, 0x42]], /./); // a key of another length: what follows is no longer a value
});

test('lookups end in a tree that leads back to itself', () => {
  for (const recordSize of [24, 28, 32] as const) {
    for (const ipVersion of [4, 6] as const) {
      const bytes = writeMmdb([], { recordSize, ipVersion });
      bytes.fill(0, 0, recordSize / 4); // both records of the root, the only node, are now the root
      const table = openGeoTable(parseMmdb(bytes));
      assert.equal(lookupIPv4(table, 0x81010101), 0);
      assert.equal(lookupIPv6(table, 0x20010db8, 1, 2, 3), 0);
      assert.equal(lookupIPv6(table, 0x40010db8, 1, 2, 3), 0);
    }
  }
});

/** A file whose records are maps in maps: the one at 3 * i contains all that follow it. */
function overlappingFile(nodeCount: number, recordSize: 24 | 32): Uint8Array {
  const metadata = { node_count: nodeCount, record_size: recordSize, ip_version: 4 };
  const tail = writeMmdb([], { metadata, ipVersion: 4, recordSize });
  const marker = readMmdbMetadata(writeMmdb([], { ipVersion: 4, recordSize })).dataEnd;
  const recordBytes = recordSize / 8;
  const tree = Buffer.alloc(nodeCount * 2 * recordBytes);
  const data: number[] = [];
  for (let node = 0; node < nodeCount; node++) {
    tree.writeUIntBE(nodeCount + 16 + 3 * node, 2 * node * recordBytes, recordBytes);
    tree.writeUIntBE(node + 1, (2 * node + 1) * recordBytes, recordBytes);
    data.push(0xe1, 0x41, 0x61); // a map of one pair, of which the key is "a"
  }
  const last = [0xe1, 0x4c, ...new TextEncoder().encode('country_code'), 0x42, 0x55, 0x53];
  return Uint8Array.from([...tree, ...new Uint8Array(16), ...data, ...last, ...tail.slice(marker)]);
}

test('parseMmdb() bounds the work on records that overlap', () => {
  for (const recordSize of [24, 32] as const) {
    // 200 records take 40,000 visits, which is fine; 20,000 would take 400 million.
    assertRefused(overlappingFile(200, recordSize), /no record has a country/);
    assertRefused(overlappingFile(20_000, recordSize), /its records overlap too much/);
  }
});

/** mulberry32: every fuzz run prints its seed, and EDGEPROXY_FUZZ_SEED replays it. */
function makeRandom(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

const fuzzSeed = Number(process.env.EDGEPROXY_FUZZ_SEED ?? Date.now() % 2 ** 31);

const EMBEDDED = '@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb';

function readEmbedded(): Uint8Array {
  // A plain array: slice() of a Buffer would not copy.
  return new Uint8Array(readFileSync(fileURLToPath(import.meta.resolve(EMBEDDED))));
}

function compileTrusted(bytes: Uint8Array): SharedArrayBuffer {
  const buffer = allocateGeoBuffer(bytes.length);
  new Uint8Array(buffer, GEO_FILE_OFFSET).set(bytes);
  return compileMmdb(buffer, true).buffer;
}

test('compileMmdb() makes one table of the embedded file, with or without the full check', () => {
  const bytes = readEmbedded();
  const trusted = new Uint8Array(compileTrusted(bytes));
  assert.equal(Buffer.compare(trusted, new Uint8Array(parseMmdb(bytes))), 0);
});

test('lookups stay in bounds in a trusted file that is damaged all over', () => {
  const random = makeRandom(1);
  const bytes = readEmbedded();
  const { treeBytes } = readMmdbMetadata(bytes);
  for (let change = 0; change < 500_000; change++)
    bytes[600 + random(treeBytes - 600)] = random(256);
  checkLookups(compileTrusted(bytes), random, 100_000);
});

/** Either the clear error, or a table whose lookups give known countries. */
function tryParse(bytes: Uint8Array, random: (limit: number) => number): boolean {
  let buffer: SharedArrayBuffer;
  try {
    buffer = parseMmdb(bytes);
  } catch (error) {
    if (!(error instanceof ProxyError) || error.code !== 'ERR_GEO_DATABASE') throw error;
    return false;
  }
  checkLookups(buffer, random, 200);
  return true;
}

function checkLookups(
  buffer: SharedArrayBuffer,
  random: (limit: number) => number,
  count: number,
): void {
  const table = openGeoTable(buffer);
  for (let probe = 0; probe < count; probe++) {
    const words = [0x20000000 + random(2 ** 29), random(2 ** 32), random(2 ** 32), random(2 ** 32)];
    const country4 = lookupIPv4(table, words[1]!);
    const country6 = lookupIPv6(table, words[probe & 1]!, words[1]!, words[2]!, words[3]!);
    assert.ok(country4 >= 0 && country4 <= 250, `country ${country4}`);
    assert.ok(country6 >= 0 && country6 <= 250, `country ${country6}`);
  }
}

const fuzzFiles = ([24, 28, 32] as const).flatMap((recordSize) =>
  [true, false].map((pointers) =>
    writeMmdb(
      [
        { cidr: '8.0.0.0/6', value: { country: ISO('US'), registered_country: ISO('US') } },
        { cidr: '200.0.0.0/5', value: { city: { names: { en: 'x' } }, country: ISO('BR') } },
        { cidr: '2000::/9', value: { list: [1, 'a', { b: 2 }], country_code: 'DE' } },
      ],
      { recordSize, pointers, aliases: recordSize === 28 },
    ),
  ),
);

test('parseMmdb() survives truncation of a small file at every length', () => {
  const random = makeRandom(fuzzSeed);
  for (const bytes of fuzzFiles) {
    assert.ok(tryParse(bytes, random));
    for (let length = 0; length < bytes.length; length++) {
      assert.ok(
        !tryParse(bytes.subarray(0, length), random),
        `length ${length} of ${bytes.length}`,
      );
    }
  }
});

test('parseMmdb() survives mutations of small files', (context) => {
  context.diagnostic(`EDGEPROXY_FUZZ_SEED=${fuzzSeed}`);
  const random = makeRandom(fuzzSeed);
  let accepted = 0;
  const runs = 3000;
  for (let run = 0; run < runs; run++) {
    const bytes = fuzzFiles[run % fuzzFiles.length]!.slice();
    for (let change = 1 + random(4); change > 0; change--)
      bytes[random(bytes.length)] = random(256);
    if (random(4) === 0) bytes.copyWithin(random(bytes.length), random(bytes.length));
    if (tryParse(bytes, random)) accepted++;
  }
  context.diagnostic(`${accepted} of ${runs} accepted`);
  assert.ok(accepted > 0 && accepted < runs, `${accepted} of ${runs} accepted`);
});

test('parseMmdb() survives truncation and mutation of the embedded file', (context) => {
  context.diagnostic(`EDGEPROXY_FUZZ_SEED=${fuzzSeed}`);
  const random = makeRandom(fuzzSeed);
  const original = readEmbedded();
  const { treeBytes } = readMmdbMetadata(original);
  for (const length of [1, 64, 4096, treeBytes, treeBytes + 16, original.length - 1]) {
    assert.ok(!tryParse(original.subarray(0, length), random), `length ${length}`);
  }
  let accepted = 0;
  for (let run = 0; run < 40; run++) {
    assert.ok(!tryParse(original.subarray(0, random(original.length)), random));
    const bytes = original.slice();
    // Half of the changes go to the small data and metadata sections, where each byte means much.
    const from = run % 2 === 0 ? 0 : treeBytes;
    for (let change = 1 + random(8); change > 0; change--) {
      bytes[from + random(bytes.length - from)] = random(256);
    }
    if (tryParse(bytes, random)) accepted++;
  }
  context.diagnostic(`${accepted} of 40 accepted`);
  assert.ok(accepted > 0 && accepted < 40, `${accepted} of 40 accepted`);
});

test('a table is the jump tables, the tree and the country bytes, and no more', () => {
  const bytes = writeMmdb([{ cidr: '8.0.0.0/8', value: { country_code: 'US' } }], {
    recordSize: 32,
  });
  const buffer = parseMmdb(bytes);
  assert.equal(buffer.byteLength, GEO_FILE_OFFSET + openGeoTable(buffer).nodeCount * 6 + 251);
});
