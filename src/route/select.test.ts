// reserveBackend() against a reference written from DESIGN §3.4, then turns, limits and threads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import fc from 'fast-check';
import type { ReserveJob, ReserveReport } from '../testing/reserve-worker.ts';
import {
  largeRoutingData,
  testBackend,
  testRoutingData,
  WORLD_COUNTRIES,
  WORLD_REGIONS,
} from '../testing/routing-data.ts';
import { createBarrier, runWorkers } from '../testing/run-workers.ts';
import {
  createBackendState,
  GATE_BREAKER,
  GATE_DRAIN,
  GATE_HEALTH,
  GATE_PATH,
  openBackendState,
} from './backend-state.ts';
import { explainSelection } from './candidates.ts';
import {
  ALL_FULL,
  createSelector,
  NO_BACKEND,
  releaseBackend,
  reserveBackend,
  reserveBound,
  type Selector,
  scoreOf,
  useSnapshot,
} from './select.ts';
import { encodeSnapshot, openSnapshot, type RoutingBackend, type RoutingData } from './snapshot.ts';

const NONE = new Int32Array(0);

function selectorFor(data: RoutingData, seed = 1): Selector {
  const selector = createSelector(openBackendState(createBackendState()), seed);
  useSnapshot(selector, openSnapshot(encodeSnapshot(data)));
  return selector;
}

/** Great-circle distance by the spherical law of cosines: not the formula of regions.ts. */
function greatCircleKm(from: ArrayLike<number>, to: ArrayLike<number>): number {
  const radians = Math.PI / 180;
  const [lat1, lon1] = [from[0] * radians, from[1] * radians];
  const [lat2, lon2] = [to[0] * radians, to[1] * radians];
  const cosine =
    Math.sin(lat1) * Math.sin(lat2) + Math.cos(lat1) * Math.cos(lat2) * Math.cos(lon1 - lon2);
  return 6371 * Math.acos(Math.min(1, Math.max(-1, cosine)));
}

interface Load {
  readonly active: number;
  readonly gate: number;
}

interface Rank {
  readonly index: number;
  readonly tier: number;
  readonly distance: number;
  readonly score: number;
}

/** DESIGN §3.4 read aloud, one backend at a time: who may be picked, or why nobody. */
function referencePick(
  data: RoutingData,
  loads: readonly Load[],
  app: number,
  client: number,
  excluded: readonly number[],
): number[] | number {
  const pair = (array: Float32Array, at: number) => array.slice(at * 2, at * 2 + 2);
  const place = (country: number) => pair(data.countryCoordinates, country);
  const popPlace =
    data.popCountry > 0 ? place(data.popCountry) : pair(data.regionCoordinates, data.popRegion);
  const rank = (backend: RoutingBackend): Rank => {
    const { index, country, region } = backend;
    let tier = 3;
    if (region === data.popRegion) tier = 2;
    if (client > 0 && region === data.countryRegion[client]) tier = 1;
    if (client > 0 && country === client) tier = 0;
    if (backend.degraded) tier++;
    let centre = pair(data.regionCoordinates, region);
    if (Number.isNaN(centre[0]) && country > 0) centre = place(country);
    const km = greatCircleKm(client > 0 ? place(client) : popPlace, centre);
    const own = Number.isNaN(km) ? Number.POSITIVE_INFINITY : km;
    const distance = tier < 3 ? 0 : tier === 3 && backend.degraded ? nearestElsewhere() : own;
    const load = (loads[index].active + 1) / Math.max(1, backend.softLimit);
    return { index, tier, distance, score: tier * 100 + load / backend.weight };
  };
  const members = data.backends.filter(
    (backend) =>
      (app === 0 || backend.app === app) &&
      backend.enabled &&
      !backend.draining &&
      backend.weight > 0,
  );
  /** Of those that are in tier 3 by their place. */
  function nearestElsewhere(): number {
    const there = members.filter(({ degraded }) => !degraded).map(rank);
    const distances = there.filter(({ tier }) => tier === 3).map(({ distance }) => distance);
    return distances.length === 0 ? 0 : Math.min(...distances);
  }
  const candidates = members.filter(
    (backend) => loads[backend.index].gate === 0 && !excluded.includes(backend.index),
  );
  if (candidates.length === 0) return NO_BACKEND;
  let best = candidates
    .filter(({ index, hardLimit }) => hardLimit === 0 || loads[index].active < hardLimit)
    .map(rank);
  if (best.length === 0) return ALL_FULL;
  for (const field of ['tier', 'distance', 'score'] as const) {
    const least = Math.min(...best.map((one) => one[field]));
    best = best.filter((one) => one[field] === least);
  }
  return best.map((one) => one.index);
}

