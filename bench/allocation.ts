// What V8 allocates in a worker per session and per exchange. Used by the benchmark and by test/allocation.test.ts.

import type { LoadMode } from '../src/testing/load-client.ts';
import type { EdgeproxyUnderLoad, LoadRun } from '../src/testing/load-run.ts';

interface AllocationRow {
  readonly per: 'session' | 'exchange';
  readonly operations: number;
  /** What V8 allocated in the worker's heap meanwhile; collections do not lower it. */
  readonly heapBytes: number;
}

/** Operations of one window, and windows at most: V8 needs some 100,000 sessions until it optimises nothing more. */
const ALLOCATION_WINDOW = 120_000;
const WINDOWS_MAX = 6;
/**
 * What a window may show though no operation allocates: the question itself makes V8 give up a part-filled page (39,000
 * bytes), and a function is optimised once more. The smallest object has 16 bytes, so one per operation shows as 1,920,000;
 * this is a quarter of that, 4 bytes per operation.
 */
export const ALLOCATION_NOISE = ALLOCATION_WINDOW * 4;

/**
 * Bytes that the one worker of `proxy` (started with watchHeap) allocated in a window of ALLOCATION_WINDOW operations: the
 * first window at or below `enoughBytes`, or the quietest of all. An allocation on the path of an operation shows in each.
 */
export async function measureAllocation(
  run: LoadRun,
  proxy: EdgeproxyUnderLoad,
  mode: Extract<LoadMode, 'connect' | 'exchange'>,
  enoughBytes: number,
): Promise<AllocationRow> {
  // A worker asleep answers the question for its heap only when something wakes it: ask while there is traffic.
  const allocated = async (): Promise<number> => {
    const [heaps] = await Promise.all([
      proxy.heaps(),
      run.load(proxy, { mode: 'connect', connections: 1, seconds: 0.2 }),
    ]);
    return heaps[0].allocatedBytes;
  };
  const connections = mode === 'connect' ? 64 : 100;
  let heapBytes = Number.POSITIVE_INFINITY;
  let operations = 0;
  for (let window = 0; window < WINDOWS_MAX && heapBytes > enoughBytes; window++) {
    const before = await allocated();
    const report = await run.load(proxy, { mode, connections, operations: ALLOCATION_WINDOW });
    const grown = (await allocated()) - before;
    if (grown < heapBytes) {
      heapBytes = grown;
      operations = report.operations;
    }
  }
  return { per: mode === 'connect' ? 'session' : 'exchange', operations, heapBytes };
}
