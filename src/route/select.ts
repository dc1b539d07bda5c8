// Picks a backend for a client and reserves a place on it (DESIGN §3.4): tiers are strict, within
// a tier the lowest score wins, equal scores take turns. Workers share nothing but the backend
// state: a reservation is one compare-exchange on `active`, so a hard limit is never exceeded.
// No allocation after createSelector; called by the data plane for every accepted connection.

import { assert } from '../base/assert.ts';
import {
  BACKENDS_MAX,
  COUNTRIES_MAX,
  TIER_RACES_MAX,
  TIER_SCAN_MAX,
  TWO_CHOICE_ROUNDS_MAX,
} from '../limits.ts';
import { type BackendState, backendTick, GATE_BREAKER, reserveActive } from './backend-state.ts';
import { type BreakerPolicy, isTrialDue, NO_TRIAL, tryHalfOpen } from './breaker.ts';
import { rampFactor } from './slow-start.ts';
import { FLAG_DEGRADED, FLAG_ENABLED, FLAG_PRESENT, type Snapshot } from './snapshot.ts';
import {
  clearTierPlans,
  createTierPlans,
  LEVEL_CANDIDATES,
  LEVEL_HEADER_WORDS,
  LEVEL_RUNS,
  LEVEL_TIER,
  type TierPlans,
  tierPlan,
} from './tier-plan.ts';

/** No candidate at all: none is enabled, or gates and exclusions leave none. */
export const NO_BACKEND = -1;
/** There are candidates, but every one of them is at its hard limit. */
export const ALL_FULL = -2;

const ALL_GATES = -1;

/** Settings; all off unless given. */
export interface SelectorOptions {
  /** Lets one trial at a time reach an ejected backend whose time is over; null = nobody. */
  readonly breaker: BreakerPolicy | null;
  /** When the breakers leave a client no backend at all, use the ejected ones; needs `breaker`. */
  readonly failOpen: boolean;
  /** Length of slow start, 0 = off. */
  readonly rampMs: number;
}

export interface Selector {
  readonly state: BackendState;
  readonly plans: TierPlans;
  /** Turn at which this selector last chose the backend, by backend index. */
  readonly chosenAt: Float64Array;
  /** One element, the last turn: an array, because a field above 31 bits would be boxed. */
  readonly turn: Float64Array;
  /** One element, the xorshift state; never 0. */
  readonly random: Int32Array;
  snapshot: Snapshot | null;
  readonly options: SelectorOptions;
  readonly rampTicks: number;
  /** The time, for trials and ramps: set it once per batch, see setSelectorTime. */
  tick: number;
  /** Gate bits that count: all of them but while failing open. */
  gateMask: number;
  /** Of the last reservation: the number of the breaker's trial it is, or NO_TRIAL. */
  trial: number;
  /** Of the last reservation: the breakers had left no other backend. */
  failedOpen: boolean;
}

/** `seed` is any integer; selectors of one process should get different ones. */
export function createSelector(
  state: BackendState,
  seed: number,
  options: Partial<SelectorOptions> = {},
): Selector {
  const mixed = Math.imul((seed | 0) ^ 0x5bd1_e995, 0x9e37_79b1);
  return {
    state,
    plans: createTierPlans(),
    chosenAt: new Float64Array(BACKENDS_MAX),
    turn: new Float64Array(1),
    random: Int32Array.of(mixed === 0 ? 1 : mixed),
    snapshot: null,
    options: { breaker: null, failOpen: false, rampMs: 0, ...options },
    rampTicks: backendTick((options.rampMs ?? 0) + 99),
    tick: 0,
    gateMask: ALL_GATES,
    trial: NO_TRIAL,
    failedOpen: false,
  };
}

/** `nowMs` since the same start for all threads, the one that breaker and slow start are told. */
export function setSelectorTime(selector: Selector, nowMs: number): void {
  selector.tick = backendTick(nowMs);
}

export function useSnapshot(selector: Selector, snapshot: Snapshot): void {
  selector.snapshot = snapshot;
  clearTierPlans(selector.plans);
}

