// Rows that set proxies side by side: each round loads every proxy in turn, in changing order, so that drift of the
// machine hits all alike; ratios are taken within a round, and the median of the rounds counts.

import type { LoadProxy, LoadRequest, LoadRun } from '../src/testing/load-run.ts';
import { type Spread, spreadOf } from './statistics.ts';

export interface ProxyFigures {
  readonly proxy: string;
  /** Microseconds of CPU per operation, or milliseconds per GB. */
  readonly cost: Spread;
  /** Operations or GB per second. */
  readonly rate: Spread;
  /** Cores' worth of CPU time the proxy used: far below 1, the load was the limit. */
  readonly cores: Spread;
  /** Cost of edgeproxy over the cost of this proxy, by round. */
  readonly edgeproxyRatio: Spread | null;
  readonly failures: number;
}

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly rateUnit: string;
  readonly figures: readonly ProxyFigures[];
  /** Highest ratio to the first proxy that the row may have, or null where none is set. */
  readonly target: number | null;
}

export interface RowPlan {
  readonly name: string;
  readonly target: number | null;
  readonly rounds: number;
  readonly request: LoadRequest;
  /** Bulk rows count bytes instead of operations. */
  readonly bulk: boolean;
  /** First order to each proxy, unmeasured: V8 optimises what runs often. */
  readonly warmUp: LoadRequest | null;
}

interface Sample {
  readonly cost: number;
  readonly rate: number;
  readonly cores: number;
}

async function sample(
  run: LoadRun,
  proxy: LoadProxy,
  plan: RowPlan,
): Promise<Sample & { failures: number }> {
  const report = await run.load(proxy, plan.request);
  const done = plan.bulk ? report.bytes / 1e9 : report.operations;
  const cpuSeconds = report.cpuNanoseconds[0] / 1e9;
  return {
    cost: (cpuSeconds / done) * (plan.bulk ? 1e3 : 1e6),
    rate: done / report.seconds,
    cores: cpuSeconds / report.seconds,
    failures: report.failures,
  };
}

/** Measures every proxy of `proxies`; the last one is edgeproxy, the first the yardstick. */
export async function measureSideBySide(
  run: LoadRun,
  proxies: readonly LoadProxy[],
  plan: RowPlan,
): Promise<Row> {
  const samples = new Map<LoadProxy, Sample[]>(proxies.map((proxy) => [proxy, []]));
  const failures = new Map<LoadProxy, number>();
  if (plan.warmUp !== null) for (const proxy of proxies) await run.load(proxy, plan.warmUp);
  for (let round = 0; round < plan.rounds; round++) {
    for (const proxy of round % 2 === 0 ? proxies : proxies.toReversed()) {
      const figure = await sample(run, proxy, plan);
      samples.get(proxy)?.push(figure);
      failures.set(proxy, (failures.get(proxy) ?? 0) + figure.failures);
    }
  }
  const edgeproxy = proxies[proxies.length - 1];
  const of = (proxy: LoadProxy): Sample[] => samples.get(proxy) ?? [];
  const figures = proxies.map((proxy): ProxyFigures => {
    const own = of(proxy);
    const ratios = of(edgeproxy).map(({ cost }, round) => cost / own[round].cost);
    return {
      proxy: proxy.name,
      cost: spreadOf(own.map(({ cost }) => cost)),
      rate: spreadOf(own.map(({ rate }) => rate)),
      cores: spreadOf(own.map(({ cores }) => cores)),
      edgeproxyRatio: proxy === edgeproxy ? null : spreadOf(ratios),
      failures: failures.get(proxy) ?? 0,
    };
  });
  return {
    name: plan.name,
    unit: plan.bulk ? 'ms/GB' : 'µs',
    rateUnit: plan.bulk ? 'GB/s' : '/s',
    figures,
    target: plan.target,
  };
}
