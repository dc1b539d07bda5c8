// PROXY headers: known bytes from the specification, each rule broken once, every truncation,
// round trips of writer and reader, and seeded fuzz against readers written another way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../sys/sockaddr.ts';
import {
  PROXY_ACCEPT_ANY,
  PROXY_ACCEPT_V1,
  PROXY_ACCEPT_V2,
  PROXY_HEADER_BYTES_MAX,
  PROXY_MALFORMED,
  PROXY_NEED_MORE,
  type ProxyAddress,
  parseProxyHeader,
} from './proxy-protocol.ts';
import {
  PROXY_WRITE_BYTES_MAX,
  type ProxyExtras,
  TLV_COUNTRY,
  TLV_POP,
  writeProxyHeader,
} from './proxy-protocol-write.ts';

const SIGNATURE = '0d0a0d0a000d0a515549540a';
const NO_EXTRAS: ProxyExtras = { country: '', pop: new Uint8Array(0), checksum: false };

function emptyAddress(): ProxyAddress {
  return { family: -1, w0: 7, w1: 7, w2: 7, w3: 7, port: 7 };
}

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

function text(line: string): Uint8Array {
  return Uint8Array.from(Buffer.from(line, 'latin1'));
}

function addressOf(literal: string, port: number): ProxyAddress {
  const parsed = parseAddress(literal);
  assert.ok(parsed);
  const [w0, w1, w2, w3] = parsed.words.map((word) => word | 0);
  return { family: parsed.family, w0, w1, w2, w3, port };
}

function show(address: ProxyAddress): string {
  if (address.family === 0) return 'none';
  const { family, w0, w1, w2, w3, port } = address;
  return `${formatAddress(family, Uint32Array.of(w0, w1, w2, w3))} ${port}`;
}

/** The same with an IPv4-mapped address as IPv4. */
function showPlain(address: ProxyAddress): string {
  const { family, w0, w1, w2 } = address;
  const isMapped = family === 6 && w0 === 0 && w1 === 0 && w2 === 0xffff;
  return show(isMapped ? { ...address, family: 4 } : address);
}

interface Parsed {
  readonly result: number;
  readonly source: string;
  readonly destination: string;
}

/** Parses amid other bytes, so that reading outside the given range would show. */
function parse(bytes: Uint8Array, length = bytes.length, accept = PROXY_ACCEPT_ANY): Parsed {
  const around = new Uint8Array(bytes.length + 6).fill(0x0a);
  around.set(bytes, 3);
  const [source, destination] = [emptyAddress(), emptyAddress()];
  const result = parseProxyHeader(around, 3, length, accept, source, destination);
  for (const end of [source, destination]) {
    const untouched = end.family === -1 && end.w3 === 7 && end.port === 7;
    assert.equal(untouched, result <= 0, 'an address is written exactly when there is a header');
  }
  if (result <= 0) return { result, source: '', destination: '' };
  return { result, source: show(source), destination: show(destination) };
}

function write(
  version: number,
  source: ProxyAddress,
  destination: ProxyAddress,
  extras = NO_EXTRAS,
): Uint8Array {
  const target = new Uint8Array(PROXY_WRITE_BYTES_MAX + 8).fill(0xaa);
  const bytes = writeProxyHeader(target, 5, version, source, destination, extras);
  assert.ok(bytes <= PROXY_WRITE_BYTES_MAX);
  assert.ok(target.subarray(0, 5).every((byte) => byte === 0xaa));
  assert.ok(target.subarray(5 + bytes).every((byte) => byte === 0xaa));
  return target.slice(5, 5 + bytes);
}

