// The hot path allocates nothing: through the real process and real sockets, V8's own count of bytes ever allocated in
// the worker's heap stands still while sessions and exchanges go by.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ALLOCATION_NOISE, measureAllocation } from '../bench/allocation.ts';
import { uringRefusal } from '../src/sys/uring.ts';
import { type EdgeproxyUnderLoad, LoadRun } from '../src/testing/load-run.ts';

const refusal = uringRefusal();

describe('allocation', { skip: refusal === '' ? false : refusal }, () => {
  let run: LoadRun;
  let proxy: EdgeproxyUnderLoad;
  /** Every session is logged; nobody reads the lines, so most are dropped, which must cost the worker nothing either. */
  const logging = ['--session-log', 'all', '--session-log-interval-secs', '1'];

  before(async () => {
    run = await LoadRun.start();
    proxy = await run.startEdgeproxy({ watchHeap: true });
  });
  after(() => run?.close());

  for (const [mode, flags] of [
    ['connect', []],
    ['exchange', []],
    ['connect', logging],
  ] as const) {
    const what = mode === 'connect' ? 'session' : 'exchange';
    const how = flags.length > 0 ? `, with ${flags.join(' ')}` : '';
    it(`a worker allocates nothing per ${what}${how}`, async () => {
      if (flags.length > 0) {
        await run.stop(proxy);
        proxy = await run.startEdgeproxy({ watchHeap: true, flags });
      }
      const row = await measureAllocation(run, proxy, mode, ALLOCATION_NOISE);
      const each = (row.heapBytes / row.operations).toFixed(1);
      const message = `${row.heapBytes} bytes in ${row.operations} ${what}s, ${each} each`;
      assert.ok(row.heapBytes <= ALLOCATION_NOISE, message);
    });
  }
});
