// Turns routing rows into the numbers the data plane works with, and encodes them as one immutable
// snapshot. It owns every name: which index a backend id, an app or a region has, for the life of
// the process. A backend keeps its index while its id is in the rows. When the id goes, the index
// rests until no session uses it; then another id may have it, with the next incarnation, so that
// an old binding cannot reach the new backend. Rows that do not fit (too many backends, apps or
// regions) become problems, as bad rows do.

import { APPS_MAX, BACKENDS_MAX, REGIONS_MAX } from '../limits.ts';
import type { BackendState } from '../route/backend-state.ts';
import { resetBreaker } from '../route/breaker.ts';
import {
  COUNTRIES_COUNT,
  countryIndex,
  countryLatitude,
  countryLongitude,
  type RegionMap,
  regionIndex,
  withRegions,
} from '../route/regions.ts';
import { encodeSnapshot, type RoutingBackend } from '../route/snapshot.ts';
import { proxyVersion, type RawBackend, type RowProblem } from './routing-rows.ts';

interface PublisherOptions {
  readonly regionMap: RegionMap;
  /**
   * Names of this POP: a region (one that no country maps to is fine) and a country code or null.
   */
  readonly popRegion: string;
  readonly popCountry: string | null;
  readonly backendState: BackendState;
  /** Version of the PROXY header for backends whose row says nothing; absent or 0 = none. */
  readonly proxyProtocol?: number;
  /** Called when an id that was not there before gets an index, but for those of the first publication. */
  readonly onNewBackend?: (index: number) => void;
}

interface Publication {
  readonly buffer: SharedArrayBuffer;
  /** Counts from 1, up by one with every change. */
  readonly version: number;
  /** False: the rows say what the last publication says, and `buffer` is that one. */
  readonly changed: boolean;
}

/** An index whose id has left the rows, `version` being the first publication without it. */
interface RestingIndex {
  readonly index: number;
  readonly version: number;
}

const ANY_APP = '*';

/** Latitude and longitude in pairs by country index, as the snapshot carries them. */
const COUNTRY_COORDINATES = Float32Array.from({ length: (COUNTRIES_COUNT + 1) * 2 }, (_, at) =>
  at % 2 === 0 ? countryLatitude(at >> 1) : countryLongitude(at >> 1),
);

function regionCoordinates(map: RegionMap): Float32Array {
  return Float32Array.from({ length: map.names.length * 2 }, (_, at) =>
    Number(at % 2 === 0 ? map.latitude[at >> 1] : map.longitude[at >> 1]),
  );
}

