// How many sessions of a backend the workers may end now because its drain says so: granted by the
// control plane, taken by the workers, all from one number, so that its pace holds over all of them.
// One word per backend: its incarnation in the high half, sessions left to end in the low one. A
// grant for a backend that has lost its index since is thereby worth nothing.

import type { BackendState } from './backend-state.ts';

const COUNT_MASK = 0xffff;
const INCARNATION_SHIFT = 16;

/** Sessions that may still be ended of what was granted. */
export function endsLeft(state: BackendState, backend: number, incarnation: number): number {
  const word = Atomics.load(state.ends, backend);
  return word >>> INCARNATION_SHIFT === incarnation ? word & COUNT_MASK : 0;
}

/** Grants `count` more; together never more than the word holds. */
export function grantEnds(
  state: BackendState,
  backend: number,
  incarnation: number,
  count: number,
): void {
  const { ends } = state;
  for (;;) {
    const seen = Atomics.load(ends, backend);
    const left = seen >>> INCARNATION_SHIFT === incarnation ? seen & COUNT_MASK : 0;
    const next = (incarnation << INCARNATION_SHIFT) | Math.min(left + count, COUNT_MASK);
    // A lost exchange means that a worker took one.
    if (Atomics.compareExchange(ends, backend, seen, next) === seen) return;
  }
}

/** Takes back what is left. */
export function revokeEnds(state: BackendState, backend: number): void {
  Atomics.store(state.ends, backend, 0);
}

/** Takes one: the caller ends a session of this backend. False when nothing is left. */
export function takeEnd(state: BackendState, backend: number, incarnation: number): boolean {
  const { ends } = state;
  // A plain read may be stale: then the exchange fails and says the true word.
  let seen = ends[backend];
  while ((seen & COUNT_MASK) !== 0 && seen >>> INCARNATION_SHIFT === incarnation) {
    const before = Atomics.compareExchange(ends, backend, seen, seen - 1);
    if (before === seen) return true;
    seen = before;
  }
  return false;
}
