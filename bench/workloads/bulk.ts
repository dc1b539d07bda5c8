// Bytes as fast as they go: down, up and both at once, over 1 and 16 streams. CPU is in ms per GB, the rate in GB/s.

import { type Bench, FOR_BULK, type Workload } from '../bench.ts';
import { type LoadCase, sideBySide, warmUp, withProxies } from '../measure.ts';

const MODES = ['download', 'upload', 'both'] as const;
const STREAMS = [1, 16] as const;

export const BULK: Workload = {
  name: 'bulk',
  measure: (bench: Bench) =>
    withProxies(bench, FOR_BULK, {}, async (proxies) => {
      await warmUp(bench, proxies);
      const seconds = bench.plan.seconds / 2;
      const cases = MODES.flatMap((mode) =>
        STREAMS.map((connections): LoadCase => {
          const request = { mode, connections, seconds, warmSeconds: 0.2 };
          return {
            name: `${mode}, ${connections} ${connections === 1 ? 'stream' : 'streams'}`,
            request,
          };
        }),
      );
      await sideBySide(bench, 'bulk', proxies, cases, true);
    }),
};
