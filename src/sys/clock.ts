// The one monotonic clock of the process, the same for every thread (performance.now() has a per-thread origin and
// allocates; this is 29 ns through the vDSO and allocates nothing).

import { native, nativeRefusal } from './native.ts';
import { CLOCK_POINTER, SCRATCH_CLOCK, scratchWords } from './scratch.ts';

const CLOCK_MONOTONIC = 1n;
const SECONDS_LOW = SCRATCH_CLOCK / 4;
const NANOSECONDS = SECONDS_LOW + 2;

/** CLOCK_MONOTONIC in milliseconds with a fraction (clock_gettime(2)). */
export function monotonicMs(): number {
  if (nativeRefusal !== '') {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1000 + nanoseconds / 1e6;
  }
  native.clock_gettime(CLOCK_MONOTONIC, CLOCK_POINTER);
  return scratchWords[SECONDS_LOW] * 1000 + scratchWords[NANOSECONDS] / 1e6;
}