/** CRC32c bit by bit: not the way of the code. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f6_3b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffff_ffffn);
}

test('parseProxyHeader() reads the lines of the specification', () => {
  const lines: [string, string][] = [
    ['PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n', '192.168.0.1 56324'],
    ['PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n', '255.255.255.255 65535'],
    ['PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n', '0.0.0.0 0'],
    [`PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535\r\n`, 'ffff'],
    ['PROXY TCP6 2001:DB8::1 ::1 4711 443\r\n', '2001:db8::1 4711'],
    ['PROXY TCP6 2001:0db8:0:0:0:0:0:1 :: 4711 443\r\n', '2001:db8::1 4711'],
    // As HAProxy and nginx write clients of a dual-stack listener.
    ['PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n', '192.0.2.1 1'],
    ['PROXY UNKNOWN\r\n', 'none'],
    [`PROXY UNKNOWN ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535\r\n`, 'none'],
    ['PROXY UNKNOWN \0\xff whatever \r\n', 'none'],
  ];
  for (const [line, expected] of lines) {
    const parsed = parse(text(line));
    assert.equal(parsed.result, line.length, line);
    assert.ok(parsed.source.startsWith(expected), `${line}: ${parsed.source}`);
    assert.deepEqual(parse(text(`${line}PROXY and the client's bytes\r\n`)), parsed);
  }
});

test('parseProxyHeader() refuses a line that breaks any rule of version 1', () => {
  const good = 'PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n';
  assert.ok(parse(text(good)).result > 0);
  const broken = [
    'proxy TCP4 1.2.3.4 5.6.7.8 10 20\r\n',
    ' PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY  TCP4 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY\tTCP4 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY TCP5 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY UDP4 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY TCP4  1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3.4  5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8  10 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10  20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 20 \r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 20 30\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 \r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8\r\n',
    'PROXY TCP4 1.2.3.4\r\n',
    'PROXY TCP4 \r\n',
    'PROXY TCP4\r\n',
    'PROXY \r\n',
    'PROXY\r\n',
    'PROXY TCP4 01.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.08 10 20\r\n',
    'PROXY TCP4 1.2.3.256 5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3 5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3.4.5 5.6.7.8 10 20\r\n',
    'PROXY TCP4 ::1 5.6.7.8 10 20\r\n',
    'PROXY TCP4 1.2.3.4 ::1 10 20\r\n',
    'PROXY TCP6 1.2.3.4 5.6.7.8 10 20\r\n',
    'PROXY TCP6 ::1 1.2.3.4 10 20\r\n',
    'PROXY TCP6 [::1] ::1 10 20\r\n',
    'PROXY TCP6 fe80::1%eth0 ::1 10 20\r\n',
    'PROXY TCP6 1::2::3 ::1 10 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 010 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 00\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 -1 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 +1 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 65536 20\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 65536\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 20\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 10 20\rx',
    'PROXY TCP4 1.2.3.4 5.6.7.8\n10 20\r\n',
    'PROXY UNKNOWNX\r\n',
    'PROXY UNKNOW\r\n',
    'PROXY UNKNOWN a\nb\r\n',
    'PROXY UNKNOWN a\rb\r\n',
    `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`,
    `PROXY UNKNOWN ${'x'.repeat(91)}\r\r\n`,
    `PROXY TCP4 ${'1'.repeat(96)}`,
    'GET / HTTP/1.1\r\n',
    '\0',
  ];
  for (const line of broken) assert.equal(parse(text(line)).result, PROXY_MALFORMED, line);
  // The longest line there may be: 107 bytes with its end, one less than refused above.
  assert.equal(parse(text(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`)).result, 107);
});

test('parseProxyHeader() reads known version 2 headers', () => {
  const v4 = '7f000001 7f000002 002a 0539';
  const v6 = '20010db8 00000000 00000000 00000001 20010db8 00000000 00000000 00000002 002a 0539';
  const headers: [string, string][] = [
    [`${SIGNATURE} 21 11 000c ${v4}`, '127.0.0.1 42'],
    [`${SIGNATURE} 21 11 0014 ${v4} 02 0005 3132333435`, '127.0.0.1 42'],
    [`${SIGNATURE} 21 11 000f ${v4} 04 0000`, '127.0.0.1 42'],
    [`${SIGNATURE} 21 21 0024 ${v6}`, '2001:db8::1 42'],
    [
      `${SIGNATURE} 21 21 0024 ${'0'.repeat(20)}ffff c0000201 ${'0'.repeat(32)} 002a 0539`,
      '192.0.2.1',
    ],
    [`${SIGNATURE} 20 00 0000`, 'none'],
    // A LOCAL header's family and bytes are ignored, even nonsense.
    [`${SIGNATURE} 20 11 0003 ffffff`, 'none'],
    [`${SIGNATURE} 20 ff 0000`, 'none'],
    [`${SIGNATURE} 21 00 0000`, 'none'],
    [`${SIGNATURE} 21 00 0004 ffffffff`, 'none'],
    [`${SIGNATURE} 21 10 0000`, 'none'],
    [`${SIGNATURE} 21 01 0000`, 'none'],
    [`${SIGNATURE} 21 12 000c ${v4}`, 'none'],
    [`${SIGNATURE} 21 22 0024 ${v6}`, 'none'],
    [`${SIGNATURE} 21 31 00d8 ${'2f746d70'.repeat(54)}`, 'none'],
    [`${SIGNATURE} 21 32 00d8 ${'00'.repeat(216)}`, 'none'],
  ];
  for (const [header, expected] of headers) {
    const bytes = hex(header);
    const parsed = parse(bytes);
    assert.equal(parsed.result, bytes.length, header);
    assert.ok(parsed.source.startsWith(expected), `${header}: ${parsed.source}`);
    assert.deepEqual(parse(Buffer.concat([bytes, bytes])), parsed);
  }
});

test('parseProxyHeader() refuses a header that breaks any rule of version 2', () => {
  const v4 = '7f000001 7f000002 002a 0539';
  const broken = [
    `0d0a0d0a000d0a515549540b 21 11 000c ${v4}`,
    `${SIGNATURE} 11 11 000c ${v4}`,
    `${SIGNATURE} 31 11 000c ${v4}`,
    `${SIGNATURE} 22 11 000c ${v4}`,
    `${SIGNATURE} 2f 11 000c ${v4}`,
    `${SIGNATURE} 21 41 000c ${v4}`,
    `${SIGNATURE} 21 f1 000c ${v4}`,
    `${SIGNATURE} 21 13 000c ${v4}`,
    `${SIGNATURE} 21 1f 000c ${v4}`,
    `${SIGNATURE} 21 03 0000`,
    `${SIGNATURE} 21 11 000b ${v4}`,
    `${SIGNATURE} 21 11 0000`,
    `${SIGNATURE} 21 21 0023 ${'00'.repeat(35)}`,
    `${SIGNATURE} 21 31 00d7 ${'00'.repeat(215)}`,
    // TLVs that do not end where the header ends (the cases of HAProxy's own tests).
    `${SIGNATURE} 21 11 0014 ${v4} 02 000a 3132333435`,
    `${SIGNATURE} 21 11 0014 ${v4} 02 0004 31323334 00`,
    `${SIGNATURE} 21 11 000d ${v4} 04`,
    `${SIGNATURE} 21 11 000e ${v4} 0400`,
    `${SIGNATURE} 21 11 0010 ${v4} 04 ffff 00`,
    `${SIGNATURE} 21 12 000d ${v4} 04`,
    // A checksum of the wrong length.
    `${SIGNATURE} 21 11 0012 ${v4} 03 0003 000000`,
    // Longer than any header may be, known from the first 16 bytes.
    `${SIGNATURE} 21 11 0ff1`,
    `${SIGNATURE} 20 00 ffff`,
  ];
  for (const header of broken) assert.equal(parse(hex(header)).result, PROXY_MALFORMED, header);
  const longest = Buffer.concat([hex(`${SIGNATURE} 20 00 0ff0`), Buffer.alloc(4080)]);
  assert.equal(parse(longest).result, PROXY_HEADER_BYTES_MAX);
});

test('parseProxyHeader() verifies a CRC32C wherever it stands', () => {
  assert.equal(crc32c(text('123456789')), 0xe306_9283);
  const v4 = '7f000001 7f000002 002a 0539';
  for (const [before, after] of [
    ['', ''],
    ['02 0001 61', ''],
    ['', 'e0 0002 4252'],
  ]) {
    const rest = hex(`${v4} ${before} 03 0004 00000000 ${after}`);
    const header = Buffer.concat([hex(`${SIGNATURE} 21 11`), Buffer.of(0, rest.length), rest]);
    const checksumAt = 16 + hex(`${v4} ${before} 03 0004`).length;
    header.writeUInt32BE(crc32c(header), checksumAt);
    assert.equal(parse(header).result, header.length);
    for (let at = 16; at < header.length; at++) {
      for (const bit of [0, 3, 7]) {
        const damaged = Uint8Array.from(header);
        damaged[at] ^= 1 << bit;
        // Damage to the type or length of the checksum hides it: then it is another TLV.
        const hidden = at >= checksumAt - 3 && at < checksumAt;
        if (!hidden) assert.equal(parse(damaged).result, PROXY_MALFORMED, `byte ${at} bit ${bit}`);
      }
    }
  }
  const twice = hex(`${SIGNATURE} 21 11 001a ${v4} 03 0004 00000000 03 0004 00000000`);
  new DataView(twice.buffer).setUint32(31, crc32c(twice));
  assert.equal(parse(twice).result, PROXY_MALFORMED);
});

test('parseProxyHeader() refuses the version it is not set to accept, at the first byte', () => {
  assert.equal(parse(text('P'), 1, PROXY_ACCEPT_V1).result, PROXY_NEED_MORE);
  assert.equal(parse(text('P'), 1, PROXY_ACCEPT_V2).result, PROXY_MALFORMED);
  assert.equal(parse(text('\r'), 1, PROXY_ACCEPT_V2).result, PROXY_NEED_MORE);
  assert.equal(parse(text('\r'), 1, PROXY_ACCEPT_V1).result, PROXY_MALFORMED);
  assert.equal(parse(text('P'), 0, PROXY_ACCEPT_V2).result, PROXY_NEED_MORE);
  assert.equal(parse(text('P'), 1, 0).result, PROXY_MALFORMED);
});

test('writeProxyHeader() writes the bytes of the specification', () => {
  const line = (from: [string, number], to: [string, number]) =>
    Buffer.from(write(1, addressOf(...from), addressOf(...to))).toString('latin1');
  assert.equal(
    line(['192.168.0.1', 56_324], ['192.168.0.11', 443]),
    'PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n',
  );
  assert.equal(
    line(['0.0.0.0', 0], ['10.0.200.255', 65_535]),
    'PROXY TCP4 0.0.0.0 10.0.200.255 0 65535\r\n',
  );
  assert.equal(
    line(['2001:db8::1', 1], ['1:0:0:2:0:0:0:3', 20]),
    'PROXY TCP6 2001:db8::1 1:0:0:2::3 1 20\r\n',
  );
  // Mixed families: the IPv4 end is mapped.
  assert.equal(line(['192.0.2.1', 1], ['::', 2]), 'PROXY TCP6 ::ffff:c000:201 :: 1 2\r\n');
  assert.equal(line(['::1', 1], ['192.0.2.1', 2]), 'PROXY TCP6 ::1 ::ffff:c000:201 1 2\r\n');
  const none = { ...addressOf('0.0.0.0', 0), family: 0 };
  const v4 = addressOf('127.0.0.1', 42);
  assert.equal(Buffer.from(write(1, none, v4)).toString('latin1'), 'PROXY UNKNOWN\r\n');
  assert.deepEqual(write(2, none, v4), hex(`${SIGNATURE} 20 00 0000`));
  assert.deepEqual(
    write(2, v4, addressOf('127.0.0.2', 1337)),
    hex(`${SIGNATURE} 21 11 000c 7f000001 7f000002 002a 0539`),
  );
  assert.deepEqual(
    write(2, v4, addressOf('2001:db8::2', 1337)),
    hex(
      `${SIGNATURE} 21 21 0024 00000000000000000000ffff7f000001 ` +
        '20010db8000000000000000000000002 002a 0539',
    ),
  );
  const extras = { country: 'BR', pop: text('sa'), checksum: true };
  const bytes = write(2, v4, v4, extras);
  const crc = Buffer.from(bytes)
    .readUInt32BE(bytes.length - 4)
    .toString(16)
    .padStart(8, '0');
  assert.deepEqual(
    bytes,
    hex(
      `${SIGNATURE} 21 11 001d 7f000001 7f000001 002a 002a ` +
        `${TLV_COUNTRY.toString(16)} 0002 4252 ${TLV_POP.toString(16)} 0002 7361 03 0004 ${crc}`,
    ),
  );
  const zeroed = bytes.slice().fill(0, bytes.length - 4);
  assert.equal(Number.parseInt(crc, 16), crc32c(zeroed));
});

const wordArbitrary = fc.oneof(
  fc.constantFrom(0, 0, 0xffff, -1, 1, 0x1_0000),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
);
const portArbitrary = fc.oneof(fc.constantFrom(0, 9, 10, 65_535), fc.nat(65_535));
const addressArbitrary: fc.Arbitrary<ProxyAddress> = fc
  .tuple(fc.constantFrom(4, 6), wordArbitrary, wordArbitrary, wordArbitrary, wordArbitrary)
  .chain(([family, w0, w1, w2, w3]) =>
    portArbitrary.map((port) =>
      family === 4 ? { family, w0: 0, w1: 0, w2: 0, w3, port } : { family, w0, w1, w2, w3, port },
    ),
  );
const extrasArbitrary: fc.Arbitrary<ProxyExtras> = fc.record({
  country: fc.constantFrom('', 'BR', 'US'),
  pop: fc.uint8Array({ maxLength: 128 }),
  checksum: fc.boolean(),
});
const headerArbitrary = fc.record({
  version: fc.constantFrom(1, 2),
  source: fc.oneof(addressArbitrary, fc.constant({ ...emptyAddress(), family: 0 })),
  destination: addressArbitrary,
  extras: extrasArbitrary,
});

test('parseProxyHeader() reads back any header written, and waits at every truncation', () => {
  fc.assert(
    fc.property(headerArbitrary, fc.uint8Array({ maxLength: 4 }), (header, behind) => {
      const { version, source, destination, extras } = header;
      const bytes = write(version, source, destination, extras);
      const stream = Buffer.concat([bytes, behind]);
      const expected = source.family === 0 ? 'none' : showPlain(source);
      const to = source.family === 0 ? 'none' : showPlain(destination);
      const whole = { result: bytes.length, source: expected, destination: to };
      assert.deepEqual(parse(stream), whole);
      for (let length = 0; length < bytes.length; length++) {
        assert.equal(parse(stream, length).result, PROXY_NEED_MORE, `at ${length}`);
      }
    }),
    { numRuns: 1500 },
  );
});

/** The addresses of a version 1 line judged by a pattern, not byte by byte. */
function referenceV1(line: string): string[] | null {
  const match = /^PROXY (?:(UNKNOWN)(?: [^\r\n]*)?|TCP([46]) (\S+) (\S+) (\d+) (\d+))\r\n/.exec(
    line,
  );
  if (match === null || match[0].length > 107) return null;
  if (match[1] !== undefined) return ['none', 'none'];
  const ports = [match[5], match[6]];
  if (ports.some((port) => Number(port) > 65_535 || String(Number(port)) !== port)) return null;
  const ends: string[] = [];
  for (const [at, text] of [match[3], match[4]].entries()) {
    const parsed = parseAddress(text as string);
    if (parsed === null || parsed.family !== Number(match[2])) return null;
    ends.push(showPlain(addressOf(text as string, Number(ports[at]))));
  }
  return ends;
}

