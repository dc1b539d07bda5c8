// The order in which an app's backends are tried for clients of one country, computed once per
// (app, country) and snapshot, on first use, into preallocated words. select.ts reads the plans.
//
// A plan is a list of levels, best first. A level is a set of equally near backends: tiers 0, 1
// and 2 are one level each, tier 3 is one level per distance. Degraded backends are one tier further
// back, so those of tier 3 are in tier 4, by distance too. Members of a level are given as runs in
// snapshot.members, because the groups of one level are mostly neighbours there:
//
//   levels, then per level: tier, candidates, runs, then per run: first member, members

import { assert } from '../base/assert.ts';
import { COUNTRIES_MAX, TIER_PLAN_WORDS_MAX, TIER_PLANS_MAX } from '../limits.ts';
import { distanceKm } from './regions.ts';
import { GROUPS_PER_APP_MAX, type Snapshot } from './snapshot.ts';

/** Offsets into a level's words. */
export const LEVEL_TIER = 0;
export const LEVEL_CANDIDATES = 1;
export const LEVEL_RUNS = 2;
export const LEVEL_HEADER_WORDS = 3;

/** More kilometres than there are on Earth: how far an unknown distance counts. */
const DISTANCE_KM_MAX = 50_000;
/** Nearness from which on it is tier 4. */
const NEARNESS_TIER_4 = 4 + DISTANCE_KM_MAX;
/** Half full at most, so that a probe ends soon. */
const HASH_SLOTS = TIER_PLANS_MAX * 2;
const HASH_SHIFT = 32 - Math.log2(HASH_SLOTS);
/** A group takes most words as a level of its own, with one run. */
const GROUP_WORDS_MAX = LEVEL_HEADER_WORDS + 2;

export interface TierPlans {
  readonly words: Int32Array;
  /** Open addressing: (app, country) + 1, 0 = empty slot. */
  readonly hashKey: Int32Array;
  /** Offset in `words` of the plan in the same slot of hashKey. */
  readonly hashPlan: Int32Array;
  /** Scratch while a plan is built: the nearness of each group of the app. */
  readonly nearness: Float64Array;
  plans: number;
  wordsUsed: number;
}

export function createTierPlans(): TierPlans {
  return {
    words: new Int32Array(TIER_PLAN_WORDS_MAX),
    hashKey: new Int32Array(HASH_SLOTS),
    hashPlan: new Int32Array(HASH_SLOTS),
    nearness: new Float64Array(GROUPS_PER_APP_MAX),
    plans: 0,
    wordsUsed: 0,
  };
}

export function clearTierPlans(plans: TierPlans): void {
  plans.hashKey.fill(0);
  plans.plans = 0;
  plans.wordsUsed = 0;
}

/** DESIGN §3.4. Country 0 is no country: it equals none. */
export function tierOf(
  snapshot: Snapshot,
  region: number,
  country: number,
  clientCountry: number,
): number {
  if (clientCountry !== 0) {
    if (country === clientCountry) return 0;
    if (region === snapshot.countryRegion[clientCountry]) return 1;
  }
  return region === snapshot.popRegion ? 2 : 3;
}

/**
 * Kilometres that order tier 3: from the client's country, or from the POP when the client has
 * none, to the centre of the backend's region. A region nobody mapped a country to has no centre:
 * there the backend's own country counts, and without one it comes last (Infinity).
 */
export function tierDistanceKm(
  snapshot: Snapshot,
  region: number,
  country: number,
  clientCountry: number,
): number {
  const { countryCoordinates, regionCoordinates } = snapshot;
  let from = countryCoordinates;
  let fromAt = clientCountry * 2;
  if (clientCountry === 0 || Number.isNaN(from[fromAt])) fromAt = snapshot.popCountry * 2;
  if (fromAt === 0 || Number.isNaN(from[fromAt])) {
    from = regionCoordinates;
    fromAt = snapshot.popRegion * 2;
  }
  let to = regionCoordinates;
  let toAt = region * 2;
  if (Number.isNaN(to[toAt]) && country !== 0) {
    to = countryCoordinates;
    toAt = country * 2;
  }
  const distance = distanceKm(from[fromAt], from[fromAt + 1], to[toAt], to[toAt + 1]);
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
}

/** Offset in `plans.words` of the plan. `app` must be below snapshot.appEnd. */
export function tierPlan(
  plans: TierPlans,
  snapshot: Snapshot,
  app: number,
  country: number,
): number {
  const key = app * COUNTRIES_MAX + country + 1;
  let slot = hashSlot(key);
  for (let found = plans.hashKey[slot]; found !== 0; found = plans.hashKey[slot]) {
    if (found === key) return plans.hashPlan[slot];
    slot = (slot + 1) & (HASH_SLOTS - 1);
  }
  return buildTierPlan(plans, snapshot, app, country);
}

