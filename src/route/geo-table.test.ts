// Lookups: known answers, local addresses, and random trees and addresses against naive matching.
// The trees come from src/testing/mmdb-writer.ts, which shares no code with the reader.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { addressBits, type MmdbOptions, writeMmdb } from '../testing/mmdb-writer.ts';
import { benchLookups } from './geo-table.bench.ts';
import {
  allocateGeoBuffer,
  type GeoTable,
  HEADER_ROOT_IPV4,
  lookupIPv4,
  lookupIPv6,
  openGeoTable,
} from './geo-table.ts';
import { parseMmdb } from './mmdb.ts';
import { countryCode } from './regions.ts';

const embeddedBytes = readFileSync(
  fileURLToPath(import.meta.resolve('@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb')),
);
const embedded = openGeoTable(parseMmdb(embeddedBytes));

/** Country code of an address given as its bits. */
function lookupBits(table: GeoTable, bits: string): string {
  const words = (bits.match(/.{32}/g) ?? []).map((word) => Number.parseInt(word, 2));
  const country =
    words.length === 1
      ? lookupIPv4(table, words[0]!)
      : lookupIPv6(table, words[0]!, words[1]!, words[2]!, words[3]!);
  return countryCode(country);
}

function lookup(table: GeoTable, address: string): string {
  return lookupBits(table, addressBits(address));
}

test('lookupIPv4() and lookupIPv6() give the known countries of the embedded database', () => {
  const expected = {
    '8.8.8.8': 'US',
    '200.160.2.3': 'BR',
    '133.242.0.1': 'JP',
    '41.0.0.1': 'ZA',
    '49.36.0.1': 'IN',
    '2804:14d::1': 'BR',
    '::ffff:c8a0:0203': 'BR', // IPv4-mapped
  };
  for (const [address, code] of Object.entries(expected)) {
    assert.equal(lookup(embedded, address), code, address);
  }
});

test('the embedded table fits its budget', () => {
  assert.ok(embedded.tree.buffer.byteLength <= 12_000_000, String(embedded.tree.buffer.byteLength));
});

const LOCAL = [
  '0.0.0.0',
  '0.255.255.255',
  '10.0.0.0',
  '10.255.255.255',
  '100.64.0.0',
  '100.127.255.255',
  '127.0.0.1',
  '127.255.255.255',
  '169.254.0.1',
  '169.254.255.255',
  '172.16.0.0',
  '172.31.255.255',
  '192.168.0.1',
  '192.168.255.255',
  '224.0.0.1',
  '239.255.255.255',
  '::',
  '::1',
  'fc00::1',
  'fdff:ffff::1',
  'fe80::1',
  'febf:ffff::1',
  'ff02::1',
  'ffff:ffff::1',
  '::ffff:7f00:1',
  '::ffff:a00:1',
  '::ffff:c0a8:101',
];

const PUBLIC_NEIGHBOURS = [
  '1.0.0.0',
  '9.255.255.255',
  '11.0.0.0',
  '100.63.255.255',
  '100.128.0.0',
  '126.255.255.255',
  '128.0.0.0',
  '169.253.255.255',
  '169.255.0.0',
  '172.15.255.255',
  '172.32.0.0',
  '192.167.255.255',
  '192.169.0.0',
  '223.255.255.255',
  '240.0.0.1',
  '1fff::1',
  '2000::1',
  '3fff::1',
  '4000::1',
  'fbff:ffff::1',
  'fe7f::1',
  '::ffff:b00:1',
];

test('lookups give no country to local and multicast addresses, whatever the database says', () => {
  const everywhere = [
    { cidr: '::/1', value: { country_code: 'BR' } },
    { cidr: '8000::/1', value: { country_code: 'BR' } },
  ];
  const table = openGeoTable(parseMmdb(writeMmdb(everywhere)));
  for (const address of LOCAL) assert.equal(lookup(table, address), '', address);
  for (const address of PUBLIC_NEIGHBOURS) assert.equal(lookup(table, address), 'BR', address);
});

test('lookups in an IPv4 database answer mapped addresses, and no other IPv6 address', () => {
  const networks = [{ cidr: '0.0.0.0/0', value: { country_code: 'ZA' } }];
  const table = openGeoTable(parseMmdb(writeMmdb(networks, { ipVersion: 4 })));
  assert.equal(lookup(table, '8.8.8.8'), 'ZA');
  assert.equal(lookup(table, '::ffff:808:808'), 'ZA');
  for (const address of ['2001:db8::1', '4000::1', '1::1'])
    assert.equal(lookup(table, address), '');
});