const loadArbitrary: fc.Arbitrary<Load> = fc.record({
  active: fc.nat(4),
  gate: fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    fc.constantFrom(GATE_HEALTH, GATE_BREAKER, GATE_DRAIN, GATE_PATH),
  ),
});
const mostly = (usual: boolean) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(usual) }, fc.constant(!usual));
const backendsArbitrary = (maxLength: number): fc.Arbitrary<RoutingBackend[]> =>
  fc
    .uniqueArray(
      fc.record({
        index: fc.nat(120),
        app: fc.integer({ min: 1, max: 3 }),
        region: fc.nat(WORLD_REGIONS - 1),
        country: fc.nat(WORLD_COUNTRIES - 1),
        weight: fc.constantFrom(0, 0.5, 1, 1, 1, 2, 3),
        softLimit: fc.nat(4),
        hardLimit: fc.nat(4),
        enabled: mostly(true),
        draining: mostly(false),
        degraded: mostly(false),
      }),
      { selector: (backend) => backend.index, maxLength },
    )
    .map((list) => list.map(testBackend));

const worldArbitrary = fc.record({
  data: fc.record({
    backends: backendsArbitrary(30),
    popRegion: fc.nat(2),
    popCountry: fc.nat(WORLD_COUNTRIES - 1),
  }),
  loads: fc.array(loadArbitrary, { minLength: 121, maxLength: 121 }),
  app: fc.nat(4),
  client: fc.nat(WORLD_COUNTRIES - 1),
  excluded: fc.array(fc.nat(120), { maxLength: 15 }),
});

function applyLoads(selector: Selector, loads: readonly Load[]): void {
  loads.forEach(({ active, gate }, index) => {
    selector.state.active[index] = active;
    selector.state.gate[index] = gate;
  });
}

test('reserveBackend() picks what DESIGN §3.4 says, for any world', () => {
  fc.assert(
    fc.property(worldArbitrary, ({ data: fields, loads, app, client, excluded }) => {
      const data = testRoutingData(fields.backends, fields);
      const selector = selectorFor(data);
      applyLoads(selector, loads);
      const expected = referencePick(data, loads, app, client, excluded);
      const list = Int32Array.from(excluded);
      const picked = reserveBackend(selector, app, client, list, list.length);
      if (typeof expected === 'number') assert.equal(picked, expected);
      else assert.ok(expected.includes(picked), `picked ${picked}, expected one of ${expected}`);
      const active = loads.map((load, index) => load.active + Number(index === picked));
      assert.deepEqual(Array.from(selector.state.active.subarray(0, 121)), active);
    }),
    { numRuns: 3000 },
  );
});

test('reserveBackend() keeps to the reference while it fills a world to the last place', () => {
  fc.assert(
    fc.property(worldArbitrary, ({ data: fields, loads, app, client }) => {
      const data = testRoutingData(fields.backends, fields);
      const selector = selectorFor(data);
      applyLoads(selector, loads);
      for (let session = 0; session < 60; session++) {
        const now = loads.map(({ gate }, index) => ({
          gate,
          active: selector.state.active[index],
        }));
        const expected = referencePick(data, now, app, client, []);
        const picked = reserveBackend(selector, app, client, NONE, 0);
        if (typeof expected === 'number') return assert.equal(picked, expected);
        assert.ok(expected.includes(picked));
      }
    }),
    { numRuns: 300 },
  );
});

