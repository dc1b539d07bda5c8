// The control plane of a simulation: routing rows that change at random, published through the real publisher, and what is
// known about every backend that ever was: the checks compare the data plane's choices with it.
//
// A *uid* stands for one address a backend has had: 10.0.0.0 + uid. So a connect tells which backend it means.

import { Publisher } from '../control/publish.ts';
import { PROXY_PROTOCOLS, type RawBackend, type RowDrain } from '../control/routing-rows.ts';
import type { BackendState } from '../route/backend-state.ts';
import { defaultRegionMap } from '../route/regions.ts';
import { openSnapshot, type Snapshot } from '../route/snapshot.ts';
import type { SimRandom } from './sim-random.ts';
import { fail } from './sim-trace.ts';

const ADDRESS_BASE = 0x0a00_0000;
export const APPS = ['alpha', 'beta'] as const;
const PLACES = [
  ['sa', 'BR'],
  ['sa', 'AR'],
  ['us', 'US'],
  ['eu', 'DE'],
  ['eu', null],
  ['ap', 'SG'],
] as const;
/** Indexes a run may use; checked at every publication. */
export const BACKEND_INDEXES_MAX = 2048;
/** Gate bits of backend-state.ts. */
const GATES = 4;

/** How a backend's address answers connects; shares of 1, the rest is accepted. */
export interface Reachability {
  refused: number;
  unreachable: number;
  silent: number;
  delayMs: number;
}

export interface SimControlOptions {
  readonly backends: number;
  /** Share of backends with a hard limit, and how high it may be. */
  readonly limitedShare: number;
  readonly hardLimitMax: number;
  /** Share of addresses that do not answer as they should. */
  readonly brokenShare: number;
  /** Version of the PROXY header for backends whose row says nothing; absent: no row says anything. */
  readonly proxyProtocol?: number;
}

export class SimControl {
  /** By uid. */
  readonly reachability: Reachability[] = [];
  readonly #backendOfUid: string[] = [];
  readonly publisher: Publisher;
  snapshot: Snapshot;
  readonly #random: SimRandom;
  readonly #options: SimControlOptions;
  readonly #state: BackendState;
  readonly #clock: Float64Array;
  #rows: RawBackend[] = [];
  #made = 0;
  /** Backends to be added with the next change. */
  #owed = 0;
  readonly #removed: RawBackend[] = [];
  #degraded: ReadonlySet<string> = new Set();
  /** Backend id by index << 16 | incarnation, of all publications. */
  readonly #owners = new Map<number, string>();

