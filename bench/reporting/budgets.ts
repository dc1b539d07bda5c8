// The budgets of the design, each held or missed by what was measured. A ratio is edgeproxy's figure over the other proxy's of
// the same round, and its median over the rounds counts.

import { casesOf, figureByRound, type Sample } from '../samples.ts';
import { ratiosByRound, type Spread, spreadOf } from '../statistics.ts';

export interface BudgetItem {
  /** `100 connections`. */
  readonly what: string;
  readonly engine: 'uring' | 'epoll' | 'both';
  /** The proxy it is a ratio to, '' for a figure in `unit`. */
  readonly against: string;
  readonly unit: string;
  /** Null where it was not measured. */
  readonly value: Spread | null;
  readonly limit: number;
}

export type Verdict = 'held' | 'missed' | 'not measured';

export interface BudgetRow {
  readonly title: string;
  /** The limit in words. */
  readonly limit: string;
  readonly items: readonly BudgetItem[];
}

const ENGINES = ['uring', 'epoll'] as const;
type Engine = (typeof ENGINES)[number];

const BULK_RATIO = 0.4;
const SPLICE_RATIO = 0.95;
const MEGABYTE = 1e6;
/** A reload must not be seen in the workers: this much is the difference between two windows with none. */
const RELOAD_EFFECT_MAX = 1.1;
/** Bytes of each session or exchange that asking for the heap itself may look like: a quarter of the smallest object. */
const ALLOCATION_MAX = 4;

interface Figure {
  readonly workload: string;
  readonly name: string;
  readonly figure: string;
}

function ratio(
  samples: readonly Sample[],
  { workload, name, figure }: Figure,
  engine: Engine,
  against: string,
  limit: number,
  what = name,
): BudgetItem {
  const of = (proxy: string): Map<number, number> =>
    figureByRound(samples, workload, name, proxy, figure);
  const value = ratiosByRound(of(`edgeproxy ${engine}`), of(against));
  return { what, engine, against, unit: '', value, limit };
}

function absolute(
  samples: readonly Sample[],
  { workload, name, figure }: Figure,
  engine: Engine | 'both',
  unit: string,
  divisor: number,
  limit: number,
  what = name,
): BudgetItem {
  const proxy = engine === 'both' ? 'edgeproxy' : `edgeproxy ${engine}`;
  const values = [...figureByRound(samples, workload, name, proxy, figure).values()];
  const value = values.length === 0 ? null : spreadOf(values.map((one) => one / divisor));
  return { what, engine, against: '', unit, value, limit };
}

const EXCHANGES = ['1 connection', '100 connections', '1000 connections'] as const;
const YARDSTICKS = ['haproxy', 'nginx stream'] as const;

function connectRow(samples: readonly Sample[]): BudgetRow {
  const at = { workload: 'connect', name: '64 at once', figure: 'cpu' };
  const items = ENGINES.flatMap((engine) =>
    YARDSTICKS.map((against) =>
      ratio(samples, at, engine, against, engine === 'uring' ? 0.8 : 0.95),
    ),
  );
  const limit = '≤ 0.80 × HAProxy and nginx with io_uring, ≤ 0.95 × with epoll';
  return { title: 'CPU per connection (connect, 64 B exchange, close)', limit, items };
}

function exchangeRow(samples: readonly Sample[]): BudgetRow {
  const items = EXCHANGES.flatMap((name) =>
    ENGINES.map((engine) =>
      ratio(samples, { workload: 'exchange', name, figure: 'cpu' }, engine, 'haproxy', 0.8),
    ),
  );
  return { title: 'CPU per 64 B exchange on open connections', limit: '≤ 0.80 × HAProxy', items };
}

function bulkRow(samples: readonly Sample[]): BudgetRow {
  const limits = [
    ['haproxy', BULK_RATIO],
    ['nginx stream', BULK_RATIO],
    ['haproxy splice-auto', SPLICE_RATIO],
  ] as const;
  const items = casesOf(samples, 'bulk').flatMap((name) =>
    ENGINES.flatMap((engine) =>
      limits.map(([against, limit]) =>
        ratio(samples, { workload: 'bulk', name, figure: 'cpu' }, engine, against, limit),
      ),
    ),
  );
  const limit = '≤ 0.40 × HAProxy and nginx, ≤ 0.95 × HAProxy with splice-auto';
  return { title: 'Bulk: CPU per GB, each way', limit, items };
}

function latencyRow(samples: readonly Sample[]): BudgetRow {
  const items = EXCHANGES.flatMap((name) =>
    ENGINES.flatMap((engine) =>
      [
        ['p50', 'p50'],
        ['p999', 'p99.9'],
      ].map(([figure, label]) =>
        ratio(
          samples,
          { workload: 'latency', name, figure },
          engine,
          'haproxy',
          1,
          `${label}, ${name}`,
        ),
      ),
    ),
  );
  return { title: 'p50 and p99.9 latency at equal load', limit: '≤ 1.0 × HAProxy', items };
}

