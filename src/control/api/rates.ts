// What happened lately: counters now less counters a while ago. A window keeps two earlier readings and moves on by its
// period, so what it gives covers one to two periods, and as little as there has been since the start.

import {
  BACKEND_CONNECT_BUCKETS,
  BACKEND_FAILURES,
  BACKEND_STATS,
  CONNECT_MS_BUCKETS,
  openWorkerStats,
  type WorkerStats,
} from '../../proxy/stats.ts';
import { monotonicMs } from '../../sys/clock.ts';
import type { WorkerPool } from '../worker-pool.ts';

const RATE_PERIOD_MS = 1000;
/** Percentiles need more events than a second has. */
const LATENCY_PERIOD_MS = 5000;
/** Of a backend: connects by bucket, then failed ones. */
const BUCKETS = CONNECT_MS_BUCKETS.length + 1;
const BACKEND_WORDS = BUCKETS + 1;

/** Counters that only grow, by position. */
type Counters = Float64Array;

/** Differences over `ms` milliseconds. */
export interface Delta {
  readonly values: Counters;
  readonly ms: number;
}

/** A reading and when it was made. */
interface Reading {
  readonly values: Counters;
  readonly atMs: number;
}

class Window {
  readonly #read: () => Counters;
  readonly #periodMs: number;
  #older: Reading;
  #newer: Reading;

  /** Workers begin with all zeros. */
  constructor(read: () => Counters, periodMs: number, startedMs: number) {
    this.#read = read;
    this.#periodMs = periodMs;
    this.#older = { values: new Float64Array(0), atMs: startedMs };
    this.#newer = this.#older;
  }

  move(nowMs: number): void {
    // A tenth of slack: the timer that calls this may be a little early.
    if (nowMs - this.#newer.atMs < this.#periodMs * 0.9) return;
    this.#older = this.#newer;
    this.#newer = { values: this.#read(), atMs: nowMs };
  }

  /** Difference of one counter whose value is `now`; one that was not there yet began at 0. */
  since(position: number, now: number): number {
    return now - (this.#older.values[position] ?? 0);
  }

  ms(nowMs: number): number {
    return Math.max(1, nowMs - this.#older.atMs);
  }
}

/** The workers' totals together. */
export function sumTotals(pool: WorkerPool): Counters {
  const [first, ...others] = pool.stats().map((buffer) => openWorkerStats(buffer).totals);
  if (first === undefined) return new Float64Array(0);
  const sum = Float64Array.from(first);
  for (const totals of others) {
    for (let at = 0; at < sum.length; at++) sum[at] += totals[at] as number;
  }
  return sum;
}

/** One counter of one backend, all workers together. */
export function sumBackend(workers: readonly WorkerStats[], index: number, stat: number): number {
  let sum = 0;
  for (const { backends } of workers) sum += backends[index * BACKEND_STATS + stat] as number;
  return sum;
}

/** Connects by bucket and failures of the backends 0 to `end` - 1. */
function readBackends(workers: readonly WorkerStats[], end: number): Counters {
  const values = new Float64Array(end * BACKEND_WORDS);
  for (const { backends } of workers) {
    for (let index = 0; index < end; index++) {
      const from = index * BACKEND_STATS;
      const to = index * BACKEND_WORDS;
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        values[to + bucket] += backends[from + BACKEND_CONNECT_BUCKETS + bucket] as number;
      }
      values[to + BUCKETS] += backends[from + BACKEND_FAILURES] as number;
    }
  }
  return values;
}

export class Rates {
  readonly #pool: WorkerPool;
  readonly #second: Window;
  readonly #latency: Window;
  readonly #backends: Window;
  readonly #timer: NodeJS.Timeout;
  readonly #nowMs: () => number;

  /** `backendEnd` is one above the highest backend index in use. The clock is replaced in tests. */
  constructor(
    pool: WorkerPool,
    startedMs: number,
    backendEnd: () => number,
    nowMs: () => number = monotonicMs,
  ) {
    this.#pool = pool;
    this.#nowMs = nowMs;
    const totals = (): Counters => sumTotals(pool);
    this.#second = new Window(totals, RATE_PERIOD_MS, startedMs);
    this.#latency = new Window(totals, LATENCY_PERIOD_MS, startedMs);
    const backends = (): Counters => readBackends(this.workers(), backendEnd());
    this.#backends = new Window(backends, LATENCY_PERIOD_MS, startedMs);
    this.#timer = setInterval(() => this.move(), RATE_PERIOD_MS).unref();
    this.move();
  }

  /** Moves the windows on, each when its period is over. */
  move(): void {
    const nowMs = this.#nowMs();
    for (const window of [this.#second, this.#latency, this.#backends]) window.move(nowMs);
  }

  workers(): WorkerStats[] {
    return this.#pool.stats().map(openWorkerStats);
  }

  /** What `totals` (of now) grew by in the last second or two. */
  totals(totals: Counters): Delta {
    const values = totals.map((value, at) => this.#second.since(at, value));
    return { values, ms: this.#second.ms(this.#nowMs()) };
  }

  /** `count` counters of `totals` from `first` on, over 5 to 10 seconds. */
  latency(totals: Counters, first: number, count: number): Delta {
    const values = totals
      .slice(first, first + count)
      .map((value, at) => this.#latency.since(first + at, value));
    return { values, ms: this.#latency.ms(this.#nowMs()) };
  }

  /** Of one backend over 5 to 10 seconds: connects by bucket, failed connects. */
  backend(workers: readonly WorkerStats[], index: number): Delta & { readonly failed: number } {
    const first = index * BACKEND_WORDS;
    const values = new Float64Array(BUCKETS);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const now = sumBackend(workers, index, BACKEND_CONNECT_BUCKETS + bucket);
      values[bucket] = this.#backends.since(first + bucket, now);
    }
    const failures = sumBackend(workers, index, BACKEND_FAILURES);
    const failed = this.#backends.since(first + BUCKETS, failures);
    return { values, failed, ms: this.#backends.ms(this.#nowMs()) };
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/** Per second, to three digits. */
export function perSecond(count: number, ms: number): number {
  return rounded((count * 1000) / ms);
}

export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

/**
 * The time below which `share` of the connects stayed, by even spread within its bucket; null without a connect. What is
 * above the last bound counts as that.
 */
export function percentileMs(buckets: Counters, share: number): number | null {
  const total = connectCount(buckets);
  if (total <= 0) return null;
  let below = 0;
  for (let bucket = 0; bucket < CONNECT_MS_BUCKETS.length; bucket++) {
    const count = buckets[bucket] as number;
    if (below + count >= total * share) {
      const low = CONNECT_MS_BUCKETS[bucket - 1] ?? 0;
      const high = CONNECT_MS_BUCKETS[bucket] as number;
      return rounded(low + ((high - low) * (total * share - below)) / count);
    }
    below += count;
  }
  return CONNECT_MS_BUCKETS.at(-1) as number;
}

/** Connects together. */
export function connectCount(buckets: Counters): number {
  return buckets.reduce((sum, count) => sum + count, 0);
}
