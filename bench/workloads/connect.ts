// connect + 64 bytes each way + close, 64 at once: every connection ends by FIN, the client's first.

import { type Bench, WITH_DIRECT, type Workload } from '../bench.ts';
import { sideBySide, warmUp, withProxies } from '../measure.ts';

export const CONNECT: Workload = {
  name: 'connect',
  measure: (bench: Bench) =>
    withProxies(bench, WITH_DIRECT, {}, async (proxies) => {
      await warmUp(bench, proxies);
      const { seconds } = bench.plan;
      const request = { mode: 'connect', connections: 64, seconds, warmSeconds: 0.2 } as const;
      await sideBySide(bench, 'connect', proxies, [{ name: '64 at once', request }]);
    }),
};