test('lookups follow a shared IPv4 subtree, as in the files of MaxMind', () => {
  const networks = [
    { cidr: '8.0.0.0/8', value: { country_code: 'US' } },
    { cidr: '2001:db8::/32', value: { country_code: 'BR' } },
  ];
  for (const recordSize of [24, 28, 32] as const) {
    const options = { aliases: true, recordSize };
    const table = openGeoTable(parseMmdb(writeMmdb(networks, options)));
    assert.equal(lookup(table, '2002:0808:0808::1'), 'US');
    assert.equal(lookup(table, '2002:0908:0808::1'), '');
    assert.equal(lookup(table, '::ffff:808:808'), 'US');
    assert.equal(lookup(table, '2001:db8::1'), 'BR');
  }
});

test('lookupIPv4() takes signed and unsigned words alike', () => {
  const address = 0xc8a00203; // 200.160.2.3
  assert.equal(lookupIPv4(embedded, address), lookupIPv4(embedded, address | 0));
  const words = [0x2a00_1450, 0x8000_0000, 0xffff_ffff, 1] as const;
  assert.equal(
    lookupIPv6(embedded, ...words),
    lookupIPv6(embedded, words[0] | 0, words[1] | 0, words[2] | 0, words[3]),
  );
  assert.equal(lookupIPv6(embedded, 0, 0, 0xffff, address | 0), lookupIPv4(embedded, address));
});

test('openGeoTable() refuses a buffer that parseMmdb did not make', () => {
  assert.throws(
    () => openGeoTable(new SharedArrayBuffer(16)),
    /the buffer was not made by parseMmdb/,
  );
  assert.throws(() => openGeoTable(allocateGeoBuffer(100)), /the buffer was not made by parseMmdb/);
});

const CODES = ['BR', 'US', 'DE', 'JP', 'ZA'];

function bitsArbitrary(min: number, max: number): fc.Arbitrary<string> {
  return fc
    .array(fc.constantFrom('0', '1'), { minLength: min, maxLength: max, size: 'max' })
    .map((bits) => bits.join(''));
}

function bitsToCidr(bits: string, ipVersion: 4 | 6): string {
  if (ipVersion === 4) {
    const bytes = bits.padEnd(32, '0').match(/.{8}/g) ?? [];
    return `${bytes.map((byte) => Number.parseInt(byte, 2)).join('.')}/${bits.length}`;
  }
  const groups = bits.padEnd(128, '0').match(/.{16}/g) ?? [];
  const text = groups.map((group) => Number.parseInt(group, 2).toString(16)).join(':');
  return `${text}/${bits.length}`;
}

const shape = fc.record({
  recordSize: fc.constantFrom(24 as const, 28 as const, 32 as const),
  pointers: fc.boolean(),
  paddingBytes: fc.constantFrom(0, 3000, 300_000),
});

/** The longest prefix that covers the address; local IPv4 space is left out by the callers. */
function naive(networks: readonly { bits: string; code: string }[], address: string): string {
  let best = { bits: '', code: '' };
  for (const network of networks) {
    // Of equal prefixes, the writer keeps the last.
    if (address.startsWith(network.bits) && network.bits.length >= best.bits.length) best = network;
  }
  return best.code;
}

/**
 * Prefixes that nest and probes that hit and just miss them, all below a prefix that is not local.
 */
function casesArbitrary(start: string, length: number) {
  const network = fc.record({
    bits: fc
      .oneof(bitsArbitrary(0, 8), bitsArbitrary(0, length - start.length))
      .map((bits) => start + bits),
    code: fc.constantFrom(...CODES),
  });
  return fc.record({
    networks: fc.array(network, { minLength: 1, maxLength: 12 }),
    tails: fc.array(bitsArbitrary(length, length), { minLength: 1, maxLength: 4 }),
    flip: fc.nat(length - 1),
  });
}

