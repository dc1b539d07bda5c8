// hashClient(): every bit of key and seed matters, and neighbours spread evenly.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CLIENT_KEY_WORDS, hashClient } from './client-hash.ts';

const SEED = Int32Array.of(0x0123_4567, 0x89ab_cdef);

function hash(key: readonly number[], seed = SEED): [number, number] {
  const hashes = new Uint32Array(2);
  hashClient(hashes, seed, Int32Array.from(key));
  return [hashes[0], hashes[1]];
}

test('hashClient() changes both hashes with any bit of the key or the seed', () => {
  const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  const words = fc.tuple(word, word, word, word, word, word, word);
  const bits = (CLIENT_KEY_WORDS + 2) * 32;
  fc.assert(
    fc.property(words, fc.nat(bits - 1), (before, bit) => {
      const after: number[] = [...before];
      after[bit >> 5] ^= 1 << (bit & 31);
      const one = hash(before.slice(0, 5), Int32Array.from(before.slice(5)));
      const two = hash(after.slice(0, 5), Int32Array.from(after.slice(5)));
      assert.notEqual(one[0], two[0]);
      assert.notEqual(one[1], two[1]);
      assert.notEqual(one[0], one[1]);
    }),
    { numRuns: 2000, seed: 1 },
  );
});

test('hashClient() spreads consecutive addresses evenly over buckets, by either hash', () => {
  const buckets = 1000;
  const clients = 100_000;
  for (const half of [0, 1]) {
    const load = new Uint32Array(buckets);
    for (let client = 0; client < clients; client++) {
      const value = hash([0, 0, 0xffff, 0x0a00_0000 + client, 1])[half];
      load[Math.floor((value / 2 ** 32) * buckets)]++;
    }
    // Chi-square of 999 degrees of freedom: mean 999, deviation 45; the input is fixed.
    const expected = clients / buckets;
    const chi = load.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    assert.ok(chi > 800 && chi < 1200, `chi-square ${chi}`);
  }
});
