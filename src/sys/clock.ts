// The one monotonic clock of the process, the same for every thread (performance.now() has a per-thread origin and
// allocates; this is 29 ns through the vDSO and allocates nothing).

import { native, nativeRefusal } from './native.ts';
import { CLOCK_POINTER, SCRATCH_CLOCK, scratchWords } from './scratch.ts';

const CLOCK_MONOTONIC = 1n;
const SECONDS_LOW = SCRATCH_CLOCK / 4;
const NANOSECONDS = SECONDS_LOW + 2;

const latest = new Float64Array(1);

/** CLOCK_MONOTONIC in milliseconds with a fraction (clock_gettime(2)). */
export function monotonicMs(): number {
  readMonotonic(latest);
  return latest[0];
}

/** The same into `target[0]`: a returned fraction would be boxed, 16 bytes a call. */
export function readMonotonic(target: Float64Array): void {
  if (nativeRefusal !== '') {
    const [seconds, nanoseconds] = process.hrtime();
    target[0] = seconds * 1000 + nanoseconds / 1e6;
    return;
  }
  native.clock_gettime(CLOCK_MONOTONIC, CLOCK_POINTER);
  target[0] = scratchWords[SECONDS_LOW] * 1000 + scratchWords[NANOSECONDS] / 1e6;
}
