// Every backend of an app in the order in which select.ts would take them, with why the rest is out: for `explain` and for
// tests. It allocates and looks at all backends, so it is not for the data plane.

import { GATE_DRAIN, GATE_HEALTH, GATE_PATH } from './backend-state.ts';
import { type Selector, scoreOf, weightOf } from './select.ts';
import {
  FLAG_DEGRADED,
  FLAG_DRAINING,
  FLAG_ENABLED,
  FLAG_PRESENT,
  type Snapshot,
} from './snapshot.ts';
import { movedBackKm, tierDistanceKm, tierOf } from './tier-plan.ts';

/** One backend as explainSelection sees it: the row of `edgeproxy explain`. */
export interface Candidate {
  readonly index: number;
  /** With the step back of a degraded one, so up to 4. */
  readonly tier: number;
  /** Its path is bad. */
  readonly degraded: boolean;
  /** Infinity at weight 0. */
  readonly score: number;
  /** From tier 3 on, where it goes before the score; Infinity when it cannot be known. */
  readonly distanceKm: number | null;
  /** Why no new client goes here, '' = it may. */
  readonly excluded:
    | ''
    | 'disabled'
    | 'draining'
    | 'weight 0'
    | 'health'
    | 'breaker'
    | 'path'
    | 'hard limit';
  /** Rank among those not excluded, from 0; -1 when excluded. */
  readonly order: number;
}

/** Every backend of the app, as the data plane would prefer them; those it would not take last. */
export function explainSelection(
  selector: Selector,
  appIndex: number,
  countryIndex: number,
): Candidate[] {
  const { snapshot, state, chosenAt } = selector;
  const candidates: Candidate[] = [];
  if (snapshot === null) return candidates;
  const movedKm = movedKmOf(snapshot, appIndex, countryIndex);
  for (let index = 0; index < snapshot.backendEnd; index++) {
    if ((snapshot.flags[index] & FLAG_PRESENT) === 0) continue;
    if (appIndex !== 0 && snapshot.app[index] !== appIndex) continue;
    const region = snapshot.region[index];
    const country = snapshot.country[index];
    const degraded = (snapshot.flags[index] & FLAG_DEGRADED) !== 0;
    const tier = tierOf(snapshot, region, country, countryIndex) + Number(degraded);
    const active = Atomics.load(state.active, index);
    candidates.push({
      index,
      tier,
      degraded,
      score: scoreOf(tier, active, snapshot.softLimit[index], weightOf(selector, snapshot, index)),
      distanceKm:
        tier === 3 && degraded
          ? movedKm
          : tier >= 3
            ? tierDistanceKm(snapshot, region, country, countryIndex)
            : null,
      excluded: exclusionOf(snapshot, index, active, Atomics.load(state.gate, index)),
      order: -1,
    });
  }
  candidates.sort(
    (one, two) =>
      Number(one.excluded !== '') - Number(two.excluded !== '') ||
      one.tier - two.tier ||
      compare(one.distanceKm ?? 0, two.distanceKm ?? 0) ||
      compare(one.score, two.score) ||
      chosenAt[one.index] - chosenAt[two.index] ||
      snapshot.region[one.index] - snapshot.region[two.index] ||
      snapshot.country[one.index] - snapshot.country[two.index] ||
      Number(one.degraded) - Number(two.degraded) ||
      one.index - two.index,
  );
  return candidates.map((candidate, at) =>
    candidate.excluded === '' ? { ...candidate, order: at } : candidate,
  );
}

/** See movedBackKm(). */
function movedKmOf(snapshot: Snapshot, app: number, country: number): number {
  if (app >= snapshot.appEnd) return 0;
  const { appGroupStart } = snapshot;
  return movedBackKm(snapshot, appGroupStart[app], appGroupStart[app + 1], country);
}

/** Not a subtraction: both may be Infinity. */
function compare(one: number, two: number): number {
  if (one === two) return 0;
  return one < two ? -1 : 1;
}

export function exclusionOf(
  snapshot: Snapshot,
  index: number,
  active: number,
  gate: number,
): Candidate['excluded'] {
  const flags = snapshot.flags[index];
  if ((flags & FLAG_ENABLED) === 0) return 'disabled';
  if ((flags & FLAG_DRAINING) !== 0 || (gate & GATE_DRAIN) !== 0) return 'draining';
  if (snapshot.weight[index] === 0) return 'weight 0';
  // First, because it may be why the others are set.
  if ((gate & GATE_PATH) !== 0) return 'path';
  if ((gate & GATE_HEALTH) !== 0) return 'health';
  if (gate !== 0) return 'breaker';
  const hardLimit = snapshot.hardLimit[index];
  return hardLimit !== 0 && active >= hardLimit ? 'hard limit' : '';
}