/** The design names 10,000 and 100,000 sessions; where the machine allows fewer, those do not count for the second. */
function memoryRow(samples: readonly Sample[]): BudgetRow {
  const measured = casesOf(samples, 'idle').filter((name) => name.endsWith(' sessions'));
  const names = new Set([...measured, '100,000 sessions']);
  const items = [...names].flatMap((name) =>
    ENGINES.flatMap((engine) => {
      const at = { workload: 'idle', name };
      const whole = Number(name.replace(/\D/g, '')) > 10_000 ? 170 : 120;
      return [
        absolute(
          samples,
          { ...at, figure: 'user' },
          engine,
          'KB',
          1000,
          0.5,
          `per session, ${name}`,
        ),
        absolute(
          samples,
          { ...at, figure: 'after' },
          engine,
          'MB',
          MEGABYTE,
          whole,
          `process, ${name}`,
        ),
      ];
    }),
  );
  const limit = '≤ 0.5 KB per session; process ≤ 120 MB with 10,000, ≤ 170 MB with 100,000';
  return { title: 'User memory of idle sessions', limit, items };
}

function lookupRows(samples: readonly Sample[]): BudgetRow[] {
  const lookup = (name: string, figure: string, unit: string, divisor: number, limit: number) =>
    absolute(samples, { workload: 'lookup', name, figure }, 'both', unit, divisor, limit);
  const table = lookup('country, IPv4', 'bytes', 'MB', MEGABYTE, 12);
  return [
    {
      title: 'Selection',
      limit: '≤ 1 µs with 100 backends, ≤ 2 µs with 10,000',
      items: [
        lookup('selection, 100 backends', 'ns', 'µs', 1000, 1),
        lookup('selection, 10,000 backends', 'ns', 'µs', 1000, 2),
      ],
    },
    {
      title: 'Country look-up',
      limit: '≤ 100 ns, IPv4 and IPv6; table ≤ 12 MB',
      items: [
        lookup('country, IPv4', 'ns', 'ns', 1, 100),
        lookup('country, IPv6', 'ns', 'ns', 1, 100),
        { ...table, what: 'country table' },
      ],
    },
  ];
}

function otherRows(samples: readonly Sample[]): BudgetRow[] {
  const each = (
    workload: string,
    name: string,
    figure: string,
    unit: string,
    limit: number,
    what = name,
  ) =>
    ENGINES.map((engine) =>
      absolute(samples, { workload, name, figure }, engine, unit, 1, limit, what),
    );
  return [
    {
      title: 'Allocation on the hot path',
      limit: '0 bytes per session and per exchange (below 4 is the heap check itself)',
      items: ['per session', 'per exchange'].flatMap((name) =>
        each('allocation', name, 'bytes', 'bytes', ALLOCATION_MAX),
      ),
    },
    {
      title: 'Start: exec to listening',
      limit: '≤ 80 ms',
      items: each('startup', 'start', 'listening', 'ms', 80, 'start'),
    },
    {
      title: 'Hot reload of 10,000 backends',
      limit: '≤ 50 ms on the main thread, no effect on p99 in workers',
      items: [
        ...each('reload', 'reloading', 'mainMs', 'ms', 50, 'main thread'),
        ...ENGINES.map((engine) => reloadEffect(samples, engine)),
      ],
    },
  ];
}

/** p99 of exchanges with reloads over p99 without, of the same process and round. */
function reloadEffect(samples: readonly Sample[], engine: Engine): BudgetItem {
  const of = (name: string): Map<number, number> =>
    figureByRound(samples, 'reload', name, `edgeproxy ${engine}`, 'p99');
  const value = ratiosByRound(of('reloading'), of('quiet'));
  const against = 'itself without reloads';
  return { what: 'p99', engine, against, unit: '', value, limit: RELOAD_EFFECT_MAX };
}

export function evaluateBudgets(samples: readonly Sample[]): BudgetRow[] {
  return [
    connectRow(samples),
    exchangeRow(samples),
    bulkRow(samples),
    latencyRow(samples),
    memoryRow(samples),
    ...lookupRows(samples),
    ...otherRows(samples),
  ];
}

export function itemVerdict({ value, limit }: BudgetItem): Verdict {
  if (value === null) return 'not measured';
  return value.median <= limit ? 'held' : 'missed';
}

/** One missed item is a missed row; a row with an item that was not measured is not held. */
export function rowVerdict(items: readonly BudgetItem[]): Verdict {
  const verdicts = items.map(itemVerdict);
  if (verdicts.includes('missed')) return 'missed';
  return items.length === 0 || verdicts.includes('not measured') ? 'not measured' : 'held';
}