/** Any bytes of a version 1 or 2 header with some of them changed, cut out or doubled. */
const damagedArbitrary = fc
  .tuple(
    headerArbitrary,
    fc.array(fc.tuple(fc.nat(), fc.nat(3), fc.nat(255)), { maxLength: 3 }),
    fc.boolean(),
  )
  .map(([{ version, source, destination, extras }, edits, readable]) => {
    let bytes = Array.from(write(version, source, destination, extras));
    for (const [position, kind, value] of edits) {
      const at = position % bytes.length;
      const byte = readable ? '0159 .:\r\nfPTU'.charCodeAt(value % 13) : value;
      if (kind === 0) bytes[at] = byte;
      if (kind === 1) bytes.splice(at, 1);
      if (kind === 2) bytes.splice(at, 0, byte);
      if (kind === 3)
        bytes = [...bytes.slice(0, at), ...bytes.slice(Math.max(0, at - (value % 9)))];
    }
    return Uint8Array.from(bytes);
  });

test('parseProxyHeader() judges damaged lines as the pattern does', () => {
  fc.assert(
    fc.property(damagedArbitrary, (bytes) => {
      if (bytes[0] !== 0x50) return;
      const { result, source, destination } = parse(bytes);
      const expected = referenceV1(Buffer.from(bytes).toString('latin1'));
      if (expected === null) assert.ok(result <= 0);
      else assert.deepEqual([source, destination], expected);
    }),
    { numRuns: 20_000, seed: 4 },
  );
});

test('parseProxyHeader() never changes its mind as bytes arrive, whatever they are', () => {
  const anything = fc.oneof(
    damagedArbitrary,
    fc.uint8Array({ maxLength: 130 }),
    fc.uint8Array({ maxLength: 60 }).map((rest) => Buffer.concat([hex(SIGNATURE), rest])),
    fc.uint8Array({ maxLength: 60 }).map((rest) => Buffer.concat([hex(`${SIGNATURE} 2111`), rest])),
    fc.uint8Array({ maxLength: 60 }).map((rest) => Buffer.concat([text('PROXY TCP4 '), rest])),
  );
  fc.assert(
    fc.property(anything, (bytes) => {
      let decided: Parsed | null = null;
      for (let length = 0; length <= bytes.length; length++) {
        const now = parse(bytes, length);
        assert.ok(now.result <= length);
        if (decided !== null) assert.deepEqual(now, decided);
        else if (now.result !== PROXY_NEED_MORE) decided = now;
      }
    }),
    { numRuns: 4000, seed: 5 },
  );
});
