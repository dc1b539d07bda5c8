// What a run leaves: one record per measurement, and what was noted about the run. Everything reported comes from these.

import type { Machine } from './machine.ts';

/**
 * Figures by name. Side by side: `cpu` and `machine` (µs of CPU per operation or ms per GB, of the proxy's process and of
 * all CPUs), `rate` (operations or GB per second), `proxyCores`, `loadSpare` and `steal` (shares of a core), `failures`.
 * The other workloads say at their head which names they use.
 */
export type Values = Readonly<Record<string, number>>;

export interface Sample {
  readonly workload: string;
  /** `100 connections`, `download, 16 streams`. */
  readonly case: string;
  readonly proxy: string;
  readonly round: number;
  readonly values: Values;
}

export interface Results {
  readonly machine: Machine;
  /** A short run shows that the harness works; its figures are not to be quoted. */
  readonly quick: boolean;
  readonly rounds: number;
  readonly startedAt: string;
  readonly seconds: number;
  /** What could not be measured as planned, and why. */
  readonly notes: readonly string[];
  readonly samples: readonly Sample[];
}

/** One figure of one proxy in one case, by round. */
export function figureByRound(
  samples: readonly Sample[],
  workload: string,
  name: string,
  proxy: string,
  figure: string,
): Map<number, number> {
  const found = new Map<number, number>();
  for (const sample of samples) {
    if (sample.workload !== workload || sample.case !== name || sample.proxy !== proxy) continue;
    const value = sample.values[figure];
    if (value !== undefined) found.set(sample.round, value);
  }
  return found;
}

/** The cases of a workload in the order of their first sample. */
export function casesOf(samples: readonly Sample[], workload: string): string[] {
  return [...new Set(samples.filter((sample) => sample.workload === workload).map((s) => s.case))];
}

/** The proxies of a case in the order of their first sample. */
export function proxiesOf(samples: readonly Sample[], workload: string, name: string): string[] {
  const own = samples.filter((sample) => sample.workload === workload && sample.case === name);
  return [...new Set(own.map(({ proxy }) => proxy))].sort(byRank);
}

const RANKS = ['direct', 'haproxy', 'nginx', 'node', 'edgeproxy'];

/** The yardsticks first, edgeproxy last: the order of samples changes from round to round. */
function byRank(one: string, two: string): number {
  const rank = (name: string): number => RANKS.findIndex((prefix) => name.startsWith(prefix));
  return rank(one) - rank(two) || one.length - two.length || (one < two ? -1 : 1);
}
