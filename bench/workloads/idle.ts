// Memory while sessions are open and idle, each after one exchange and from a client address of its own, for edgeproxy also
// from 64 in all, which leaves its client table out: `before` and `after` (PSS of the whole process, bytes), `user` (bytes
// added per session), `kernel` (bytes of kernel memory of the whole machine per session; `direct` shows what client and
// backend need without a proxy), `sessions`.

import { setTimeout as sleep } from 'node:timers/promises';
import type { LoadProxy } from '../../src/testing/load-run.ts';
import { kernelBytes, memoryUse } from '../../src/testing/load-usage.ts';
import {
  addSample,
  type Bench,
  figuresText,
  note,
  say,
  WITH_DIRECT,
  type Workload,
} from '../bench.ts';
import { withProxies } from '../measure.ts';
import { EDGEPROXY_EPOLL, EDGEPROXY_URING } from '../proxies/edgeproxy.ts';
import { manyHosts } from '../proxies/prepare.ts';

/** Few, so that the warm-up leaves a client table as good as empty. */
const WARM_CLIENTS = 64;
const WARM_CONNECTIONS = 20_000;
const EDGEPROXIES = [EDGEPROXY_URING, EDGEPROXY_EPOLL] as const;
/** Descriptors a proxy needs besides two for each session. */
const DESCRIPTORS_SPARE = 600;
/** So many that the ports of the backend leg do not run out: 28,000 to an address. */
const HOSTS = 16;

/** As a person writes it: 10000 is 10,000. */
export function countText(count: number): string {
  return count.toLocaleString('en-US');
}

interface IdleCase {
  readonly sessions: number;
  /** Addresses they come from. */
  readonly clients: number;
}

async function measureIdle(
  bench: Bench,
  proxy: LoadProxy,
  { sessions, clients }: IdleCase,
  round: number,
): Promise<void> {
  const { run } = bench;
  const pss = (): number => (proxy.pid === 0 ? 0 : memoryUse(proxy.pid).pssBytes);
  await run.load(proxy, {
    mode: 'connect',
    connections: 64,
    operations: WARM_CONNECTIONS,
    clients: WARM_CLIENTS,
  });
  await sleep(bench.plan.settleMs);
  const [before, kernelBefore] = [pss(), kernelBytes()];
  const order = { connections: sessions, clients } as const;
  const { failures } = await run.load(proxy, { ...order, mode: 'hold' });
  if (failures > 0) note(bench, `${failures} of ${sessions} idle sessions of ${proxy.name} failed`);
  await sleep(bench.plan.settleMs);
  const [after, kernelAfter] = [pss(), kernelBytes()];
  await run.load(proxy, { ...order, mode: 'release' });
  const values = {
    before,
    after,
    user: (after - before) / sessions,
    kernel: (kernelAfter - kernelBefore) / sessions,
    sessions,
    failures,
  };
  const from = clients === sessions ? '' : `, ${clients} clients`;
  const name = `${countText(sessions)} sessions${from}`;
  addSample(bench, { workload: 'idle', case: name, proxy: proxy.name, round, values });
  say(`  ${round} idle, ${name}, ${proxy.name}: ${figuresText(values)}`);
}

/** What the limit of open files lets a proxy hold; says how to raise it when that is less. */
function possibleSessions(bench: Bench, wanted: number): number {
  const { descriptors } = bench.machine;
  const possible = Math.floor((descriptors - DESCRIPTORS_SPARE) / 2);
  if (wanted <= possible) return wanted;
  note(
    bench,
    `${countText(wanted)} idle sessions need ${countText(wanted * 2 + DESCRIPTORS_SPARE)} open files, the limit here is ${countText(descriptors)} and this user may not raise it: ` +
      `run from a shell with \`ulimit -n 300000\`, in a container with \`--ulimit nofile=300000\`. ${countText(possible)} were measured`,
  );
  return possible;
}

export const IDLE: Workload = {
  name: 'idle',
  async measure(bench) {
    const counts = new Set(bench.plan.idleSessions.map((count) => possibleSessions(bench, count)));
    for (const sessions of counts) {
      for (let round = 0; round < bench.plan.idleRounds; round++) {
        const own = WITH_DIRECT.map((kind) => ({ kind, clients: sessions }));
        const few = EDGEPROXIES.map((kind) => ({ kind, clients: WARM_CLIENTS }));
        for (const { kind, clients } of [...own, ...few]) {
          // One process at a time, and a fresh one: what it kept from before would hide what is added.
          await withProxies(bench, [kind], { hosts: manyHosts(HOSTS) }, ([proxy]) =>
            measureIdle(bench, proxy, { sessions, clients }, round),
          );
        }
      }
    }
  },
};
