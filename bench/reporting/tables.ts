// Every figure of a run as Markdown tables: one table per workload and figure, proxies as columns, medians with quartiles.

import { casesOf, figureByRound, proxiesOf, type Results, type Sample } from '../samples.ts';
import { type Spread, spreadOf } from '../statistics.ts';
import { evaluateBudgets, itemVerdict, rowVerdict } from './budgets.ts';
import { markdownTable, short, spreadText } from './text.ts';

interface TableSpec {
  readonly title: string;
  readonly workload: string;
  readonly figure: string;
  readonly divisor?: number;
  /** Left out where no sample has anything but 0. */
  readonly onlyIfAny?: boolean;
}

const SIDE_BY_SIDE = (workload: string, what: string, cpu: string, rate: string): TableSpec[] => [
  { title: `${what}: CPU of the proxy's process, ${cpu}`, workload, figure: 'cpu' },
  { title: `${what}: CPU of the whole machine, ${cpu}`, workload, figure: 'machine' },
  { title: `${what}: rate, ${rate}`, workload, figure: 'rate' },
  { title: `${what}: share of its core that the proxy used`, workload, figure: 'proxyCores' },
  {
    title: `${what}: spare share of the load's core (near 0, the load set the rate)`,
    workload,
    figure: 'loadSpare',
  },
  { title: `${what}: failures`, workload, figure: 'failures', onlyIfAny: true },
  {
    title: `${what}: cores taken by other virtual machines meanwhile`,
    workload,
    figure: 'steal',
    onlyIfAny: true,
  },
];

const SPECS: readonly TableSpec[] = [
  ...SIDE_BY_SIDE('connect', 'Connection, 64 B exchange, close', 'µs each', 'per second'),
  ...SIDE_BY_SIDE('exchange', '64 B exchange', 'µs each', 'per second'),
  { title: 'Latency: requests per second, the same for all', workload: 'latency', figure: 'rate' },
  ...(
    [
      ['p50', 'p50'],
      ['p90', 'p90'],
      ['p99', 'p99'],
      ['p99.9', 'p999'],
      ['highest', 'max'],
    ] as const
  ).map(([label, figure]) => {
    return { title: `Latency since a request was due: ${label}, µs`, workload: 'latency', figure };
  }),
  {
    title: 'Latency: how late the load client itself sent, p99, µs',
    workload: 'latency',
    figure: 'late99',
  },
  {
    title: 'Latency: how late the load client itself sent, p99.9, µs',
    workload: 'latency',
    figure: 'late999',
  },
  ...SIDE_BY_SIDE('bulk', 'Bulk', 'ms per GB', 'GB per second'),
  {
    title: 'Idle sessions: PSS of the process, MB',
    workload: 'idle',
    figure: 'after',
    divisor: 1e6,
  },
  {
    title: 'Idle sessions: user memory added, bytes per session',
    workload: 'idle',
    figure: 'user',
  },
  {
    title: 'Idle sessions: kernel memory of the whole machine, bytes per session',
    workload: 'idle',
    figure: 'kernel',
  },
  { title: 'Reload of 10,000 backends: p50, µs', workload: 'reload', figure: 'p50' },
  { title: 'Reload of 10,000 backends: p99, µs', workload: 'reload', figure: 'p99' },
  { title: 'Reload of 10,000 backends: p99.9, µs', workload: 'reload', figure: 'p999' },
  {
    title: 'Reload of 10,000 backends: CPU of the main thread each, ms',
    workload: 'reload',
    figure: 'mainMs',
  },
  { title: 'Selection and country look-up alone, ns', workload: 'lookup', figure: 'ns' },
  { title: 'Start: exec to listening, ms', workload: 'startup', figure: 'listening' },
  { title: 'Start: exec to the first exchange done, ms', workload: 'startup', figure: 'answered' },
  {
    title: 'Growth: CPU per connection, µs of the proxy’s process',
    workload: 'growth',
    figure: 'cpu',
  },
  { title: 'Growth: connections per second', workload: 'growth', figure: 'rate' },
  { title: 'Allocation in a worker’s heap, bytes', workload: 'allocation', figure: 'bytes' },
];

/** Median and quartiles of one figure, null where there is none. */
export function figureSpread(
  samples: readonly Sample[],
  workload: string,
  name: string,
  proxy: string,
  figure: string,
): Spread | null {
  const values = [...figureByRound(samples, workload, name, proxy, figure).values()];
  return values.length === 0 ? null : spreadOf(values);
}

function specTable(samples: readonly Sample[], spec: TableSpec): string {
  const { workload, figure, divisor = 1 } = spec;
  const own = samples.filter((sample) => sample.workload === workload && figure in sample.values);
  if (own.length === 0) return '';
  if (spec.onlyIfAny && own.every(({ values }) => values[figure] === 0)) return '';
  const cases = casesOf(own, workload);
  const proxies = [...new Set(cases.flatMap((name) => proxiesOf(own, workload, name)))];
  const rows = cases.map((name) => [
    name,
    ...proxies.map((proxy) => {
      const spread = figureSpread(own, workload, name, proxy, figure);
      if (spread === null) return '';
      const { median, q1, q3 } = spread;
      return spreadText({ median: median / divisor, q1: q1 / divisor, q3: q3 / divisor });
    }),
  ]);
  return `### ${spec.title}\n\n${markdownTable(['', ...proxies], rows)}\n`;
}

/** Every item of every budget, worst news not left out. */
export function budgetTable(samples: readonly Sample[]): string {
  const rows = evaluateBudgets(samples).flatMap(({ title, limit, items }) => [
    [`**${title}**`, '', '', limit, '', `**${rowVerdict(items)}**`],
    ...items.map((item) => [
      item.what,
      item.engine === 'both' ? '' : item.engine,
      item.against === '' ? '' : `÷ ${item.against}`,
      `≤ ${short(item.limit)} ${item.unit}`.trim(),
      item.value === null ? '' : `${spreadText(item.value)} ${item.unit}`.trim(),
      itemVerdict(item),
    ]),
  ]);
  return markdownTable(['budget', 'engine', 'against', 'limit', 'measured', ''], rows);
}

/** All tables of figures, for the terminal and for the report. */
export function resultTables({ samples }: Results): string {
  return SPECS.map((spec) => specTable(samples, spec))
    .filter((text) => text !== '')
    .join('\n');
}
