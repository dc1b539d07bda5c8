// 10,000 backends of one app, exchanges at a fixed rate on open connections and a change of one row every so often, after
// which edgeproxy reads and publishes all rows anew. Figures: latencies as in workloads/exchange.ts for the cases `quiet` and
// `reloading`; of the latter also `reloads` and `mainMs`, milliseconds of CPU of the main thread for each of them.

import { setTimeout as sleep } from 'node:timers/promises';
import type { EdgeproxyUnderLoad } from '../../src/testing/load-run.ts';
import { mainThreadNanoseconds } from '../../src/testing/load-usage.ts';
import { Metrics } from '../../src/testing/metrics-text.ts';
import { changeRouting } from '../../src/testing/routing-file.ts';
import { addSample, type Bench, figuresText, say, type Workload } from '../bench.ts';
import { inTurn } from '../measure.ts';
import { routingRows } from '../proxies/edgeproxy.ts';
import { manyHosts } from '../proxies/prepare.ts';

const BACKENDS = 10_000;
const CONNECTIONS = 100;
/** Half of what a shared core does at the least. */
const RATE = 10_000;
/** Reads of the database are at least 40 ms apart, so each change is a reload of its own. */
const CHANGE_EVERY_MS = 500;
const ENGINES = ['uring', 'epoll'] as const;

async function routingVersion({ metricsPort }: EdgeproxyUnderLoad): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${metricsPort}/metrics`);
  return new Metrics(await answer.text()).get('edge_routing_version');
}

async function measureWindow(
  bench: Bench,
  proxy: EdgeproxyUnderLoad,
  reloads: number,
): Promise<Record<string, number>> {
  const seconds = (bench.plan.reloads * CHANGE_EVERY_MS) / 1000;
  const mainBefore = mainThreadNanoseconds(proxy.pid);
  const order = { mode: 'paced', connections: CONNECTIONS, rate: RATE } as const;
  const load = bench.run.load(proxy, { ...order, seconds, warmSeconds: 0.3 });
  await sleep(300 + CHANGE_EVERY_MS / 2);
  for (let reload = 0; reload < reloads; reload++) {
    changeRouting(proxy.dbPath, `UPDATE backends SET weight = weight + 1 WHERE id = 'echo-7'`);
    await sleep(CHANGE_EVERY_MS);
  }
  const { latency, lateness, failures } = await load;
  if (latency === null || lateness === null) throw new Error('A paced load has no latencies');
  const { p50, p90, p99, p999, max } = latency;
  const main = (mainThreadNanoseconds(proxy.pid) - mainBefore) / 1e6;
  return { p50, p90, p99, p999, max, late99: lateness.p99, rate: RATE, failures, main };
}

async function measureReload(bench: Bench, proxy: EdgeproxyUnderLoad, round: number) {
  const quiet = await measureWindow(bench, proxy, 0);
  const versionBefore = await routingVersion(proxy);
  const reloading = await measureWindow(bench, proxy, bench.plan.reloads);
  const reloads = (await routingVersion(proxy)) - versionBefore;
  if (reloads !== bench.plan.reloads) {
    throw new Error(`${proxy.name} published ${reloads} of ${bench.plan.reloads} changes`);
  }
  const mainMs = (reloading.main - quiet.main) / reloads;
  for (const [name, values] of [
    ['quiet', quiet],
    ['reloading', { ...reloading, reloads, mainMs }],
  ] as const) {
    addSample(bench, { workload: 'reload', case: name, proxy: proxy.name, round, values });
    say(`  ${round} reload, ${name}, ${proxy.name}: ${figuresText(values)}`);
  }
}

async function startWithBackends(bench: Bench, engine: (typeof ENGINES)[number]) {
  const { run, machine } = bench;
  const backends = routingRows(run, { hosts: manyHosts(BACKENDS), descriptors: 0 });
  const proxy = await run.startEdgeproxy({ engine, backends, cpu: machine.placement[0] });
  await run.load(proxy, { mode: 'connect', connections: 64, operations: 5000 });
  return { ...proxy, name: `edgeproxy ${engine}` };
}

export const RELOAD: Workload = {
  name: 'reload',
  async measure(bench) {
    const proxies: EdgeproxyUnderLoad[] = [];
    for (const engine of ENGINES) proxies.push(await startWithBackends(bench, engine));
    for (let round = 0; round < bench.plan.rounds; round++) {
      for (const proxy of inTurn(proxies, round)) await measureReload(bench, proxy, round);
    }
    for (const proxy of proxies) await bench.run.stop(proxy);
  },
};