/**
 * The best backend with its `active` already incremented (give it back with releaseBackend), or
 * NO_BACKEND or ALL_FULL. `excluded` holds backend indexes that failed for this client before.
 * `selector.trial` and `selector.failedOpen` then tell what the breakers had to do with it.
 */
export function reserveBackend(
  selector: Selector,
  appIndex: number,
  countryIndex: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  assert(countryIndex >= 0 && countryIndex < COUNTRIES_MAX, 'Country index out of range');
  const { snapshot, plans } = selector;
  selector.trial = NO_TRIAL;
  selector.failedOpen = false;
  if (snapshot === null || appIndex >= snapshot.appEnd) return NO_BACKEND;
  const plan = tierPlan(plans, snapshot, appIndex, countryIndex);
  const picked = reserveByPlan(selector, snapshot, plan, excluded, excludedCount);
  if (picked !== NO_BACKEND || !selector.options.failOpen) return picked;
  // A second round instead of more to remember in the first: it is for the worst hour only.
  selector.gateMask = ~GATE_BREAKER;
  const last = reserveByPlan(selector, snapshot, plan, excluded, excludedCount);
  selector.gateMask = ALL_GATES;
  selector.failedOpen = last >= 0;
  return last;
}

function reserveByPlan(
  selector: Selector,
  snapshot: Snapshot,
  plan: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  const { words } = selector.plans;
  let result = NO_BACKEND;
  let level = plan + 1;
  for (let levels = words[plan]; levels > 0; levels--) {
    const picked =
      words[level + LEVEL_CANDIDATES] <= TIER_SCAN_MAX
        ? reserveByScan(selector, snapshot, level, excluded, excludedCount)
        : reserveByTwoChoices(selector, snapshot, level, excluded, excludedCount);
    if (picked >= 0) {
      selector.chosenAt[picked] = ++selector.turn[0];
      return picked;
    }
    if (picked === ALL_FULL) result = ALL_FULL;
    level += LEVEL_HEADER_WORDS + words[level + LEVEL_RUNS] * 2;
  }
  return result;
}

/**
 * Reserves a place on the backend a client is bound to. False when the binding is dead: the index
 * went to another backend, the backend left the app, or it takes no sessions now. Weight 0 stays.
 */
export function reserveBound(
  selector: Selector,
  appIndex: number,
  backendIndex: number,
  incarnation: number,
): boolean {
  const { snapshot, state } = selector;
  selector.trial = NO_TRIAL;
  selector.failedOpen = false;
  if (snapshot === null || backendIndex < 0 || backendIndex >= snapshot.backendEnd) return false;
  const flags = snapshot.flags[backendIndex] & ~FLAG_DEGRADED;
  if (flags !== (FLAG_PRESENT | FLAG_ENABLED)) return false;
  if (snapshot.incarnation[backendIndex] !== incarnation) return false;
  if (appIndex !== 0 && snapshot.app[backendIndex] !== appIndex) return false;
  // Pairs with the store of whoever closes the gate: after it no session is added here.
  if (Atomics.load(state.gate, backendIndex) !== 0) return false;
  return reserveActive(state, backendIndex, snapshot.hardLimit[backendIndex]);
}

/** Gives a reservation back, when its session has ended or never came to be. */
export function releaseBackend(state: BackendState, backendIndex: number): void {
  // Ordered after all work of the session: an index may go to a new backend once this is 0.
  const before = Atomics.sub(state.active, backendIndex, 1);
  assert(before > 0, 'Released a backend that had no reservation');
}

/** The published number: tier * 100 + ((active + 1) / soft_limit) / weight. Lowest wins. */
export function scoreOf(tier: number, active: number, softLimit: number, weight: number): number {
  return tier * 100 + (active + 1) / (softLimit === 0 ? 1 : softLimit) / weight;
}

/** Reserves a picked backend: its index, ALL_FULL, or NO_BACKEND when its gate is in the way. */
function take(selector: Selector, snapshot: Snapshot, backend: number): number {
  const { state } = selector;
  if (!reserveActive(state, backend, snapshot.hardLimit[backend])) return ALL_FULL;
  return state.gate[backend] === 0 ? backend : takeGated(selector, backend);
}

