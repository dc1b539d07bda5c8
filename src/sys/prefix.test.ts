import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatPrefix, type Prefix, parsePrefix } from './prefix.ts';

test('parsePrefix() reads both families into one form, and formatPrefix() writes it back', () => {
  const cases: [string, number[], number, string?][] = [
    ['10.0.0.0/8', [0, 0, 0xffff, 0x0a00_0000], 104],
    ['0.0.0.0/0', [0, 0, 0xffff, 0], 96],
    ['192.0.2.7', [0, 0, 0xffff, 0xc000_0207], 128],
    ['192.0.2.7/32', [0, 0, 0xffff, 0xc000_0207], 128, '192.0.2.7'],
    ['::ffff:10.0.0.0/104', [0, 0, 0xffff, 0x0a00_0000], 104, '10.0.0.0/8'],
    ['2001:DB8::/32', [0x2001_0db8, 0, 0, 0], 32, '2001:db8::/32'],
    ['::/0', [0, 0, 0, 0], 0],
    ['::fffe:0:0/95', [0, 0, 0xfffe, 0], 95],
    ['2001:db8::1', [0x2001_0db8, 0, 0, 1], 128],
  ];
  for (const [text, words, length, written] of cases) {
    assert.deepEqual(parsePrefix(text), { words, length }, text);
    assert.equal(formatPrefix({ words, length }), written ?? text);
  }
});

test('parsePrefix() says what is wrong', () => {
  const cases: [string, RegExp][] = [
    ['', /^must be an address, or a prefix as in/],
    ['nonsense', /^must be an address/],
    ['10.0.0', /^must be an address/],
    ['010.0.0.0/8', /^must be an address/],
    ['10.0.0.0 /8', /^must be an address/],
    ['10.0.0.0/8/8', /^must be an address/],
    ['[::1]', /^must be an address/],
    ['fe80::1%lo', /^must be an address/],
    ['10.0.0.0/33', /^must have a prefix length from 0 to 32$/],
    ['10.0.0.0/', /^must have a prefix length from 0 to 32$/],
    ['10.0.0.0/08', /^must have a prefix length from 0 to 32$/],
    ['10.0.0.0/+8', /^must have a prefix length from 0 to 32$/],
    ['2001:db8::/129', /^must have a prefix length from 0 to 128$/],
    ['10.0.0.1/8', /^must not have bits beyond its prefix length, as in 10\.0\.0\.0\/8$/],
    ['2001:db8::1/64', /^must not have bits beyond its prefix length, as in 2001:db8::\/64$/],
  ];
  for (const [text, reason] of cases) assert.match(String(parsePrefix(text)), reason, text);
});

test('parsePrefix() reads back whatever formatPrefix() writes', () => {
  const word = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff_ffff }));
  const v4 = fc.tuple(fc.constant(0), fc.constant(0), fc.constant(0xffff), word);
  fc.assert(
    fc.property(fc.oneof(v4, fc.tuple(word, word, word, word)), fc.nat(128), (all, length) => {
      const bits = all.reduce((sum, part) => (sum << 32n) | BigInt(part), 0n);
      const kept = (bits >> BigInt(128 - length)) << BigInt(128 - length);
      const words = [96n, 64n, 32n, 0n].map((shift) => Number((kept >> shift) & 0xffff_ffffn));
      const prefix: Prefix = { words, length };
      assert.deepEqual(parsePrefix(formatPrefix(prefix)), prefix);
    }),
    { numRuns: 2000 },
  );
});
