// Rows about memory: what idle sessions add to a process, and what V8 allocates per session and per exchange.

import { setTimeout as sleep } from 'node:timers/promises';
import type { LoadMode } from '../src/testing/load-client.ts';
import type { LoadProxy, LoadRun } from '../src/testing/load-run.ts';
import { memoryUse } from '../src/testing/load-usage.ts';

/** Long enough for V8's own delayed work after a load (code it drops, memory it gives back). */
const SETTLE_MS = 1000;

/** Few, so that the warm-up leaves the client table as good as empty. */
export const WARM_CLIENTS = 64;

export interface IdleRow {
  readonly proxy: string;
  /** Addresses the sessions come from: each new one takes its place in edgeproxy's client table. */
  readonly clients: number;
  readonly sessions: number;
  readonly pssBytesBefore: number;
  readonly pssBytesAdded: number;
  readonly rssBytesAdded: number;
}

/**
 * Opens `sessions` through a proxy that has served `warmConnections` from few clients, each with one exchange, and
 * compares its memory before and while they are idle.
 */
export async function measureIdle(
  run: LoadRun,
  proxy: LoadProxy,
  sessions: number,
  clients: number,
  warmConnections: number,
): Promise<IdleRow> {
  await run.load(proxy, {
    mode: 'connect',
    connections: 64,
    operations: warmConnections,
    clients: WARM_CLIENTS,
  });
  // Twice: what the first collection finds unreachable is given back to the system only later.
  await proxy.collect();
  await sleep(SETTLE_MS);
  await proxy.collect();
  await sleep(SETTLE_MS);
  const before = memoryUse(proxy.pid);
  const { failures } = await run.load(proxy, {
    mode: 'hold',
    connections: sessions,
    clients,
  });
  if (failures > 0) throw new Error(`Cannot hold ${sessions} sessions: ${failures} failed`);
  await sleep(SETTLE_MS);
  const after = memoryUse(proxy.pid);
  await run.load(proxy, { mode: 'release', connections: sessions });
  return {
    proxy: proxy.name,
    clients,
    sessions,
    pssBytesBefore: before.pssBytes,
    pssBytesAdded: after.pssBytes - before.pssBytes,
    rssBytesAdded: after.rssBytes - before.rssBytes,
  };
}

export interface AllocationRow {
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
  proxy: LoadProxy,
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