/** After the reservation, so that a trial is claimed only by who can use it. */
function takeGated(selector: Selector, backend: number): number {
  const { state, options } = selector;
  const gate = state.gate[backend] & selector.gateMask;
  if (gate === 0) return backend;
  if (gate === GATE_BREAKER && options.breaker !== null) {
    selector.trial = tryHalfOpen(state, options.breaker, backend, selector.tick);
    if (selector.trial !== NO_TRIAL) return backend;
  }
  releaseBackend(state, backend);
  return NO_BACKEND;
}

/** The weight now: less than the published one during slow start. */
export function weightOf(selector: Selector, snapshot: Snapshot, backend: number): number {
  const weight = snapshot.weight[backend];
  // Off, it costs this look at a number that is at hand, not a load from shared memory.
  if (selector.rampTicks === 0) return weight;
  const rampEnd = selector.state.rampEnd[backend];
  return rampEnd === 0 ? weight : weight * rampFactor(rampEnd, selector.tick, selector.rampTicks);
}

/** Whether a gate keeps sessions out: not an ejection that is over, which wants a trial. */
function isShut(selector: Selector, backend: number): boolean {
  const gate = selector.state.gate[backend] & selector.gateMask;
  if (gate === 0) return false;
  if (gate !== GATE_BREAKER) return true;
  return !isTrialDue(selector.state, backend, selector.tick);
}

/** The number of active sessions of a backend that may be picked, else NO_BACKEND or ALL_FULL. */
function availableActive(
  selector: Selector,
  snapshot: Snapshot,
  backend: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  // Plain reads: an Atomics.load is a call of 5 ns here (a plain one 0.5 ns), twice for each
  // candidate. A value from a moment ago does no harm, because only take() decides.
  const { state } = selector;
  // Without the look at the setting V8 makes this a tenth slower, gates or none.
  if (
    state.gate[backend] !== 0 &&
    (selector.options.breaker === null || isShut(selector, backend))
  ) {
    return NO_BACKEND;
  }
  for (let at = 0; at < excludedCount; at++) {
    if (excluded[at] === backend) return NO_BACKEND;
  }
  const active = state.active[backend];
  const hardLimit = snapshot.hardLimit[backend];
  return hardLimit !== 0 && active >= hardLimit ? ALL_FULL : active;
}

/** Small tiers: look at every candidate and take the best. */
function reserveByScan(
  selector: Selector,
  snapshot: Snapshot,
  level: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  const { chosenAt } = selector;
  const { words } = selector.plans;
  const tier = words[level + LEVEL_TIER];
  const runsEnd = level + LEVEL_HEADER_WORDS + words[level + LEVEL_RUNS] * 2;
  for (let race = 0; race < TIER_RACES_MAX; race++) {
    let best = NO_BACKEND;
    let bestScore = 0;
    for (let run = level + LEVEL_HEADER_WORDS; run < runsEnd; run += 2) {
      const end = words[run] + words[run + 1];
      for (let member = words[run]; member < end; member++) {
        const backend = snapshot.members[member];
        const active = availableActive(selector, snapshot, backend, excluded, excludedCount);
        if (active < 0) {
          if (active === ALL_FULL && best < 0) best = ALL_FULL;
          continue;
        }
        const weight = weightOf(selector, snapshot, backend);
        const score = scoreOf(tier, active, snapshot.softLimit[backend], weight);
        if (best >= 0) {
          if (score > bestScore) continue;
          if (score === bestScore && chosenAt[backend] >= chosenAt[best]) continue;
        }
        best = backend;
        bestScore = score;
      }
    }
    if (best < 0 || take(selector, snapshot, best) >= 0) return best;
    // Other workers took its last place, or its trial, since it was scored.
  }
  return reserveByWalk(selector, snapshot, level, excluded, excludedCount);
}

