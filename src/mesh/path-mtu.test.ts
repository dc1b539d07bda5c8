// The search for the path MTU against paths that swallow packets above a size, for any such size.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  createPathMtu,
  nextMtuProbe,
  noteMtuAnswer,
  noteMtuLost,
  type PathMtu,
} from './path-mtu.ts';

const SETTINGS = { intervalMs: 1000 };

/** Lets probes go for `ms`; `passes` tells whether a size does. The number of probes. */
function run(
  mtu: PathMtu,
  clock: { nowMs: number },
  ms: number,
  passes: (bytes: number) => boolean,
  smallPass = true,
): number {
  let probes = 0;
  for (const endMs = clock.nowMs + ms; clock.nowMs < endMs; clock.nowMs += 1000) {
    const bytes = nextMtuProbe(mtu, clock.nowMs);
    if (bytes === 0) continue;
    probes++;
    assert.ok(bytes >= mtu.floorBytes && bytes <= mtu.fullBytes, `${bytes} bytes`);
    if (passes(bytes)) noteMtuAnswer(mtu, SETTINGS, clock.nowMs);
    else noteMtuLost(mtu, SETTINGS, clock.nowMs, smallPass);
  }
  return probes;
}

test('path MTU: a path that takes full packets is asked every fifth interval', () => {
  const clock = { nowMs: 5000 };
  const mtu = createPathMtu(4, 1420, clock.nowMs);
  assert.equal(
    run(mtu, clock, 100_000, () => true),
    20,
  );
  assert.equal(mtu.bytes, 1420);
});

test('path MTU: any black hole is found to four bytes, never too large, and its end is noticed', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.integer({ min: 576, max: 1500 }),
      fc.integer({ min: 1280, max: 9000 }),
      (family, limit, full) => {
        const clock = { nowMs: 0 };
        const mtu = createPathMtu(family, full, 0);
        run(mtu, clock, 200_000, (bytes) => bytes <= limit);
        const best = Math.min(full, Math.max(limit, mtu.floorBytes));
        assert.ok(mtu.bytes <= best && mtu.bytes >= best - 4, `${mtu.bytes} for ${best}`);
        run(mtu, clock, 700_000, () => true);
        assert.equal(mtu.bytes, full);
      },
    ),
    { numRuns: 300 },
  );
});

test('path MTU: transfers can go on before the search is over', () => {
  const clock = { nowMs: 0 };
  const mtu = createPathMtu(4, 1420, 0);
  run(mtu, clock, 3000, (bytes) => bytes <= 1300);
  assert.equal(mtu.bytes, 1280);
  assert.ok(mtu.isSearching);
});

test('path MTU: nothing is learnt while small packets are lost too', () => {
  const clock = { nowMs: 0 };
  const mtu = createPathMtu(4, 1420, 0);
  run(mtu, clock, 200_000, () => false, false);
  assert.equal(mtu.bytes, 1420);
  // In the middle of a search, too: it begins again once the path is back.
  run(mtu, clock, 8000, (bytes) => bytes <= 1400);
  assert.ok(mtu.isSearching);
  run(mtu, clock, 10_000, () => false, false);
  assert.equal(mtu.bytes, 1280);
  run(mtu, clock, 60_000, (bytes) => bytes <= 1400);
  assert.ok(mtu.bytes <= 1400 && mtu.bytes >= 1396, String(mtu.bytes));
});

test('path MTU: two lost packets of three are no black hole', () => {
  const clock = { nowMs: 0 };
  const mtu = createPathMtu(4, 1420, 0);
  let count = 0;
  run(mtu, clock, 1_000_000, () => count++ % 3 === 0);
  assert.equal(mtu.bytes, 1420);
});