export class Publisher {
  readonly #options: PublisherOptions;
  #regions: RegionMap;
  #publication: Publication | null = null;
  #rows: readonly RawBackend[] = [];
  /** Ids, as the next publication is to have them, and as the last one has them. */
  #degraded: ReadonlySet<string> = new Set();
  #degradedPublished = this.#degraded;
  #problems: readonly RowProblem[] = [];
  /** Those of them that came with the rows. */
  #problemsGiven: readonly RowProblem[] = [];
  readonly #backendIndexes = new Map<string, number>();
  readonly #backendIds: string[] = [];
  /** By index: the id that had it before. */
  readonly #formerIds: string[] = [];
  readonly #incarnations = new Uint16Array(BACKENDS_MAX);
  /** By id, longest at rest first. */
  readonly #resting = new Map<string, RestingIndex>();
  readonly #appIndexes = new Map<string, number>([[ANY_APP, 0]]);
  readonly #appNames: string[] = [ANY_APP];

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#regions = withRegions(options.regionMap, [options.popRegion]);
  }

  /** The id an index has, or had until it rests; undefined when it was never given out. */
  backendId(index: number): string | undefined {
    return this.#backendIds[index];
  }

  /** The id an index stood for in that incarnation, while no more than one other had it since; '' after. */
  backendName(index: number, incarnation: number): string {
    const behind = ((this.#incarnations[index] as number) - incarnation) & 0xffff;
    const ids = behind === 0 ? this.#backendIds : behind === 1 ? this.#formerIds : [];
    return ids[index] ?? '';
  }

  /** The index of a backend of the last publication. */
  backendIndex(id: string): number | undefined {
    return this.#backendIndexes.get(id);
  }

  /** Which of the ids that an index has had is meant by it now. */
  incarnation(index: number): number {
    return this.#incarnations[index] as number;
  }

  /**
   * The index of an app, given out at first use: a listener may name an app that has no backend
   * yet.
   */
  appIndex(name: string): number {
    const index = this.#appIndexOrNull(name);
    if (index === null) {
      throw new RangeError(`Cannot add app "${name}": there are ${APPS_MAX - 1} already`);
    }
    return index;
  }

  appName(index: number): string | undefined {
    return this.#appNames[index];
  }

  regionName(index: number): string | undefined {
    return this.#regions.names[index];
  }

  /** Version of the last publication, 0 before the first. */
  get version(): number {
    return this.#publication?.version ?? 0;
  }

  /** All rows of the last publication, by id, with or without an index. */
  get rows(): readonly RawBackend[] {
    return this.#rows;
  }

  /** What was wrong with rows at the last publication. */
  get problems(): readonly RowProblem[] {
    return this.#problems;
  }

  /** The default map or the operator's, with the regions that rows and POP added. */
  get regionMap(): RegionMap {
    return this.#regions;
  }

  /** The backends of the last publication that have an index. */
  currentBackends(): { readonly id: string; readonly index: number }[] {
    return this.#rows.flatMap(({ id }) => {
      const index = this.#backendIndexes.get(id);
      return index === undefined ? [] : [{ id, index }];
    });
  }

  /** The backends that serve sessions: those of the last publication, and removed ones that still have some. By index. */
  liveBackends(): { readonly id: string; readonly index: number }[] {
    const { active } = this.#options.backendState;
    return this.#backendIds.flatMap((id, index) => {
      const isCurrent = this.#backendIndexes.get(id) === index;
      return isCurrent || Atomics.load(active, index) > 0 ? [{ id, index }] : [];
    });
  }

  /** From the next publication on these backends, and no others, are one tier further back. */
  degrade(ids: ReadonlySet<string>): void {
    this.#degraded = ids;
  }

  /** The same rows again, for what degrade() changed. */
  republish(): Publication {
    return this.publish(this.#rows, [...this.#problemsGiven]);
  }

  /**
   * Encodes `rows`, or finds that nothing changed. Rows that do not fit are added to `problems`.
   */
  publish(rows: readonly RawBackend[], problems: RowProblem[]): Publication {
    const last = this.#publication;
    this.#problemsGiven = [...problems];
    this.#problems = problems;
    if (last && this.#degraded === this.#degradedPublished && sameRows(rows, this.#rows)) {
      // Their check columns may differ: workers do not see those.
      this.#rows = rows;
      return { ...last, changed: false };
    }
    const version = (last?.version ?? 0) + 1;
    this.#restIndexes(rows, version);
    this.#addRegions(rows);

    const backends: RoutingBackend[] = [];
    const free = this.#reusableIds(version);
    for (const row of rows) {
      const backend = this.#encodable(row, free, problems);
      if (backend) backends.push(backend);
    }
    const { popRegion, popCountry } = this.#options;
    const buffer = encodeSnapshot({
      version,
      popRegion: regionIndex(this.#regions, popRegion),
      popCountry: popCountry === null ? 0 : countryIndex(popCountry),
      countryRegion: this.#regions.countryRegion,
      countryCoordinates: COUNTRY_COORDINATES,
      regionCoordinates: regionCoordinates(this.#regions),
      backends,
    });
    this.#rows = rows;
    this.#degradedPublished = this.#degraded;
    this.#publication = { buffer, version, changed: true };
    return this.#publication;
  }

  /** The row as numbers; null, with a problem, when it does not fit. */
  #encodable(
    row: RawBackend,
    free: Iterator<string>,
    problems: RowProblem[],
  ): RoutingBackend | null {
    const refuse = (column: string, value: string, reason: string): null => {
      problems.push({ id: row.id, column, value: JSON.stringify(value), reason });
      return null;
    };
    const region = regionIndex(this.#regions, row.region);
    if (region < 0) return refuse('region', row.region, `there are ${REGIONS_MAX} regions already`);
    const app = this.#appIndexOrNull(row.app);
    if (app === null) return refuse('app', row.app, `there are ${APPS_MAX - 1} apps already`);
    const index = this.#backendIndex(row.id, free);
    if (index === null) return refuse('id', row.id, `there are ${BACKENDS_MAX} backends already`);
    return {
      index,
      incarnation: this.#incarnations[index] as number,
      app,
      region,
      // Without a country of its own a backend is in its region's home country, if that has one.
      country:
        row.country === null
          ? (this.#regions.homeCountry[region] as number)
          : countryIndex(row.country),
      family: row.family,
      address: row.words,
      port: row.port,
      weight: row.weight,
      softLimit: row.softLimit,
      hardLimit: row.hardLimit,
      enabled: row.healthy && !row.deleted,
      draining: row.drain !== null,
      degraded: this.#degraded.has(row.id),
      proxyProtocol: proxyVersion(row, this.#options.proxyProtocol ?? 0),
    };
  }

  #appIndexOrNull(name: string): number | null {
    const known = this.#appIndexes.get(name);
    if (known !== undefined) return known;
    if (this.#appNames.length >= APPS_MAX) return null;
    const index = this.#appNames.push(name) - 1;
    this.#appIndexes.set(name, index);
    return index;
  }

  #addRegions(rows: readonly RawBackend[]): void {
    const extra = new Set<string>();
    for (const row of rows) {
      if (regionIndex(this.#regions, row.region) < 0) extra.add(row.region);
    }
    if (extra.size === 0) return;
    const room = REGIONS_MAX - this.#regions.names.length;
    this.#regions = withRegions(this.#regions, [...extra].slice(0, room));
  }

  #restIndexes(rows: readonly RawBackend[], version: number): void {
    const present = new Set<string>();
    for (const row of rows) present.add(row.id);
    for (const [id, index] of this.#backendIndexes) {
      if (present.has(id)) continue;
      this.#backendIndexes.delete(id);
      this.#resting.set(id, { index, version });
    }
  }

  #backendIndex(id: string, free: Iterator<string>): number | null {
    const known = this.#backendIndexes.get(id);
    if (known !== undefined) return known;
    const rested = this.#restingIndex(id);
    const isNew = rested === null;
    const index = rested ?? this.#reusedIndex(free) ?? this.#freshIndex();
    if (index === null) return null;
    this.#backendIndexes.set(id, index);
    if (isNew) {
      resetBreaker(this.#options.backendState, index);
      if (this.#publication !== null) this.#options.onNewBackend?.(index);
    }
    this.#backendIds[index] = id;
    return index;
  }

  /**
   * The index this id had before: a row that was wrong for a moment, or a table written anew, must
   * not lose its count of open sessions (its hard limit would no longer hold) nor its bindings.
   * Same id, same incarnation.
   */
  #restingIndex(id: string): number | null {
    const resting = this.#resting.get(id);
    if (resting === undefined) return null;
    this.#resting.delete(id);
    return resting.index;
  }

  /**
   * The ids whose index may go to another, longest at rest first: no session uses it, and it did
   * not go with this very publication. Until workers take the new snapshot they can still choose an
   * index that goes with it.
   */
  #reusableIds(version: number): Iterator<string> {
    const { active } = this.#options.backendState;
    // Ordered after the release of the last session: a 0 here means its worker is done with the
    // index.
    return [...this.#resting]
      .filter(([, at]) => at.version < version && Atomics.load(active, at.index) === 0)
      .map(([id]) => id)
      .values();
  }

  #reusedIndex(free: Iterator<string>): number | null {
    for (let next = free.next(); !next.done; next = free.next()) {
      const index = this.#restingIndex(next.value);
      // Null when its own id came back first.
      if (index === null) continue;
      this.#formerIds[index] = next.value;
      this.#incarnations[index] = ((this.#incarnations[index] as number) + 1) & 0xffff;
      return index;
    }
    return null;
  }

  #freshIndex(): number | null {
    const index = this.#backendIds.length;
    if (index >= BACKENDS_MAX) return null;
    this.#backendIds.push('');
    return index;
  }
}

export function createPublisher(options: PublisherOptions): Publisher {
  return new Publisher(options);
}

function sameRows(left: readonly RawBackend[], right: readonly RawBackend[]): boolean {
  if (left.length !== right.length) return false;
  return left.every((a, at) => {
    const b = right[at] as RawBackend;
    return (
      a.id === b.id &&
      a.app === b.app &&
      a.region === b.region &&
      a.country === b.country &&
      a.family === b.family &&
      a.port === b.port &&
      a.healthy === b.healthy &&
      a.deleted === b.deleted &&
      (a.drain === null) === (b.drain === null) &&
      a.weight === b.weight &&
      a.softLimit === b.softLimit &&
      a.hardLimit === b.hardLimit &&
      a.proxyProtocol === b.proxyProtocol &&
      a.words.every((word, index) => word === b.words[index])
    );
  });
}
