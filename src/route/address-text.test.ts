// The text readers against node's own judgement of what an address is.

import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../sys/sockaddr.ts';
import { decimal, isMappedIPv4, readDecimal, readIPv4, readIPv6 } from './address-text.ts';

type Reader = typeof readIPv4;

/** The words of `text` read whole, or null. */
function readWhole(reader: Reader, text: string): number[] | null {
  const bytes = new TextEncoder().encode(`<${text}>`);
  const words = new Int32Array(4);
  const end = reader(bytes, 1, bytes.length - 1, words);
  return end === bytes.length - 1 ? Array.from(words, (word) => word >>> 0) : null;
}

function expected(text: string, family: 4 | 6): number[] | null {
  const valid = family === 4 ? isIPv4(text) : isIPv6(text) && !text.includes('%');
  return valid ? [...(parseAddress(text)?.words ?? [])] : null;
}

const piece = fc.constantFrom(
  ...['0', '1', '9', '00', '01', '255', '256', 'f', 'F', 'fffff', 'ffff', 'abcd', 'g'],
  ...['.', '.', '.', ':', ':', ':', '::', '::', '1.2.3.4', '1:2:3', ' ', '%', '-', '+1'],
);
const text = fc.array(piece, { maxLength: 18 }).map((pieces) => pieces.join(''));
const word = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff_ffff }));
const words = fc.tuple(word, word, word, word);

test('readIPv4() and readIPv6() take exactly the texts that are addresses', () => {
  fc.assert(
    fc.property(text, (candidate) => {
      assert.deepEqual(readWhole(readIPv4, candidate), expected(candidate, 4), candidate);
      assert.deepEqual(readWhole(readIPv6, candidate), expected(candidate, 6), candidate);
    }),
    { numRuns: 20_000 },
  );
});

test('readIPv4() and readIPv6() read back what formatAddress() writes', () => {
  fc.assert(
    fc.property(words, (address) => {
      assert.deepEqual(readWhole(readIPv6, formatAddress(6, address)), address);
      const upper = formatAddress(6, address).toUpperCase();
      assert.deepEqual(readWhole(readIPv6, upper), address);
      const v4 = [0, 0, 0, address[3]];
      assert.deepEqual(readWhole(readIPv4, formatAddress(4, v4)), v4);
    }),
    { numRuns: 3000 },
  );
});

test('readIPv6() knows the awkward forms', () => {
  const good = ['::', '::1', '1::', '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8', '1::8', '::1.2.3.4'];
  const alsoGood = [
    '1:2:3:4:5:6:7:8',
    '1:2:3:4:5:6:1.2.3.4',
    '0001:0:0:0:0:0:0:0',
    '::ffff:1.2.3.4',
  ];
  for (const address of [...good, ...alsoGood]) {
    assert.deepEqual(readWhole(readIPv6, address), expected(address, 6), address);
    assert.notEqual(readWhole(readIPv6, address), null, address);
  }
  const bad = ['', ':', ':::', '1', '1:', ':1', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9'];
  const alsoBad = ['1:2:3:4:5:6:7:8::', '::1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:1.2.3.4', '::1.2.3'];
  for (const address of [...bad, ...alsoBad, '::01.2.3.4', '1:2:3:4:5:6:7:', '12345::']) {
    assert.equal(readWhole(readIPv6, address), null, address);
  }
});

test('readDecimal() refuses leading zeros and numbers above the maximum', () => {
  const read = (digits: string) =>
    readDecimal(new TextEncoder().encode(digits), 0, digits.length, 65_535);
  assert.deepEqual([read('0'), decimal[0]], [1, 0]);
  assert.deepEqual([read('65535x'), decimal[0]], [5, 65_535]);
  for (const digits of ['', 'x', '00', '01', '65536', '99999999999']) {
    assert.equal(read(digits), -1, digits);
  }
});

test('isMappedIPv4() is ::ffff:0:0/96 and nothing else', () => {
  assert.equal(isMappedIPv4(0, 0, 0xffff), true);
  for (const [w0, w1, w2] of [
    [1, 0, 0xffff],
    [0, 1, 0xffff],
    [0, 0, 0],
    [0, 0, 0x1_ffff],
  ]) {
    assert.equal(isMappedIPv4(w0, w1, w2), false);
  }
});
