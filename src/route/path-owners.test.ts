// pathOwner() against a plain search for the longest prefix.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createPathOwners, pathOwner } from './path-owners.ts';

type Prefix = { words: number[]; length: number };

function cut(words: readonly number[], length: number): number[] {
  return words.map((word, index) => {
    const bits = Math.min(32, Math.max(0, length - index * 32));
    return bits === 0 ? 0 : (word & (-1 << (32 - bits))) >>> 0;
  });
}

/** Few bits, so that prefixes meet. */
const word = fc.constantFrom(0, 1, 2, 0x8000_0000, 0xc000_0000);
const address = fc.oneof(
  fc.tuple(fc.constant(0), fc.constant(0), fc.constant(0xffff), word).map((list) => [...list]),
  fc.tuple(fc.constant(0xfd00_0000), word, word, word).map((list) => [...list]),
);
const prefix: fc.Arbitrary<Prefix> = address.chain((words) => {
  const isV4 = words[2] === 0xffff && words[0] === 0;
  return fc
    .integer({ min: isV4 ? 96 : 0, max: 128 })
    .map((length) => ({ words: cut(words, length), length }));
});

const isV4 = ({ words, length }: Prefix): boolean =>
  length >= 96 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;

test('pathOwner() finds the peer with the longest prefix, families apart', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(prefix, { maxLength: 4 }), { maxLength: 6 }),
      address,
      (peers, to) => {
        const four = to[0] === 0 && to[2] === 0xffff;
        let best = -1;
        let longest = -1;
        peers.forEach((prefixes, peer) => {
          for (const each of prefixes) {
            const holds = cut(to, each.length).every((value, at) => value === each.words[at]);
            if (!holds || isV4(each) !== four || each.length <= longest) continue;
            best = peer;
            longest = each.length;
          }
        });
        assert.equal(pathOwner(createPathOwners(peers), to), best);
      },
    ),
    { numRuns: 3000 },
  );
});