/** Large tiers: the better of two random candidates, which keeps load even at constant cost. */
function reserveByTwoChoices(
  selector: Selector,
  snapshot: Snapshot,
  level: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  const tier = selector.plans.words[level + LEVEL_TIER];
  const candidates = selector.plans.words[level + LEVEL_CANDIDATES];
  for (let round = 0; round < TWO_CHOICE_ROUNDS_MAX; round++) {
    const one = randomBelow(selector, candidates);
    let two = randomBelow(selector, candidates - 1);
    if (two >= one) two++;
    const first = memberAt(selector, snapshot, level, one);
    const second = memberAt(selector, snapshot, level, two);
    const firstActive = availableActive(selector, snapshot, first, excluded, excludedCount);
    const secondActive = availableActive(selector, snapshot, second, excluded, excludedCount);
    if (firstActive < 0 && secondActive < 0) continue;
    const takeSecond =
      secondActive >= 0 &&
      (firstActive < 0 ||
        isBetter(selector, snapshot, tier, second, secondActive, first, firstActive));
    const picked = takeSecond ? second : first;
    if (take(selector, snapshot, picked) >= 0) return picked;
  }
  return reserveByWalk(selector, snapshot, level, excluded, excludedCount);
}

/**
 * The way out when luck or races left nothing: visits every candidate once from a random place and
 * takes the better of each two that have room, so a candidate with room is always found.
 */
function reserveByWalk(
  selector: Selector,
  snapshot: Snapshot,
  level: number,
  excluded: Int32Array,
  excludedCount: number,
): number {
  const tier = selector.plans.words[level + LEVEL_TIER];
  const candidates = selector.plans.words[level + LEVEL_CANDIDATES];
  let result = NO_BACKEND;
  let held = NO_BACKEND;
  let heldActive = 0;
  let position = randomBelow(selector, candidates);
  for (let visited = 0; visited < candidates; visited++) {
    const backend = memberAt(selector, snapshot, level, position);
    position = position + 1 === candidates ? 0 : position + 1;
    const active = availableActive(selector, snapshot, backend, excluded, excludedCount);
    if (active === ALL_FULL) result = ALL_FULL;
    if (active < 0) continue;
    if (held < 0) {
      held = backend;
      heldActive = active;
      continue;
    }
    const better = isBetter(selector, snapshot, tier, backend, active, held, heldActive);
    const picked = better ? backend : held;
    const taken = take(selector, snapshot, picked);
    if (taken >= 0) return picked;
    if (taken === ALL_FULL) result = ALL_FULL;
    // The other of the two stays in hand for the next comparison.
    if (!better) {
      held = backend;
      heldActive = active;
    }
  }
  if (held < 0) return result;
  const taken = take(selector, snapshot, held);
  return taken === NO_BACKEND ? result : taken;
}

/** Whether `backend` goes before `other`, both of one level. */
function isBetter(
  selector: Selector,
  snapshot: Snapshot,
  tier: number,
  backend: number,
  active: number,
  other: number,
  otherActive: number,
): boolean {
  const { softLimit } = snapshot;
  const weight = weightOf(selector, snapshot, backend);
  const score = scoreOf(tier, active, softLimit[backend], weight);
  const otherWeight = weightOf(selector, snapshot, other);
  const otherScore = scoreOf(tier, otherActive, softLimit[other], otherWeight);
  if (score !== otherScore) return score < otherScore;
  return selector.chosenAt[backend] < selector.chosenAt[other];
}

function memberAt(selector: Selector, snapshot: Snapshot, level: number, position: number): number {
  const { words } = selector.plans;
  let run = level + LEVEL_HEADER_WORDS;
  let rest = position;
  while (rest >= words[run + 1]) {
    rest -= words[run + 1];
    run += 2;
  }
  return snapshot.members[words[run] + rest];
}

/** Xorshift32, scaled by the high bits. */
function randomBelow(selector: Selector, end: number): number {
  let x = selector.random[0];
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  selector.random[0] = x;
  return Math.floor(((x >>> 0) / 0x1_0000_0000) * end);
}