test('explainSelection() puts first what reserveBackend() picks', () => {
  fc.assert(
    fc.property(worldArbitrary, ({ data: fields, loads, app, client }) => {
      const data = testRoutingData(fields.backends, fields);
      const selector = selectorFor(data);
      applyLoads(selector, loads);
      const candidates = explainSelection(selector, app, client);
      const ofApp = data.backends.filter((backend) => app === 0 || backend.app === app);
      const sorted = (list: readonly { readonly index: number }[]) =>
        list.map(({ index }) => index).sort((one, two) => one - two);
      assert.deepEqual(sorted(candidates), sorted(ofApp));
      const open = candidates.filter(({ excluded }) => excluded === '');
      open.forEach(({ order }, rank) => {
        assert.equal(order, rank);
      });
      assert.deepEqual(candidates.slice(0, open.length), open, 'the excluded come last');
      for (const { index, tier, score, distanceKm } of candidates) {
        const { softLimit, weight } = data.backends.find((backend) => backend.index === index)!;
        assert.equal(score, scoreOf(tier, loads[index].active, softLimit, weight));
        assert.equal(distanceKm === null, tier < 3);
      }
      // The whole order, not only its head: what is picked when all before it are excluded.
      const tried: number[] = [];
      for (const { index } of open) {
        const list = Int32Array.from(tried);
        assert.equal(reserveBackend(selector, app, client, list, list.length), index);
        releaseBackend(selector.state, index);
        tried.push(index);
      }
      assert.ok(reserveBackend(selector, app, client, Int32Array.from(tried), tried.length) < 0);
    }),
    { numRuns: 1000 },
  );
});

test('explainSelection() names why a backend is out', () => {
  const backends = [
    testBackend({ index: 0, enabled: false, draining: true }),
    testBackend({ index: 1, draining: true }),
    testBackend({ index: 2 }),
    testBackend({ index: 3, weight: 0 }),
    testBackend({ index: 4 }),
    testBackend({ index: 5 }),
    testBackend({ index: 6 }),
    testBackend({ index: 7, hardLimit: 2 }),
    testBackend({ index: 8 }),
  ];
  const selector = selectorFor(testRoutingData(backends));
  selector.state.gate.set([0, 0, GATE_DRAIN, 0, GATE_HEALTH, GATE_BREAKER, GATE_PATH]);
  selector.state.active[7] = 2;
  const reasons = explainSelection(selector, 1, 1)
    .sort((one, two) => one.index - two.index)
    .map(({ excluded }) => excluded);
  assert.deepEqual(reasons, [
    'disabled',
    'draining',
    'draining',
    'weight 0',
    'health',
    'breaker',
    'path',
    'hard limit',
    '',
  ]);
});

test('scoreOf() is tier * 100 + ((active + 1) / soft_limit) / weight', () => {
  assert.equal(scoreOf(2, 9, 5, 4), 200.5);
  assert.equal(scoreOf(0, 0, 0, 1), 1, 'soft limit 0 counts as 1');
  assert.equal(scoreOf(1, 0, 10, 0), Number.POSITIVE_INFINITY);
});

test('reserveBackend() never lets load outweigh a tier', () => {
  const near = testBackend({ index: 0, country: 1, softLimit: 1, weight: 0.001 });
  const far = testBackend({ index: 1, country: 2, softLimit: 1_000_000 });
  const selector = selectorFor(testRoutingData([near, far]));
  selector.state.active[0] = 1_000_000;
  assert.equal(reserveBackend(selector, 1, 1, NONE, 0), 0);
});

test('reserveBackend() lets equal backends take turns evenly', () => {
  const backends = Array.from({ length: 7 }, (_, index) => testBackend({ index }));
  const selector = selectorFor(testRoutingData(backends));
  const turns = Array.from({ length: 70 }, () => {
    const picked = reserveBackend(selector, 1, 1, NONE, 0);
    releaseBackend(selector.state, picked);
    return picked;
  });
  for (let turn = 0; turn + 7 <= turns.length; turn++) {
    assert.equal(new Set(turns.slice(turn, turn + 7)).size, 7, 'each once in any seven turns');
  }
});

test('reserveBackend() spreads open sessions by weight', () => {
  const weights = [1, 2, 5];
  const backends = weights.map((weight, index) => testBackend({ index, weight }));
  const selector = selectorFor(testRoutingData(backends));
  for (let session = 0; session < 800; session++) reserveBackend(selector, 1, 1, NONE, 0);
  assert.deepEqual(Array.from(selector.state.active.subarray(0, 3)), [100, 200, 500]);
});

test('reserveBackend() keeps a tier of 1,000 even by two choices', () => {
  const backends = Array.from({ length: 1000 }, (_, index) => testBackend({ index }));
  const selector = selectorFor(testRoutingData(backends));
  for (let session = 0; session < 100_000; session++) reserveBackend(selector, 1, 1, NONE, 0);
  const active = selector.state.active.subarray(0, 1000);
  assert.ok(Math.min(...active) >= 90, `least ${Math.min(...active)}`);
  assert.ok(Math.max(...active) <= 105, `most ${Math.max(...active)}`);
});