  /** `clock[0]` is the virtual time in ms. */
  constructor(
    random: SimRandom,
    state: BackendState,
    options: SimControlOptions,
    clock: Float64Array,
  ) {
    this.#random = random;
    this.#clock = clock;
    this.#options = options;
    this.#state = state;
    this.publisher = new Publisher({
      regionMap: defaultRegionMap(),
      popRegion: 'sa',
      popCountry: random.chance(0.5) ? 'BR' : null,
      backendState: state,
      ...(options.proxyProtocol === undefined ? {} : { proxyProtocol: options.proxyProtocol }),
    });
    for (let count = 0; count < options.backends; count++) this.#rows.push(this.#newRow());
    this.snapshot = openSnapshot(this.#publish());
  }

  #newUid(id: string): number {
    const random = this.#random;
    const broken = random.chance(this.#options.brokenShare);
    this.#backendOfUid.push(id);
    return (
      this.reachability.push({
        refused: broken ? random.pick([0.3, 1]) : 0.01,
        unreachable: broken ? random.pick([0, 0.3]) : 0.005,
        silent: broken ? random.pick([0, 0.4]) : 0.002,
        delayMs: random.spread(1, 400) / 10,
      }) - 1
    );
  }

  #newRow(): RawBackend {
    const random = this.#random;
    const id = `backend-${this.#made++}`;
    const [region, country] = random.pick(PLACES);
    const limited = random.chance(this.#options.limitedShare);
    return {
      id,
      app: random.pick(APPS),
      region,
      country,
      family: random.chance(0.8) ? 4 : 6,
      words: [0, 0, 0, ADDRESS_BASE + this.#newUid(id)],
      port: 9000,
      healthy: random.chance(0.95),
      weight: random.pick([1, 1, 1, 1, 2, 2, 5, 5, 0]),
      softLimit: random.pick([0, 1, 10, 100]),
      hardLimit: limited ? random.whole(1, this.#options.hardLimitMax) : 0,
      deleted: false,
      check: null,
      drain: null,
      proxyProtocol: this.#drawProxy(),
    };
  }

  #drawProxy(): RawBackend['proxyProtocol'] {
    if (this.#options.proxyProtocol === undefined) return null;
    return this.#random.pick([null, null, ...PROXY_PROTOCOLS]);
  }

  #publish(): SharedArrayBuffer {
    const problems: { reason: string }[] = [];
    const { buffer } = this.publisher.publish(this.#rows, problems as never[]);
    if (problems.length > 0) fail(`The publisher refused a row: ${problems[0]?.reason}`);
    const snapshot = openSnapshot(buffer);
    if (snapshot.backendEnd > BACKEND_INDEXES_MAX) fail('The run uses too many backend indexes');
    for (const { id, index } of this.publisher.currentBackends()) {
      const key = index * 0x1_0000 + (snapshot.incarnation[index] as number);
      const owner = this.#owners.get(key);
      if (owner !== undefined && owner !== id) fail(`${owner} and ${id} share an incarnation`);
      this.#owners.set(key, id);
    }
    this.snapshot = snapshot;
    return buffer;
  }

  /** Changes the rows at random; the snapshot to publish. */
  change(): SharedArrayBuffer {
    const random = this.#random;
    while (this.#owed > 0) {
      this.#owed--;
      this.#rows = [...this.#rows, this.#newRow()];
    }
    for (let changes = random.whole(1, 3); changes > 0; changes--) {
      if (this.#rows.length === 0) {
        this.#rows.push(this.#removed.pop() ?? this.#newRow());
        continue;
      }
      const at = random.below(this.#rows.length);
      const row = this.#rows[at] as RawBackend;
      this.#rows = this.#rows.slice();
      switch (random.below(9)) {
        case 0:
          this.#rows.splice(at, 1);
          // A redeployment: gone now, and another in its place next time, with the index if nobody holds it.
          if (random.chance(0.5)) this.#owed++;
          else this.#removed.push(row);
          break;
        case 1:
          // In the same place of the table, as a redeployment does it.
          this.#rows[at] = this.#newRow();
          break;
        case 2:
          if (this.#rows.length < this.#options.backends * 2) this.#rows.push(this.#newRow());
          break;
        case 3: {
          const back = this.#removed.pop();
          if (back !== undefined) this.#rows.push(back);
          break;
        }
        default:
          this.#rows[at] = this.#changed(row);
      }
    }
    return this.#publish();
  }

  #changed(row: RawBackend): RawBackend {
    const random = this.#random;
    switch (random.below(7)) {
      case 5:
      case 6:
        return { ...row, drain: row.drain === null || random.chance(0.3) ? this.#drain() : null };
      case 0:
        return { ...row, healthy: !row.healthy };
      case 1:
        return { ...row, deleted: !row.deleted };
      case 2:
        return { ...row, hardLimit: random.whole(0, this.#options.hardLimitMax) };
      case 3: {
        const softLimit = random.whole(0, 20);
        // The path to one in four turns bad, or good again: no draw of its own.
        if (softLimit % 4 === 0) this.#turnPath(row.id);
        return { ...row, weight: random.pick([0, 1, 3]), softLimit };
      }
      default:
        return {
          ...row,
          words: [0, 0, 0, ADDRESS_BASE + this.#newUid(row.id)],
          proxyProtocol: this.#drawProxy(),
        };
    }
  }

  #turnPath(id: string): void {
    const degraded = new Set(this.#degraded);
    if (!degraded.delete(id)) degraded.add(id);
    this.#degraded = degraded;
    this.publisher.degrade(degraded);
  }

  #drain(): RowDrain {
    const random = this.#random;
    if (random.chance(0.2)) return { closeAt: null, closeRate: null };
    // Some are over already, as for a proxy that was away.
    const closeAt = (this.#clock[0] as number) / 1000 + random.pick([-1, 0, 0, 0.2, 1, 3]);
    return { closeAt, closeRate: random.pick([null, null, 2, 20, 500]) };
  }

  /** As the last publication has them. */
  get rows(): readonly RawBackend[] {
    return this.#rows;
  }

  /** Closes or opens a gate (health, breaker, drain, path) of a random backend. */
  changeGate(): void {
    const { backendEnd } = this.snapshot;
    if (backendEnd === 0) return;
    const index = this.#random.below(backendEnd);
    const closed = this.#random.chance(0.4) ? 1 << this.#random.below(GATES) : 0;
    Atomics.store(this.#state.gate, index, closed);
  }

  /** The uid of an address, -1 when no backend ever had it. */
  uidOf(words: Uint32Array, offset: number): number {
    const uid = words[offset + 3] - ADDRESS_BASE;
    return uid >= 0 && uid < this.reachability.length ? uid : -1;
  }

  backendOfUid(uid: number): string {
    return this.#backendOfUid[uid] as string;
  }

  /** The backend an index and incarnation stand for; undefined when they never were published together. */
  backendOf(index: number, incarnation: number): string | undefined {
    return this.#owners.get(index * 0x1_0000 + incarnation);
  }
}