function checkAgainstNaive(
  ipVersion: 4 | 6,
  length: 32 | 128,
  options: MmdbOptions,
  {
    networks,
    tails,
    flip,
  }: { networks: { bits: string; code: string }[]; tails: string[]; flip: number },
): void {
  const bytes = writeMmdb(
    networks.map(({ bits, code }) => ({
      cidr: bitsToCidr(bits, length === 32 ? 4 : 6),
      value: { country: { geoname_id: 7, iso_code: code } },
    })),
    { ...options, ipVersion },
  );
  const table = openGeoTable(parseMmdb(bytes));
  const start = networks[0]!.bits.slice(0, 3);
  const probes = networks.flatMap(({ bits }) =>
    tails.map((tail) => bits + tail.slice(bits.length)),
  );
  for (const probe of probes) {
    const bit = Math.max(3, flip);
    const flipped = probe.slice(0, bit) + (probe[bit] === '0' ? '1' : '0') + probe.slice(bit + 1);
    for (const address of [probe, flipped]) {
      assert.ok(address.startsWith(start));
      assert.equal(lookupBits(table, address), naive(networks, address), address);
    }
  }
}

for (const ipVersion of [4, 6] as const) {
  test(`lookupIPv4() equals a naive longest-prefix match in an IPv${ipVersion} database`, () => {
    // 110: 192/3 without 192.168/16; the flipped bit can reach it, so probes keep to 208/4.
    const property = fc.property(casesArbitrary('1101', 32), shape, (cases, options) => {
      checkAgainstNaive(ipVersion, 32, options, { ...cases, flip: Math.max(4, cases.flip) });
    });
    fc.assert(property, { numRuns: 60 });
  });
}

for (const start of ['001', '010', '1110']) {
  test(`lookupIPv6() equals a naive longest-prefix match below ${start}`, () => {
    const property = fc.property(casesArbitrary(start, 128), shape, (cases, options) => {
      checkAgainstNaive(6, 128, options, { ...cases, flip: Math.max(4, cases.flip) });
    });
    fc.assert(property, { numRuns: 60 });
  });
}

/** Reads one record of the embedded file with nothing but the format's description. */
function walkEmbedded(bits: string): number {
  const nodeCount = embedded.nodeCount;
  let record = 0;
  for (const bit of bits) {
    if (record >= nodeCount) break;
    record = embeddedBytes.readUIntBE(record * 6 + Number(bit) * 3, 3);
  }
  return record;
}

test('lookups equal a walk of the embedded file at random addresses', () => {
  // Each data record is one map of one key: find the code behind "country_code" and its string
  // head.
  const codeOf = (record: number) => {
    if (record === embedded.nodeCount) return '';
    const data = embedded.nodeCount * 6 + record - embedded.nodeCount;
    assert.equal(embeddedBytes[data], 0xe1);
    const code = embeddedBytes.toString('latin1', data, data + 20).match(/B([A-Z]{2})/);
    return code?.[1] ?? assert.fail(`no code at ${data}`);
  };
  const address4 = fc.nat(0xffff_ffff).filter((word) => word >>> 28 === 5 || word >>> 29 === 6);
  const checked = new Set<string>();
  fc.assert(
    fc.property(address4, fc.nat(0x0fff_ffff), bitsArbitrary(96, 96), (word4, word6, tail) => {
      const bits4 = word4.toString(2).padStart(32, '0');
      if (!bits4.startsWith('1100000010101000')) {
        const expected = codeOf(walkEmbedded('0'.repeat(96) + bits4));
        assert.equal(lookupBits(embedded, bits4), expected);
        checked.add(expected);
      }
      const bits6 = `0010${word6.toString(2).padStart(28, '0')}${tail}`;
      assert.equal(lookupBits(embedded, bits6), codeOf(walkEmbedded(bits6)));
    }),
    { numRuns: 5000 },
  );
  assert.ok(checked.size > 5, 'the random addresses reach several countries');
});

test('benchLookups() does the same lookups each time', () => {
  const rootIPv4 = embedded.header[HEADER_ROOT_IPV4]!;
  const [first, second] = [1, 2].map(() => benchLookups(embedded, rootIPv4, 20_000));
  assert.deepEqual(
    first?.map(({ name, hash }) => ({ name, hash })),
    second?.map(({ name, hash }) => ({ name, hash })),
  );
  assert.ok(first?.every(({ hash }) => hash !== 0));
});

test('lookups allocate nothing', () => {
  const before = process.memoryUsage().heapUsed;
  let sum = 0;
  for (let index = 0; index < 300_000; index++) {
    sum += lookupIPv4(embedded, Math.imul(index, 0x9e3779b1));
    sum += lookupIPv6(embedded, 0x2a000000 + index, index, 0, 1);
  }
  const bytes = process.memoryUsage().heapUsed - before;
  assert.ok(sum > 0);
  // Even one 12-byte number each would be 7 MB; a collection in between can only make it less.
  assert.ok(bytes < 2_000_000, `${bytes} bytes for 600,000 lookups`);
});
