// The charts of the report, each from the samples of one workload.

import { casesOf, proxiesOf, type Sample } from '../samples.ts';
import { type BarGroup, barChart } from './chart.ts';
import { figureSpread } from './tables.ts';

interface ChartSpec {
  readonly file: string;
  readonly title: string;
  readonly unit: string;
  readonly workload: string;
  /** Figures to show, each with its label; with more than one a group is a case and a figure. */
  readonly figures: readonly (readonly [figure: string, label: string])[];
  readonly divisor?: number;
  readonly withoutDirect?: true;
  readonly ownScales?: true;
}

const CPU = [['cpu', '']] as const;

export const CHARTS: readonly ChartSpec[] = [
  {
    file: 'connect.svg',
    title: 'CPU of the proxy per connection',
    unit: 'µs (lower is better)',
    workload: 'connect',
    figures: CPU,
    withoutDirect: true,
  },
  {
    file: 'exchange.svg',
    title: 'CPU of the proxy per 64 B exchange',
    unit: 'µs (lower is better)',
    workload: 'exchange',
    figures: CPU,
    withoutDirect: true,
  },
  {
    file: 'latency.svg',
    title: 'Latency at a fixed rate, since the request was due',
    unit: 'µs (lower is better)',
    workload: 'latency',
    figures: [
      ['p50', 'p50'],
      ['p99', 'p99'],
      ['p999', 'p99.9'],
    ],
    ownScales: true,
  },
  {
    file: 'bulk.svg',
    title: 'CPU of the proxy per GB',
    unit: 'ms (lower is better)',
    workload: 'bulk',
    figures: CPU,
    withoutDirect: true,
  },
  {
    file: 'idle.svg',
    title: 'Memory per idle session',
    unit: 'bytes (lower is better)',
    workload: 'idle',
    figures: [
      ['user', 'user memory'],
      ['kernel', 'kernel memory of the machine'],
    ],
    ownScales: true,
  },
  {
    file: 'startup.svg',
    title: 'Start: exec to listening',
    unit: 'ms (lower is better)',
    workload: 'startup',
    figures: [['listening', '']],
  },
  {
    file: 'growth.svg',
    title: 'CPU of the proxy per connection',
    unit: 'µs, as backends and clients grow',
    workload: 'growth',
    figures: CPU,
  },
];

function groupsOf(samples: readonly Sample[], spec: ChartSpec): BarGroup[] {
  const { workload, figures, divisor = 1 } = spec;
  return casesOf(samples, workload).flatMap((name) =>
    figures.map(([figure, label]): BarGroup => {
      const proxies = proxiesOf(samples, workload, name).filter(
        (proxy) => proxy !== 'direct' || !spec.withoutDirect,
      );
      const bars = proxies.flatMap((proxy) => {
        const spread = figureSpread(samples, workload, name, proxy, figure);
        if (spread === null) return [];
        const { median, q1, q3 } = spread;
        const value = { median: median / divisor, q1: q1 / divisor, q3: q3 / divisor };
        return [{ name: proxy, value }];
      });
      return { label: [name, label].filter((part) => part !== '').join(': '), bars };
    }),
  );
}

/** The SVG of a chart; null when nothing of it was measured. */
export function chartOf(samples: readonly Sample[], spec: ChartSpec): string | null {
  const groups = groupsOf(samples, spec).filter(({ bars }) => bars.length > 0);
  if (groups.length === 0) return null;
  return barChart(spec.title, spec.unit, groups, spec.ownScales);
}
