// The command line of the benchmark, and the plan it stands for.

import { parseArgs } from 'node:util';
import type { Plan, Workload } from './bench.ts';
import { ALLOCATION } from './workloads/allocation.ts';
import { BULK } from './workloads/bulk.ts';
import { CONNECT } from './workloads/connect.ts';
import { EXCHANGE, LATENCY } from './workloads/exchange.ts';
import { GROWTH } from './workloads/growth.ts';
import { IDLE } from './workloads/idle.ts';
import { LOOKUP } from './workloads/lookup.ts';
import { RELOAD } from './workloads/reload.ts';
import { STARTUP } from './workloads/startup.ts';

const WORKLOADS: readonly Workload[] = [
  LOOKUP,
  STARTUP,
  CONNECT,
  EXCHANGE,
  LATENCY,
  BULK,
  IDLE,
  RELOAD,
  GROWTH,
  ALLOCATION,
];
const NAMES = WORKLOADS.map(({ name }) => name);

export const USAGE = `Usage: npm run bench -- [--quick] [--only ${NAMES.join('|')}]
                        [--rounds N] [--out DIRECTORY] [--report]
  --quick         short windows and few sessions: shows that all works, in some two minutes
  --only NAMES    only these workloads, comma separated; prints its tables and writes no report
  --rounds N      rounds of each workload (default 7, quick 1)
  --out DIRECTORY where the report goes (default bench/report, which README quotes; quick: .cache/bench-quick)
  --report        measures nothing: makes tables, charts and README anew from DIRECTORY/results.json
`;

const WHOLE: Plan = {
  quick: false,
  rounds: 7,
  seconds: 1,
  latencySeconds: 3,
  warmConnections: 30_000,
  warmExchanges: 40_000,
  idleSessions: [10_000, 100_000],
  settleMs: 1500,
  idleRounds: 3,
  reloads: 6,
  backendCounts: [10, 100, 1000, 10_000],
  clientCounts: [1, 1000, 100_000, 1_000_000],
};
const QUICK: Plan = {
  quick: true,
  rounds: 1,
  seconds: 0.4,
  latencySeconds: 0.5,
  warmConnections: 4000,
  warmExchanges: 8000,
  idleSessions: [2000],
  settleMs: 500,
  idleRounds: 1,
  reloads: 3,
  backendCounts: [10, 1000],
  clientCounts: [1, 10_000],
};
/** A run ends by itself even on a machine that is far too busy. */
const LIMIT_SECONDS_PER_ROUND = 600;
const LIMIT_SECONDS_MIN = 900;

export interface Options {
  readonly plan: Plan;
  readonly workloads: readonly Workload[];
  /** Not all workloads: no report is written, unless `out` says where. */
  readonly partial: boolean;
  readonly out: string | null;
  readonly reportOnly: boolean;
  readonly limitSeconds: number;
}

/** The options, or what is wrong with them; null asks for the usage. */
export function readOptions(args: readonly string[]): Options | string | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      rounds: { type: 'string' },
      out: { type: 'string' },
      report: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return null;
  const base = values.quick ? QUICK : WHOLE;
  const rounds = Number(values.rounds ?? base.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1000) {
    return `--rounds is ${values.rounds}, allowed: a whole number from 1 to 1000`;
  }
  const wanted = values.only?.split(',') ?? NAMES;
  const unknown = wanted.filter((name) => !NAMES.includes(name));
  if (unknown.length > 0) return `--only is ${unknown.join()}, allowed: ${NAMES.join(', ')}`;
  return {
    plan: { ...base, rounds },
    workloads: WORKLOADS.filter(({ name }) => wanted.includes(name)),
    partial: wanted.length < NAMES.length,
    out: values.out ?? null,
    reportOnly: values.report,
    limitSeconds: Math.max(LIMIT_SECONDS_MIN, rounds * LIMIT_SECONDS_PER_ROUND),
  };
}