function hashSlot(key: number): number {
  return Math.imul(key, 0x9e37_79b1) >>> HASH_SHIFT;
}

function buildTierPlan(plans: TierPlans, snapshot: Snapshot, app: number, country: number): number {
  const first = snapshot.appGroupStart[app];
  const end = snapshot.appGroupStart[app + 1];
  const wordsMax = 1 + (end - first) * GROUP_WORDS_MAX;
  assert(wordsMax <= TIER_PLAN_WORDS_MAX, 'Tier plan larger than the room for all');
  if (plans.plans === TIER_PLANS_MAX || plans.wordsUsed + wordsMax > TIER_PLAN_WORDS_MAX) {
    clearTierPlans(plans);
  }
  const key = app * COUNTRIES_MAX + country + 1;
  let slot = hashSlot(key);
  while (plans.hashKey[slot] !== 0) slot = (slot + 1) & (HASH_SLOTS - 1);
  measureGroups(plans.nearness, snapshot, first, end, country);
  const plan = plans.wordsUsed;
  let at = plan + 1;
  let levels = 0;
  let last = -1;
  for (;;) {
    const nearness = nextNearness(plans.nearness, end - first, last);
    if (nearness === last) break;
    at = appendLevel(plans, snapshot, first, end, nearness, at);
    levels++;
    last = nearness;
  }
  plans.words[plan] = levels;
  plans.wordsUsed = at;
  plans.hashKey[slot] = key;
  plans.hashPlan[slot] = plan;
  plans.plans++;
  return plan;
}

/**
 * How far a degraded backend of tier 2 counts in tier 3: as the nearest of those that belong there, with which it then
 * shares. By its own distance it would still come before them all, and be no step back at all. 0: there is none.
 */
export function movedBackKm(
  snapshot: Snapshot,
  firstGroup: number,
  endGroup: number,
  clientCountry: number,
): number {
  let least = -1;
  for (let group = firstGroup; group < endGroup; group++) {
    if (snapshot.groupDegraded[group] !== 0) continue;
    const region = snapshot.groupRegion[group];
    const country = snapshot.groupCountry[group];
    if (tierOf(snapshot, region, country, clientCountry) !== 3) continue;
    const km = tierDistanceKm(snapshot, region, country, clientCountry);
    if (least < 0 || km < least) least = km;
  }
  return Math.max(0, least);
}

/** Nearness is the tier for tiers 0, 1 and 2, then 3 + kilometres for tier 3, then those of tier 4. */
function measureGroups(
  nearness: Float64Array,
  snapshot: Snapshot,
  first: number,
  end: number,
  clientCountry: number,
): void {
  for (let group = first; group < end; group++) {
    const region = snapshot.groupRegion[group];
    const country = snapshot.groupCountry[group];
    const degraded = snapshot.groupDegraded[group];
    const tier = tierOf(snapshot, region, country, clientCountry) + degraded;
    if (tier < 3) {
      nearness[group - first] = tier;
      continue;
    }
    const isMoved = tier === 3 && degraded === 1;
    const km = isMoved
      ? movedBackKm(snapshot, first, end, clientCountry)
      : tierDistanceKm(snapshot, region, country, clientCountry);
    nearness[group - first] = (tier === 3 ? 3 : NEARNESS_TIER_4) + Math.min(km, DISTANCE_KM_MAX);
  }
}

/** The smallest nearness above `last`, or `last` when there is none. */
function nextNearness(nearness: Float64Array, groups: number, last: number): number {
  let next = last;
  for (let group = 0; group < groups; group++) {
    const value = nearness[group];
    if (value > last && (next === last || value < next)) next = value;
  }
  return next;
}

/** Writes one level at `at` and returns the offset after it; neighbouring groups become one run. */
function appendLevel(
  plans: TierPlans,
  snapshot: Snapshot,
  first: number,
  end: number,
  nearness: number,
  at: number,
): number {
  const { words } = plans;
  let run = at + LEVEL_HEADER_WORDS;
  let runs = 0;
  let candidates = 0;
  for (let group = first; group < end; group++) {
    if (plans.nearness[group - first] !== nearness) continue;
    const start = snapshot.groupStart[group];
    const members = snapshot.groupStart[group + 1] - start;
    candidates += members;
    if (runs > 0 && words[run - 2] + words[run - 1] === start) {
      words[run - 1] += members;
      continue;
    }
    words[run] = start;
    words[run + 1] = members;
    run += 2;
    runs++;
  }
  words[at + LEVEL_TIER] = nearness >= NEARNESS_TIER_4 ? 4 : Math.min(3, Math.floor(nearness));
  words[at + LEVEL_CANDIDATES] = candidates;
  words[at + LEVEL_RUNS] = runs;
  return run;
}
