// What a connection costs as backends and clients grow. Backends: HAProxy, nginx and edgeproxy with as many servers. Clients:
// edgeproxy alone, because only it remembers them; every client has been seen once before the measurement.

import { type Bench, say, type Workload } from '../bench.ts';
import { sideBySide, withProxies } from '../measure.ts';
import { EDGEPROXY_URING } from '../proxies/edgeproxy.ts';
import { HAPROXY } from '../proxies/haproxy.ts';
import { NGINX } from '../proxies/nginx.ts';
import { manyHosts } from '../proxies/prepare.ts';
import { countText } from './idle.ts';

const KINDS = [HAPROXY, NGINX, EDGEPROXY_URING] as const;

async function backends(bench: Bench, count: number): Promise<void> {
  const { plan, run } = bench;
  await withProxies(bench, KINDS, { hosts: manyHosts(count) }, async (proxies) => {
    const order = { mode: 'connect', connections: 64 } as const;
    for (const proxy of proxies) await run.load(proxy, { ...order, operations: 10_000 });
    const request = { ...order, seconds: plan.seconds, warmSeconds: 0.2 };
    const name = `${countText(count)} backends`;
    await sideBySide(bench, 'growth', proxies, [{ name, request }]);
  });
}

async function clients(bench: Bench, count: number): Promise<void> {
  const { plan, run } = bench;
  await withProxies(bench, [EDGEPROXY_URING], {}, async (proxies) => {
    const order = { mode: 'connect', connections: 64, clients: count } as const;
    const operations = Math.max(plan.warmConnections, count);
    say(`  growth: ${countText(operations)} connections to be known`);
    for (const proxy of proxies) await run.load(proxy, { ...order, operations });
    const request = { ...order, seconds: plan.seconds, warmSeconds: 0.2 };
    const name = `${countText(count)} ${count === 1 ? 'client' : 'clients'}`;
    await sideBySide(bench, 'growth', proxies, [{ name, request }]);
  });
}

export const GROWTH: Workload = {
  name: 'growth',
  async measure(bench) {
    for (const count of bench.plan.backendCounts) await backends(bench, count);
    for (const count of bench.plan.clientCounts) await clients(bench, count);
  },
};
