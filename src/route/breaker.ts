// The passive breaker of a backend, in shared memory so that workers agree: consecutive failures
// open it, which sets GATE_BREAKER. When its ejection is over one session at a time may try the
// backend; enough successful trials close it, a failed one ejects it again, for longer.
//
//   breaker    bit 0: open | bits 1..10: failures while closed, trials won while open
//              | bits 11..: ejections (the n of n * ejection time); fewer after quiet time
//   breakerAt  open: tick from which a trial may start; a trial puts it off to its own deadline, so
//              a trial that never reports costs time, not the backend. Closed: when it closed.
//
// A trial's number is its deadline: who reports must still own it to move breakerAt. The words are
// written in an order that lets a thread die between any two: breakerAt before an opening, so none
// sees "open" with a trial due at once; the gate last, and a gate that disagrees is put right.

import { assert } from '../base/assert.ts';
import { type BackendState, backendTick, GATE_BREAKER } from './backend-state.ts';

export interface BreakerPolicy {
  /** Consecutive failures that open it; 0 = the breaker is off. */
  readonly failureThreshold: number;
  /** Successful trials that close it. */
  readonly successThreshold: number;
  /** First ejection, and what each further one adds. */
  readonly ejectionMs: number;
  readonly ejectionMsMax: number;
  /** After this a trial without result no longer keeps others from trying. */
  readonly trialMs: number;
}

/** What a report changed; for the log and the counters. */
export const BREAKER_SAME = 0;
export const BREAKER_OPENED = 1;
export const BREAKER_CLOSED = 2;

/** Not part of a trial: a usual session, or one let in although the breaker is open. */
export const NO_TRIAL = 0;

const BREAKER_THRESHOLD_MAX = 1000;
const OPEN = 1;
const COUNT_ONE = 2;
const COUNT_MASK = 0x3ff;
const EJECTIONS_SHIFT = 11;
/** More cannot lengthen an ejection within any sensible maximum. */
const EJECTIONS_MAX = 0xffff;

/**
 * A session ended before the backend answered: its connect failed, or it was reset before its first
 * byte. `trial` is what selection said when the session was given the backend.
 */
export function noteFailure(
  state: BackendState,
  policy: BreakerPolicy,
  backend: number,
  trial: number,
  nowMs: number,
): number {
  if (policy.failureThreshold === 0) return BREAKER_SAME;
  const { breaker } = state;
  const tick = backendTick(nowMs);
  for (;;) {
    const seen = Atomics.load(breaker, backend);
    if ((seen & OPEN) !== 0) return failWhileOpen(state, policy, backend, trial, tick);
    const failures = ((seen >> 1) & COUNT_MASK) + 1;
    if (failures < policy.failureThreshold) {
      // A lost exchange means another report came first: count on from there.
      if (Atomics.compareExchange(breaker, backend, seen, seen + COUNT_ONE) === seen) {
        return BREAKER_SAME;
      }
      continue;
    }
    const ejections = ejectionsAfterQuiet(state, policy, backend, seen >> EJECTIONS_SHIFT, tick);
    // Before the breaker opens: whoever sees it open must find its ejection under way. Others who
    // are about to open it raise this to the same tick, so a lost exchange leaves no harm.
    raise(state.breakerAt, backend, tick + ejectionTicks(policy, ejections));
    const opened = (ejections << EJECTIONS_SHIFT) | OPEN;
    if (Atomics.compareExchange(breaker, backend, seen, opened) !== seen) continue;
    Atomics.or(state.gate, backend, GATE_BREAKER);
    return BREAKER_OPENED;
  }
}

/** Only a trial's failure counts while open; sessions from before the ejection say nothing new. */
function failWhileOpen(
  state: BackendState,
  policy: BreakerPolicy,
  backend: number,
  trial: number,
  tick: number,
): number {
  const { breaker, breakerAt, gate } = state;
  // Whoever opened it may have died before this.
  if ((Atomics.load(gate, backend) & GATE_BREAKER) === 0) Atomics.or(gate, backend, GATE_BREAKER);
  if (trial === NO_TRIAL) return BREAKER_SAME;
  let seen = Atomics.load(breaker, backend);
  const ejections = Math.min((seen >> EJECTIONS_SHIFT) + 1, EJECTIONS_MAX);
  const until = tick + ejectionTicks(policy, ejections);
  // One report per trial wins this: the ejection starts once, with no moment for a new trial.
  if (Atomics.compareExchange(breakerAt, backend, trial, until) !== trial) return BREAKER_SAME;
  for (;;) {
    if ((seen & OPEN) === 0) return BREAKER_SAME;
    const again = (ejections << EJECTIONS_SHIFT) | OPEN;
    const before = Atomics.compareExchange(breaker, backend, seen, again);
    if (before === seen) return BREAKER_OPENED;
    seen = before;
  }
}

