// Measurements that set proxies side by side: each round loads every proxy in turn, in changing order, so that drift of the
// machine hits all alike.

import type { LoadReport } from '../src/testing/load-client.ts';
import type { LoadProxy, LoadRequest } from '../src/testing/load-run.ts';
import { addSample, type Bench, figuresText, note, say, startProxy } from './bench.ts';
import type { ProxyKind, ProxyNeeds } from './proxies/prepare.ts';
import type { Values } from './samples.ts';

export interface LoadCase {
  readonly name: string;
  readonly request: LoadRequest;
}

/** CPU is counted per operation in µs, for bulk per GB in ms. */
export function loadValues(bench: Bench, report: LoadReport, isBulk: boolean): Values {
  const { machine, seconds, failures } = report;
  const done = isBulk ? report.bytes / 1e9 : report.operations;
  const unit = isBulk ? 1e6 : 1e3;
  const wall = seconds * 1e9;
  const cpu = report.cpuNanoseconds.reduce((sum, value) => sum + value, 0);
  const steal = machine.steal.reduce((sum, value) => sum + value, 0);
  const idle = machine.idle.reduce((sum, value) => sum + value, 0);
  const busy = Math.max(0, wall * machine.idle.length - idle - steal);
  const loadCpus = [...new Set(bench.machine.placement.slice(1))];
  return {
    cpu: cpu / done / unit,
    machine: busy / done / unit,
    rate: done / seconds,
    proxyCores: cpu / wall,
    // The least idle CPU of the load: where it is near 0, the load and not the proxy set the rate.
    loadSpare: Math.min(1, ...loadCpus.map((at) => machine.idle[at] / wall)),
    steal: steal / wall,
    failures,
  };
}

/** Starts `kinds`, hands them to `use`, and ends them whatever happens. */
export async function withProxies<Result>(
  bench: Bench,
  kinds: readonly ProxyKind[],
  options: Omit<ProxyNeeds, 'descriptors'>,
  use: (proxies: readonly LoadProxy[]) => Promise<Result>,
): Promise<Result> {
  const proxies: LoadProxy[] = [];
  try {
    for (const kind of kinds) proxies.push(await startProxy(bench, kind, options));
    return await use(proxies);
  } finally {
    for (const proxy of proxies) await bench.run.stop(proxy);
  }
}

/** The order of a round: forwards and backwards in turn, so that no proxy is always first. */
export function inTurn<Item>(items: readonly Item[], round: number): readonly Item[] {
  return round % 2 === 0 ? items : items.toReversed();
}

/** Every case on every proxy in every round; the first order of each is a warm-up. */
export async function sideBySide(
  bench: Bench,
  workload: string,
  proxies: readonly LoadProxy[],
  cases: readonly LoadCase[],
  isBulk = false,
): Promise<void> {
  for (let round = 0; round < bench.plan.rounds; round++) {
    for (const { name, request } of cases) {
      for (const proxy of inTurn(proxies, round)) {
        const report = await bench.run.load(proxy, request);
        const values = loadValues(bench, report, isBulk);
        if (values.rate === 0) {
          note(bench, `${proxy.name} did nothing in round ${round} of ${workload}, ${name}`);
          continue;
        }
        addSample(bench, { workload, case: name, proxy: proxy.name, round, values });
        say(`  ${round} ${workload}, ${name}, ${proxy.name}: ${figuresText(values)}`);
      }
    }
  }
}

/** V8 optimises what runs often, and every proxy grows its pools: unmeasured. */
export async function warmUp(bench: Bench, proxies: readonly LoadProxy[]): Promise<void> {
  const { warmConnections, warmExchanges } = bench.plan;
  for (const proxy of proxies) {
    const warm = { connections: 64, operations: warmConnections } as const;
    await bench.run.load(proxy, { ...warm, mode: 'connect' });
    await bench.run.load(proxy, { ...warm, mode: 'exchange', operations: warmExchanges });
  }
}
