// Prefix lists against arithmetic on whole addresses.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parsePrefix } from '../sys/prefix.ts';
import { parseAddress } from '../sys/sockaddr.ts';
import { encodePrefixes, isListed } from './prefix-list.ts';

function listOf(texts: readonly string[]): Int32Array {
  return encodePrefixes(
    texts.map((text) => {
      const prefix = parsePrefix(text);
      assert.ok(typeof prefix !== 'string', text);
      return prefix;
    }),
  );
}

function holds(texts: readonly string[], address: string): boolean {
  const parsed = parseAddress(address);
  assert.ok(parsed);
  const words = parsed.family === 4 ? [0, 0, 0xffff, parsed.words[3]] : parsed.words;
  const [w0, w1, w2, w3] = words.map((word) => word | 0) as [number, number, number, number];
  return isListed(listOf(texts), w0, w1, w2, w3);
}

test('isListed() knows the borders of prefixes, and one family from the other', () => {
  const list = ['10.0.0.0/8', '192.0.2.7', '2001:db8::/33', '::1'];
  for (const address of ['10.0.0.0', '10.255.255.255', '192.0.2.7', '::ffff:10.1.2.3']) {
    assert.equal(holds(list, address), true, address);
  }
  for (const address of ['2001:db8::', '2001:db8:7fff:ffff:ffff:ffff:ffff:ffff', '::1']) {
    assert.equal(holds(list, address), true, address);
  }
  for (const address of ['9.255.255.255', '11.0.0.0', '192.0.2.6', '192.0.2.8', '::10.0.0.1']) {
    assert.equal(holds(list, address), false, address);
  }
  for (const address of ['2001:db8:8000::', '2001:db7:ffff::', '::', '::2', '0.0.0.1']) {
    assert.equal(holds(list, address), false, address);
  }
  assert.equal(holds([], '10.0.0.1'), false);
  assert.equal(holds(['0.0.0.0/0'], '255.255.255.255'), true);
  assert.equal(holds(['0.0.0.0/0'], '2001:db8::1'), false);
  assert.equal(holds(['::/0'], '255.255.255.255'), false, 'the families are apart');
  assert.equal(holds(['::/0'], '::1'), true);
  assert.equal(holds(['::ffff:0:0/96'], '1.2.3.4'), true);
});

const word = fc.integer({ min: 0, max: 0xffff_ffff });
const words = fc.tuple(word, word, word, word);
const prefix = fc.tuple(words, fc.nat(128));

function asNumber(parts: readonly number[]): bigint {
  return parts.reduce((sum, part) => (sum << 32n) | BigInt(part), 0n);
}

test('isListed() agrees with shifted numbers', () => {
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 5 }), words, fc.nat(130), (list, other, flip) => {
      const cut = list.map(([parts, length]) => ({
        number: (asNumber(parts) >> BigInt(128 - length)) << BigInt(128 - length),
        length,
      }));
      // Often an address that differs from the first prefix in one bit, or in none.
      const first = cut[0];
      const address =
        first === undefined || flip === 130
          ? asNumber(other)
          : first.number ^ (flip < 128 ? 1n << BigInt(flip) : 0n);
      const isV4 = address >> 32n === 0xffffn;
      const expected = cut.some(
        ({ number, length }) =>
          address >> BigInt(128 - length) === number >> BigInt(128 - length) &&
          (!isV4 || length >= 96),
      );
      const split = (number: bigint): number[] =>
        [96n, 64n, 32n, 0n].map((shift) => Number((number >> shift) & 0xffff_ffffn));
      const encoded = encodePrefixes(
        cut.map(({ number, length }) => ({ words: split(number), length })),
      );
      const [w0, w1, w2, w3] = split(address).map((part) => part | 0) as [
        number,
        number,
        number,
        number,
      ];
      assert.equal(isListed(encoded, w0, w1, w2, w3), expected);
    }),
    { numRuns: 3000 },
  );
});
