// What README shows of a report, between its markers: the budgets in a few lines and the figures most people ask for.

import type { Results, Sample } from '../samples.ts';
import { type BudgetItem, evaluateBudgets, rowVerdict } from './budgets.ts';
import { figureSpread } from './tables.ts';
import { markdownTable, short } from './text.ts';

const START = '<!-- bench -->';
const END = '<!-- /bench -->';

const PROXIES = ['haproxy', 'nginx stream', 'node:net', 'edgeproxy uring', 'edgeproxy epoll'];

const FIGURES: readonly (readonly [
  title: string,
  workload: string,
  name: string,
  figure: string,
  divisor: number,
])[] = [
  ['connect, 64 B each way, close: CPU, µs', 'connect', '64 at once', 'cpu', 1],
  ['64 B exchange, 100 connections: CPU, µs', 'exchange', '100 connections', 'cpu', 1],
  ['latency p50, 100 connections, µs', 'latency', '100 connections', 'p50', 1],
  ['latency p99.9, 100 connections, µs', 'latency', '100 connections', 'p999', 1],
  ['download, 16 streams: CPU, ms per GB', 'bulk', 'download, 16 streams', 'cpu', 1],
  ['upload, 16 streams: CPU, ms per GB', 'bulk', 'upload, 16 streams', 'cpu', 1],
  ['10,000 backends, per connection: CPU, µs', 'growth', '10,000 backends', 'cpu', 1],
  ['start: exec to listening, ms', 'startup', 'start', 'listening', 1],
];

function figureRows(samples: readonly Sample[]): string[][] {
  return FIGURES.map(([title, workload, name, figure, divisor]) => [
    title,
    ...PROXIES.map((proxy) => {
      const spread = figureSpread(samples, workload, name, proxy, figure);
      return spread === null ? '' : short(spread.median / divisor);
    }),
  ]).filter((row) => row.slice(1).some((cell) => cell !== ''));
}

/** Ratios as they are; figures with their unit. The lowest and the highest median over all cases. */
function rangeText(items: readonly BudgetItem[]): string {
  const byUnit = Map.groupBy(
    items.filter(({ value }) => value !== null),
    ({ unit }) => unit,
  );
  return [...byUnit]
    .map(([unit, some]) => {
      const medians = some.map(({ value }) => value?.median ?? 0);
      const [low, high] = [short(Math.min(...medians)), short(Math.max(...medians))];
      return `${low === high ? low : `${low} to ${high}`} ${unit}`.trim();
    })
    .join('; ');
}

function budgetRows(samples: readonly Sample[]): string[][] {
  return evaluateBudgets(samples).map(({ title, limit, items }) => {
    const cell = (engine: 'uring' | 'epoll'): string => {
      const own = items.filter((item) => item.engine === engine || item.engine === 'both');
      const verdict = rowVerdict(own);
      return [rangeText(own), verdict === 'held' ? 'held' : `**${verdict}**`]
        .filter((part) => part !== '')
        .join(', ');
    };
    return [title, limit, cell('uring'), cell('epoll')];
  });
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

export function machineText({ machine, startedAt, rounds, seconds, quick }: Results): string {
  const { cpus, cpu, kernel, node, haproxy, nginx, commit, virtual } = machine;
  const where = virtual === 'none' ? '' : ` (virtual machine, ${virtual})`;
  const made = `${startedAt.slice(0, 10)}, commit ${commit}, ${counted(rounds, 'round')}, ${counted(Math.ceil(seconds / 60), 'minute')}`;
  const warning = quick ? ' **A quick run: its figures only show that the harness works.**' : '';
  return `${cpus} × ${cpu}${where}, Linux ${kernel}, Node.js ${node.slice(1)}, HAProxy ${haproxy}, nginx ${nginx}; ${made}.${warning}`;
}

/** The part between the markers. */
export function summaryText(results: Results): string {
  const { samples } = results;
  return [
    `${machineText(results)} Every figure and chart: [bench/report](bench/report/README.md).`,
    markdownTable(['medians, lower is better', ...PROXIES], figureRows(samples)),
    'The budgets, as the lowest and highest median over all their cases:',
    markdownTable(
      ['budget', 'limit', 'edgeproxy io_uring', 'edgeproxy epoll'],
      budgetRows(samples),
    ),
  ].join('\n\n');
}

/** README with the part between its markers replaced. */
export function withSummary(readme: string, summary: string): string {
  const start = readme.indexOf(START);
  const end = readme.indexOf(END);
  if (start < 0 || end < start) throw new Error(`README has no ${START} … ${END}`);
  return `${readme.slice(0, start + START.length)}\n${summary}\n${readme.slice(end)}`;
}
