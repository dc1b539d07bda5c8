// 64-byte exchanges on 1, 100 and 1,000 open connections: as many as go (CPU per exchange), then at a fixed rate (latency).
// Latencies, in µs since a request was due: `p50`, `p90`, `p99`, `p999`, `max`; `late99` and `late999` tell how late the
// load client itself sent, `rate` is per second, `cpu` as everywhere.

import type { LoadProxy } from '../../src/testing/load-run.ts';
import { addSample, type Bench, figuresText, say, WITH_DIRECT, type Workload } from '../bench.ts';
import { inTurn, loadValues, sideBySide, warmUp, withProxies } from '../measure.ts';

const CONNECTIONS = [1, 100, 1000] as const;
/** Of what the slowest proxy can do: below the saturation of each. */
const SHARE_OF_SLOWEST = 0.5;
const PROBE_SECONDS = 0.3;

function caseName(connections: number): string {
  return connections === 1 ? '1 connection' : `${connections} connections`;
}

export const EXCHANGE: Workload = {
  name: 'exchange',
  measure: (bench: Bench) =>
    withProxies(bench, WITH_DIRECT, {}, async (proxies) => {
      await warmUp(bench, proxies);
      const { seconds } = bench.plan;
      const cases = CONNECTIONS.map((connections) => {
        const request = { mode: 'exchange', connections, seconds, warmSeconds: 0.2 } as const;
        return { name: caseName(connections), request };
      });
      await sideBySide(bench, 'exchange', proxies, cases);
    }),
};

/** One rate for all: half of what the slowest of them does on as many connections. */
async function commonRate(
  bench: Bench,
  proxies: readonly LoadProxy[],
  connections: number,
): Promise<number> {
  const rates: number[] = [];
  for (const proxy of proxies) {
    const probe = { mode: 'exchange', connections, seconds: PROBE_SECONDS } as const;
    const { operations, seconds } = await bench.run.load(proxy, probe);
    rates.push(operations / seconds);
  }
  return Math.max(100, Math.round((Math.min(...rates) * SHARE_OF_SLOWEST) / 100) * 100);
}

async function measureLatency(
  bench: Bench,
  proxy: LoadProxy,
  connections: number,
  rate: number,
  round: number,
): Promise<void> {
  const order = { mode: 'paced', connections, rate, warmSeconds: 0.3 } as const;
  const report = await bench.run.load(proxy, { ...order, seconds: bench.plan.latencySeconds });
  const { latency, lateness } = report;
  if (latency === null || lateness === null) throw new Error('A paced load has no latencies');
  const { p50, p90, p99, p999, max } = latency;
  const { cpu, failures, steal } = loadValues(bench, report, false);
  const late = { late99: lateness.p99, late999: lateness.p999 };
  const values = { p50, p90, p99, p999, max, ...late, rate, cpu, failures, steal };
  const name = caseName(connections);
  addSample(bench, { workload: 'latency', case: name, proxy: proxy.name, round, values });
  say(`  ${round} latency, ${name}, ${proxy.name}: ${figuresText(values)}`);
}

export const LATENCY: Workload = {
  name: 'latency',
  measure: (bench: Bench) =>
    withProxies(bench, WITH_DIRECT, {}, async (proxies) => {
      await warmUp(bench, proxies);
      const rates = new Map<number, number>();
      for (const connections of CONNECTIONS) {
        rates.set(connections, await commonRate(bench, proxies, connections));
      }
      for (let round = 0; round < bench.plan.rounds; round++) {
        for (const [connections, rate] of rates) {
          for (const proxy of inTurn(proxies, round)) {
            await measureLatency(bench, proxy, connections, rate, round);
          }
        }
      }
    }),
};