test('reserveBackend() finds the only candidate with room among 5,000, across groups', () => {
  for (let free = 0; free < 5000; free += 499) {
    const backends = Array.from({ length: 5000 }, (_, index) =>
      testBackend({
        index,
        region: 1,
        country: index % 3 === 0 ? 0 : 3 + (index % 3),
        hardLimit: 1,
      }),
    );
    const selector = selectorFor(testRoutingData(backends));
    selector.state.active.fill(1, 0, 5000);
    selector.state.active[free] = 0;
    assert.equal(reserveBackend(selector, 0, 1, NONE, 0), free);
    assert.equal(reserveBackend(selector, 0, 1, NONE, 0), ALL_FULL);
    selector.state.gate.fill(GATE_HEALTH, 0, 5000);
    assert.equal(reserveBackend(selector, 0, 1, NONE, 0), NO_BACKEND);
  }
});

test('reserveBackend() picks only the best tier and nobody excluded in tiers above 64', () => {
  fc.assert(
    fc.property(fc.integer(), fc.array(fc.nat(99), { maxLength: 15 }), (seed, excluded) => {
      const backends = Array.from({ length: 200 }, (_, index) =>
        testBackend({ index, country: index < 100 ? 1 : 2, hardLimit: 1 }),
      );
      const selector = selectorFor(testRoutingData(backends), seed);
      const list = Int32Array.from(new Set(excluded));
      const picked = new Set<number>();
      for (let session = 0; session < 100 - list.length; session++) {
        picked.add(reserveBackend(selector, 1, 1, list, list.length));
      }
      const expected = backends.map(({ index }) => index).filter((index) => index < 100);
      const sorted = [...picked].sort((one, two) => one - two);
      assert.deepEqual(
        sorted,
        expected.filter((index) => !list.includes(index)),
      );
      assert.ok(reserveBackend(selector, 1, 1, list, list.length) >= 100, 'then the next tier');
    }),
    { numRuns: 100 },
  );
});

test('reserveBackend() repeats a run from its seed, and another seed gives another run', () => {
  const run = (seed: number) => {
    const selector = selectorFor(largeRoutingData(5000, 1), seed);
    return Array.from({ length: 200 }, (_, turn) => reserveBackend(selector, 1, turn % 9, NONE, 0));
  };
  assert.deepEqual(run(7), run(7));
  assert.notDeepEqual(run(7), run(8));
});

test('reserveBackend() says NO_BACKEND before any snapshot and for apps without backends', () => {
  const selector = createSelector(openBackendState(createBackendState()), 1);
  assert.equal(reserveBackend(selector, 0, 0, NONE, 0), NO_BACKEND);
  assert.deepEqual(explainSelection(selector, 0, 0), []);
  useSnapshot(selector, openSnapshot(encodeSnapshot(testRoutingData([testBackend({ app: 2 })]))));
  assert.equal(reserveBackend(selector, 1, 0, NONE, 0), NO_BACKEND);
  assert.equal(reserveBackend(selector, 3, 0, NONE, 0), NO_BACKEND);
  assert.equal(reserveBackend(selector, 60_000, 0, NONE, 0), NO_BACKEND);
  assert.equal(reserveBackend(selector, 2, 0, NONE, 0), 0);
});

test('useSnapshot() forgets the plans of the snapshot before', () => {
  const backends = [testBackend({ index: 0, country: 4 }), testBackend({ index: 1, country: 5 })];
  const selector = selectorFor(testRoutingData(backends));
  assert.equal(reserveBackend(selector, 1, 4, NONE, 0), 0);
  const moved = [testBackend({ index: 0, country: 1 }), testBackend({ index: 1, country: 4 })];
  useSnapshot(selector, openSnapshot(encodeSnapshot(testRoutingData(moved, { version: 2 }))));
  assert.equal(reserveBackend(selector, 1, 4, NONE, 0), 1);
});

test('reserveBound() keeps clients of a weight 0 backend and no others', () => {
  const selector = selectorFor(testRoutingData([testBackend({ weight: 0 })]));
  assert.equal(reserveBound(selector, 1, 0, 1), true);
  assert.equal(reserveBackend(selector, 1, 1, NONE, 0), NO_BACKEND);
  assert.equal(selector.state.active[0], 1);
});

