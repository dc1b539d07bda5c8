// Slow start: a new or recovered backend takes a growing share of its weight for a set time, from a
// tenth of it (less would make the first session wait for the last backend's load) to all of it.
// `rampEnd` of the backend state says when it ends; all zeros when the setting is off, so that
// selection pays for one look at it. Within a tier only: tiers stay strict.

import { type BackendState, backendTick } from './backend-state.ts';

/** Envoy's default minimum, too. */
const RAMP_FACTOR_MIN = 0.1;

/** Starts the ramp of `backend`, or takes an old one away when `durationMs` is 0. */
export function startRamp(
  state: BackendState,
  backend: number,
  nowMs: number,
  durationMs: number,
): void {
  const end = durationMs === 0 ? 0 : backendTick(nowMs) + backendTick(durationMs + 99);
  // Workers may see it a moment later: they then give the backend its full weight until they do.
  Atomics.store(state.rampEnd, backend, end);
}

/** What share of its weight a backend has, 0.1 to 1, `rampTicks` being the whole ramp. */
export function rampFactor(rampEnd: number, tick: number, rampTicks: number): number {
  const left = rampEnd - tick;
  if (left <= 0 || rampTicks === 0) return 1;
  return Math.max(RAMP_FACTOR_MIN, 1 - left / rampTicks);
}
