// The workers' counters (proxy/stats.ts) as the control plane sees them: summed over the workers when someone asks. They
// survive the replacement of a worker, so a sum never falls. An index that goes to another backend starts at zero again:
// only workers write the counters, so what they had counted by then is remembered here and taken off.

import { BACKEND_STATS, openWorkerStats, type WorkerStats } from '../proxy/stats.ts';

export class Counters {
  readonly #buffers: () => readonly SharedArrayBuffer[];
  #workers: readonly WorkerStats[] = [];
  /** By backend index: BACKEND_STATS sums that belong to the backends that had the index before. */
  readonly #before = new Map<number, Float64Array>();

  /** `buffers` gives each worker's block; the blocks stay the same once there are any. */
  constructor(buffers: () => readonly SharedArrayBuffer[]) {
    this.#buffers = buffers;
  }

  /** By worker. */
  get workers(): readonly WorkerStats[] {
    if (this.#workers.length === 0) this.#workers = this.#buffers().map(openWorkerStats);
    return this.#workers;
  }

  /** One of STAT_…, over all workers. */
  total(stat: number): number {
    let sum = 0;
    for (const { totals } of this.workers) sum += totals[stat];
    return sum;
  }

  /** By STAT_…, over all workers, of one moment: a session that ends meanwhile is not missing in both of two numbers. */
  totals(): Float64Array {
    const sums = new Float64Array(this.workers[0]?.totals.length ?? 0);
    for (const { totals } of this.workers) {
      const copy = totals.slice();
      for (let stat = 0; stat < sums.length; stat++) sums[stat] += copy[stat];
    }
    return sums;
  }

  /** One of BACKEND_…, over all workers, since the backend has the index. */
  backend(index: number, stat: number): number {
    return this.#sum(index, stat) - (this.#before.get(index)?.[stat] ?? 0);
  }

  #sum(index: number, stat: number): number {
    let sum = 0;
    for (const { backends } of this.workers) sum += backends[index * BACKEND_STATS + stat];
    return sum;
  }

  /** Another backend has the index from now on; no session uses it. */
  restartBackend(index: number): void {
    const sums = Float64Array.from({ length: BACKEND_STATS }, (_, stat) => this.#sum(index, stat));
    if (sums.some((sum) => sum !== 0)) this.#before.set(index, sums);
  }
}