/** The backend answered: its first byte came, or its session ended in order without one. */
export function noteSuccess(
  state: BackendState,
  policy: BreakerPolicy,
  backend: number,
  trial: number,
  nowMs: number,
): number {
  const { breaker, breakerAt, gate } = state;
  // The usual case, for every session, is this one plain read.
  if ((breaker[backend] & ((COUNT_MASK << 1) | OPEN)) === 0) return BREAKER_SAME;
  // Lets the next trial start at once, unless this one's time was up and it is not the latest.
  if (trial !== NO_TRIAL) {
    Atomics.compareExchange(breakerAt, backend, trial, backendTick(nowMs));
  }
  for (;;) {
    const seen = Atomics.load(breaker, backend);
    const open = (seen & OPEN) !== 0;
    if (open && trial === NO_TRIAL) return BREAKER_SAME;
    const closes = open && ((seen >> 1) & COUNT_MASK) + 1 >= policy.successThreshold;
    const next = open && !closes ? seen + COUNT_ONE : (seen >> EJECTIONS_SHIFT) << EJECTIONS_SHIFT;
    if (Atomics.compareExchange(breaker, backend, seen, next) !== seen) continue;
    if (!closes) return BREAKER_SAME;
    // After the exchange, so that only the one who closed it opens the gate.
    Atomics.and(gate, backend, ~GATE_BREAKER);
    return BREAKER_CLOSED;
  }
}

/** Whether a trial could start, by plain reads: only tryHalfOpen() decides. */
export function isTrialDue(state: BackendState, backend: number, tick: number): boolean {
  return state.breakerAt[backend] <= tick;
}

/** Claims the one trial of a backend whose breaker is open: its number, or NO_TRIAL. */
export function tryHalfOpen(
  state: BackendState,
  policy: BreakerPolicy,
  backend: number,
  tick: number,
): number {
  const { breaker, breakerAt, gate } = state;
  if ((Atomics.load(breaker, backend) & OPEN) === 0) {
    // Whoever closed it may have died before this.
    Atomics.and(gate, backend, ~GATE_BREAKER);
    return NO_TRIAL;
  }
  const due = Atomics.load(breakerAt, backend);
  if (due > tick) return NO_TRIAL;
  const deadline = tick + 1 + backendTick(policy.trialMs);
  // Of several workers one wins; the others find the trial put off.
  return Atomics.compareExchange(breakerAt, backend, due, deadline) === due ? deadline : NO_TRIAL;
}

/** Failures were not the backend's: one that is closed counts anew. */
export function forgiveFailures(state: BackendState, backend: number): void {
  const { breaker } = state;
  for (;;) {
    const seen = Atomics.load(breaker, backend);
    const next = (seen >> EJECTIONS_SHIFT) << EJECTIONS_SHIFT;
    if ((seen & OPEN) !== 0 || seen === next) return;
    // A lost exchange means a report came between: forgive that, too.
    if (Atomics.compareExchange(breaker, backend, seen, next) === seen) return;
  }
}

/** For an index that goes to another backend, and for an operator who knows better. */
export function resetBreaker(state: BackendState, backend: number): void {
  Atomics.store(state.breaker, backend, 0);
  Atomics.store(state.breakerAt, backend, 0);
  Atomics.and(state.gate, backend, ~GATE_BREAKER);
}

export function isBreakerOpen(state: BackendState, backend: number): boolean {
  return (Atomics.load(state.breaker, backend) & OPEN) !== 0;
}

/** How often the backend was ejected, less what quiet time forgave. */
export function breakerEjections(state: BackendState, backend: number): number {
  return Atomics.load(state.breaker, backend) >> EJECTIONS_SHIFT;
}

/** Throws a RangeError for a policy that the words cannot hold. */
export function checkBreakerPolicy(policy: BreakerPolicy): void {
  const { failureThreshold, successThreshold, ejectionMs, ejectionMsMax, trialMs } = policy;
  checkRange('failure threshold', failureThreshold, 0, BREAKER_THRESHOLD_MAX);
  checkRange('success threshold', successThreshold, 1, BREAKER_THRESHOLD_MAX);
  const dayMs = 86_400_000;
  checkRange('ejection time', ejectionMs, 1, dayMs);
  checkRange('longest ejection', ejectionMsMax, ejectionMs, dayMs);
  checkRange('trial time', trialMs, 1, dayMs);
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (value >= min && value <= max) return;
  throw new RangeError(`Cannot use breaker ${name} ${value}: must be ${min} to ${max}`);
}

/** Rounded up, and one more because a tick is a floor: an ejection is never shorter than set. */
function ejectionTicks(policy: BreakerPolicy, ejections: number): number {
  assert(ejections >= 1, 'An ejection that is none');
  const ejectionMs = Math.min(policy.ejectionMs * ejections, policy.ejectionMsMax);
  return backendTick(ejectionMs + 99) + 1;
}

/** This ejection's number: one more than before, less one for each ejection time of quiet. */
function ejectionsAfterQuiet(
  state: BackendState,
  policy: BreakerPolicy,
  backend: number,
  ejections: number,
  tick: number,
): number {
  const quiet = Math.max(0, tick - Atomics.load(state.breakerAt, backend));
  const forgiven = Math.floor(quiet / (backendTick(policy.ejectionMs + 99) + 1));
  return Math.min(Math.max(0, ejections - forgiven) + 1, EJECTIONS_MAX);
}

/** Atomic maximum. */
function raise(array: Int32Array, at: number, value: number): void {
  let seen = Atomics.load(array, at);
  while (seen < value) {
    const before = Atomics.compareExchange(array, at, seen, value);
    if (before === seen) return;
    seen = before;
  }
}
