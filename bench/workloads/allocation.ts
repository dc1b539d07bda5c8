// What V8 allocates per session and per exchange in a worker, by its own count: `bytes` of each, over `operations`.

import { ALLOCATION_NOISE, measureAllocation } from '../allocation.ts';
import { addSample, figuresText, note, say, type Workload } from '../bench.ts';

export const ALLOCATION: Workload = {
  name: 'allocation',
  async measure(bench) {
    const { run, machine, plan } = bench;
    if (plan.quick) {
      note(bench, 'Allocation takes minutes and is left out of a quick run');
      return;
    }
    for (const engine of ['uring', 'epoll'] as const) {
      const place = { cpu: machine.placement[0], descriptors: machine.descriptors };
      const proxy = await run.startEdgeproxy({ ...place, engine, watchHeap: true });
      for (const mode of ['connect', 'exchange'] as const) {
        const row = await measureAllocation(run, proxy, mode, ALLOCATION_NOISE);
        const { operations, heapBytes } = row;
        const values = { bytes: heapBytes / operations, operations };
        const name = `per ${row.per}`;
        const sample = { workload: 'allocation', case: name, round: 0, values };
        addSample(bench, { ...sample, proxy: `edgeproxy ${engine}` });
        say(`  allocation, ${name}, ${engine}: ${figuresText(values)}`);
      }
      await run.stop(proxy);
    }
  },
};