test('reserveBound() refuses a removed id and a new id under the same index', () => {
  const selector = selectorFor(testRoutingData([testBackend({ index: 5, incarnation: 9 })]));
  assert.equal(reserveBound(selector, 1, 5, 9), true);
  useSnapshot(selector, openSnapshot(encodeSnapshot(testRoutingData([testBackend({ index: 6 })]))));
  assert.equal(reserveBound(selector, 1, 5, 9), false, 'removed');
  const again = testRoutingData([testBackend({ index: 5, incarnation: 10 })]);
  useSnapshot(selector, openSnapshot(encodeSnapshot(again)));
  assert.equal(reserveBound(selector, 1, 5, 9), false, 'another id has the index now');
  assert.equal(reserveBound(selector, 1, 5, 10), true);
  assert.equal(reserveBound(selector, 1, 6, 1), false, 'beyond the snapshot');
  assert.equal(reserveBound(selector, 1, -1, 1), false, 'no binding');
  assert.equal(selector.state.active[5], 2);
});

test('reserveBound() refuses what takes no sessions, and the backends of other apps', () => {
  const backends = [
    testBackend({ index: 0, enabled: false }),
    testBackend({ index: 1, draining: true }),
    testBackend({ index: 2 }),
    testBackend({ index: 3, hardLimit: 2 }),
    testBackend({ index: 4, app: 2 }),
  ];
  const selector = selectorFor(testRoutingData(backends));
  selector.state.gate[2] = GATE_PATH;
  const taken = (app: number, index: number) => reserveBound(selector, app, index, 1);
  assert.deepEqual(
    [0, 1, 2].map((index) => taken(1, index)),
    [false, false, false],
  );
  assert.deepEqual(
    [0, 1, 2].map(() => taken(1, 3)),
    [true, true, false],
    'hard limit 2',
  );
  assert.equal(taken(1, 4), false);
  assert.equal(taken(0, 4), true, '* is any app');
  assert.deepEqual(Array.from(selector.state.active.subarray(0, 5)), [0, 0, 0, 2, 1]);
});

test('releaseBackend() refuses to give back what was never reserved', () => {
  const { state } = selectorFor(testRoutingData([testBackend({})]));
  assert.throws(() => releaseBackend(state, 0), /no reservation/);
});

test('reserveBackend() keeps hard limits and loses no release under four threads', async () => {
  // Country 1 is a small tier (scan), country 2 a large one (two choices), 0 goes by the POP.
  const backends = Array.from({ length: 100 }, (_, index) =>
    testBackend({ index, country: index < 4 ? 1 : 2, hardLimit: 1 + (index % 3) }),
  );
  const places = backends.reduce((sum, { hardLimit }) => sum + hardLimit, 0);
  const snapshot = encodeSnapshot(testRoutingData(backends));
  const stateBuffer = createBackendState();
  const { active } = openBackendState(stateBuffer);
  const barrier = createBarrier(4);
  const jobs = Array.from(
    { length: 4 },
    (_, at): ReserveJob => ({
      snapshot,
      state: stateBuffer,
      barrier,
      seed: at + 1,
      operations: 150_000,
      heldMax: Math.ceil(places * 0.27),
      keep: at >= 2,
    }),
  );
  const reports = await runWorkers<ReserveReport>('./reserve-worker.ts', jobs);
  let held = 0;
  let reserved = 0;
  for (const report of reports) {
    assert.equal(report.violations, 0);
    reserved += report.reserved;
    held += report.held;
  }
  assert.ok(
    reports.some(({ refused }) => refused > 0),
    'the limits were reached',
  );
  assert.ok(reserved > places * 10, 'places changed hands');
  assert.equal(
    active.reduce((sum, count) => sum + count, 0),
    held,
  );
  for (const { index, hardLimit } of backends) assert.ok(active[index] <= hardLimit);
});

test('reserveBackend() allocates nothing once warm', () => {
  const selector = selectorFor(largeRoutingData(2000, 2));
  const run = (operations: number) => {
    for (let turn = 0; turn < operations; turn++) {
      const backend = reserveBackend(selector, turn & 1, turn % 250, NONE, 0);
      releaseBackend(selector.state, backend);
    }
  };
  run(300_000);
  const before = getHeapStatistics().total_allocated_bytes;
  run(300_000);
  const perOperation = (getHeapStatistics().total_allocated_bytes - before) / 300_000;
  // One boxed number would be 12 bytes or more; the measurement itself takes some kilobytes.
  assert.ok(perOperation < 4, `${perOperation} bytes per operation`);
});
