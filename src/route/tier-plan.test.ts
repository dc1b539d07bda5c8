// Tiers, distances and the plan cache. That plans lead to the right backend is select.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TIER_PLANS_MAX } from '../limits.ts';
import { largeRoutingData, testBackend, testRoutingData } from '../testing/routing-data.ts';
import { distanceKm } from './regions.ts';
import { encodeSnapshot, openSnapshot, type RoutingData } from './snapshot.ts';
import {
  clearTierPlans,
  createTierPlans,
  LEVEL_CANDIDATES,
  LEVEL_HEADER_WORDS,
  LEVEL_RUNS,
  LEVEL_TIER,
  type TierPlans,
  tierDistanceKm,
  tierOf,
  tierPlan,
} from './tier-plan.ts';

function open(fields: Partial<RoutingData> = {}) {
  return openSnapshot(encodeSnapshot(testRoutingData([], fields)));
}

test('tierOf() puts country before region before POP region', () => {
  const snapshot = open();
  assert.equal(tierOf(snapshot, 2, 4, 4), 0);
  assert.equal(tierOf(snapshot, 3, 4, 4), 0, 'the country counts, whatever its backend region');
  assert.equal(tierOf(snapshot, 2, 5, 4), 1);
  assert.equal(tierOf(snapshot, 2, 0, 4), 1);
  assert.equal(tierOf(snapshot, 0, 1, 4), 2);
  assert.equal(tierOf(snapshot, 1, 3, 4), 3);
});

test('tierOf() starts clients without a country at tier 2', () => {
  const snapshot = open();
  assert.equal(tierOf(snapshot, 0, 0, 0), 2, 'no country does not equal no country');
  assert.equal(tierOf(snapshot, 0, 1, 0), 2);
  assert.equal(tierOf(snapshot, 2, 4, 0), 3);
});

test('tierOf() finds no tier 1 for a country without a region', () => {
  const snapshot = open();
  assert.equal(tierOf(snapshot, 3, 0, 6), 3);
  assert.equal(tierOf(snapshot, 0, 0, 6), 2);
});

test('tierDistanceKm() measures from the client country to the region centre', () => {
  const snapshot = open();
  assert.equal(tierDistanceKm(snapshot, 1, 3, 4), distanceKm(51, 9, 40, -100));
});

test('tierDistanceKm() measures from the POP for clients without a country', () => {
  assert.equal(tierDistanceKm(open(), 1, 3, 0), distanceKm(-10, -55, 40, -100));
  const byRegion = open({ popCountry: 0, popRegion: 2 });
  assert.equal(tierDistanceKm(byRegion, 1, 3, 0), distanceKm(50, 10, 40, -100));
});

test('tierDistanceKm() uses the backend country where the region has no centre', () => {
  const snapshot = open();
  assert.equal(tierDistanceKm(snapshot, 3, 5, 4), distanceKm(51, 9, 40, -4));
  assert.equal(tierDistanceKm(snapshot, 3, 0, 4), Number.POSITIVE_INFINITY);
});

test('tierDistanceKm() is Infinity from a POP nobody can place', () => {
  const snapshot = open({ popCountry: 0, popRegion: 3 });
  assert.equal(tierDistanceKm(snapshot, 1, 3, 0), Number.POSITIVE_INFINITY);
});

/** A plan's levels as [tier, candidates], with its runs checked on the way. */
function levelsOf(plans: TierPlans, plan: number): [number, number][] {
  const levels: [number, number][] = [];
  let level = plan + 1;
  for (let count = plans.words[plan]; count > 0; count--) {
    const runs = plans.words[level + LEVEL_RUNS];
    let members = 0;
    for (let run = 0; run < runs; run++) {
      members += plans.words[level + LEVEL_HEADER_WORDS + run * 2 + 1];
    }
    assert.equal(members, plans.words[level + LEVEL_CANDIDATES]);
    levels.push([plans.words[level + LEVEL_TIER], members]);
    level += LEVEL_HEADER_WORDS + runs * 2;
  }
  return levels;
}

test('tierPlan() stays right when more plans are asked for than the cache holds', () => {
  const apps = 50;
  const snapshot = openSnapshot(encodeSnapshot(largeRoutingData(1500, apps)));
  const cached = createTierPlans();
  assert.ok(apps * 250 > TIER_PLANS_MAX);
  for (let round = 0; round < 2; round++) {
    for (let app = 0; app <= apps; app++) {
      for (let country = 0; country <= 250; country++) tierPlan(cached, snapshot, app, country);
    }
  }
  const fresh = createTierPlans();
  for (let app = 0; app <= apps; app++) {
    clearTierPlans(fresh);
    const expected = levelsOf(fresh, tierPlan(fresh, snapshot, app, 7));
    assert.deepEqual(levelsOf(cached, tierPlan(cached, snapshot, app, 7)), expected);
    const total = expected.reduce((sum, [, candidates]) => sum + candidates, 0);
    assert.equal(total, app === 0 ? 1500 : 1500 / apps, 'every member is in one level');
  }
});

test('tierPlan() has room for an app in every region and country', () => {
  const backends = Array.from({ length: 64 * 256 }, (_, index) =>
    testBackend({ index, region: index >> 8, country: index & 255 }),
  );
  const snapshot = openSnapshot(encodeSnapshot(testRoutingData(backends)));
  const plans = createTierPlans();
  for (let country = 0; country < 7; country++) {
    const levels = levelsOf(plans, tierPlan(plans, snapshot, 1, country));
    const total = levels.reduce((sum, [, candidates]) => sum + candidates, 0);
    assert.equal(total, backends.length);
    const tiers = levels.map(([tier]) => tier);
    assert.deepEqual(tiers, tiers.toSorted());
  }
});

test('tierPlan() computes a plan once', () => {
  const snapshot = openSnapshot(encodeSnapshot(largeRoutingData(100, 1)));
  const plans = createTierPlans();
  const plan = tierPlan(plans, snapshot, 1, 7);
  const used = plans.wordsUsed;
  assert.equal(tierPlan(plans, snapshot, 1, 7), plan);
  assert.equal(plans.wordsUsed, used);
  assert.notEqual(tierPlan(plans, snapshot, 1, 8), plan);
});
