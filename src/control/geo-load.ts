// Loads the geo table (embedded or from a file) and the region map, and hot-swaps the geo table
// when its file changes. A loaded table is an immutable shared buffer for all workers. A bad file
// never replaces a good table: it is reported once, and read again when it changes. Called by the
// supervisor.

import {
  closeSync,
  constants,
  type FSWatcher,
  fstatSync,
  openSync,
  readSync,
  statSync,
  watch,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { allocateGeoBuffer, GEO_FILE_OFFSET } from '../route/geo-table.ts';
import { compileMmdb } from '../route/mmdb.ts';
import { buildRegionMap, defaultRegionMap, type RegionMap } from '../route/regions.ts';

const EMBEDDED = '@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb';

/** The largest city databases are below 200 MB; one read call takes at most 2 GiB. */
const FILE_BYTES_MAX = 1024 * 1024 * 1024;

/** A file must look the same for this long before it is read: writers need many writes. */
const SETTLE_MS = 100;

/**
 * Safety net for file systems without change events, and for a directory that is itself replaced.
 */
const POLL_MS = 5000;

const STATE_MISSING = 'missing';

export interface LoadedGeoTable {
  /** For openGeoTable, in any thread. */
  readonly buffer: SharedArrayBuffer;
  /** Path of the file, or the package file of the embedded database. */
  readonly source: string;
  /** When the database was built, seconds since 1970. */
  readonly buildEpoch: number;
  /** Its type and description, as it says itself. */
  readonly description: string;
  /** Which state of the file this is; watchGeoTable compares it. */
  readonly state: string;
}

/** What geo-load-worker.ts posts. */
export type GeoLoadAnswer =
  | { readonly loaded: LoadedGeoTable }
  | { readonly failed: { readonly code: string; readonly message: string } };

export interface GeoWatchOptions {
  /** null is the embedded database: it never changes, and nothing is watched. */
  readonly path: string | null;
  /** What is in use now; without it, the file as it is when the watch starts counts as loaded. */
  readonly current?: LoadedGeoTable;
  /** A new table is ready; the old one may be dropped. */
  readonly onTable: (loaded: LoadedGeoTable) => void;
  /** The file is missing or bad: called once per distinct state of it. */
  readonly onError: (error: ProxyError) => void;
  readonly pollMs?: number;
  readonly settleMs?: number;
}

/** Reads and compiles a database; null is the embedded one. Throws ProxyError ERR_GEO_DATABASE. */
export function loadGeoTable(path: string | null): LoadedGeoTable {
  const file = path ?? fileURLToPath(import.meta.resolve(EMBEDDED));
  try {
    const { buffer, state } = readIntoBuffer(file);
    const compiled = compileMmdb(buffer, path === null);
    const { buildEpoch, databaseType, description } = compiled.metadata;
    return {
      buffer: compiled.buffer,
      source: path ?? EMBEDDED,
      buildEpoch,
      description: description === '' ? databaseType : `${databaseType}: ${description}`,
      state,
    };
  } catch (error) {
    const reason = errorMessage(error).replace(/^Cannot read country database: /, '');
    throw new ProxyError('ERR_GEO_DATABASE', `Cannot read country database "${file}": ${reason}`, {
      cause: error,
    });
  }
}

/**
 * Reads a file to its place in a geo buffer: no copy follows, which saves 3 ms of the time to
 * start.
 */
function readIntoBuffer(file: string): { buffer: SharedArrayBuffer; state: string } {
  // Not blocking, so that a named pipe is refused below and not waited for.
  const fd = openSync(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const stats = fstatSync(fd, { bigint: true });
    if (!stats.isFile()) throw new Error('not a regular file');
    const bytes = Number(stats.size);
    if (bytes > FILE_BYTES_MAX) {
      throw new Error(`${bytes} bytes are too many, at most ${FILE_BYTES_MAX}`);
    }
    const buffer = allocateGeoBuffer(bytes);
    const target = new Uint8Array(buffer, GEO_FILE_OFFSET);
    let filled = 0;
    while (filled < bytes) {
      const count = readSync(fd, target, filled, bytes - filled, filled);
      if (count === 0) break;
      filled += count;
    }
    const state = stateOf(stats);
    if (filled < bytes || stateOf(fstatSync(fd, { bigint: true })) !== state) {
      throw new Error('it changed while it was read');
    }
    return { buffer, state };
  } finally {
    closeSync(fd);
  }
}

interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** Differs after a rename-over (inode) as after a write in place (times, size). */
function stateOf({ dev, ino, size, mtimeNs, ctimeNs }: FileIdentity): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

function stateOfPath(path: string): string {
  try {
    return stateOf(statSync(path, { bigint: true }));
  } catch {
    return STATE_MISSING; // or unreadable, which to us is the same
  }
}

/** Watches a database file until `close()`. */
export function watchGeoTable(options: GeoWatchOptions): Disposable & { close(): void } {
  return new GeoWatch(options);
}

class GeoWatch implements Disposable {
  readonly #options: GeoWatchOptions;
  /** State that was loaded, or whose error was reported: nothing to do while the file has it. */
  #handled: string;
  /** State at the last look; the file is read once two looks agree. */
  #seen: string;
  #settleTimer: NodeJS.Timeout | undefined;
  #pollTimer: NodeJS.Timeout | undefined;
  #directory: FSWatcher | undefined;
  #worker: Worker | undefined;
  #closed = false;

  constructor(options: GeoWatchOptions) {
    this.#options = options;
    this.#handled =
      options.path === null ? '' : (options.current?.state ?? stateOfPath(options.path));
    this.#seen = this.#handled;
    if (options.path === null) return;
    this.#pollTimer = setInterval(() => this.#poll(), options.pollMs ?? POLL_MS);
    this.#poll();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#settleTimer);
    clearInterval(this.#pollTimer);
    this.#directory?.close();
    void this.#worker?.terminate();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #poll(): void {
    if (this.#directory === undefined) this.#watchDirectory();
    if (this.#settleTimer === undefined) this.#look();
  }

  /**
   * The directory, not the file: a watch on a file stays with the old one when it is renamed over.
   */
  #watchDirectory(): void {
    const path = this.#options.path as string;
    const drop = () => {
      this.#directory?.close();
      this.#directory = undefined;
    };
    try {
      this.#directory = watch(dirname(path), (event, name) => {
        // A directory that is itself moved or deleted reports its own name; the poll starts anew.
        if (event === 'rename' && name === basename(dirname(path))) drop();
        if (name === null || name === basename(path)) this.#lookLater();
      });
      this.#directory.on('error', drop);
    } catch {
      this.#directory = undefined; // no such directory, or no watches left: the poll still works
    }
  }

  #lookLater(): void {
    if (this.#closed || this.#settleTimer !== undefined) return;
    this.#settleTimer = setTimeout(() => {
      this.#settleTimer = undefined;
      this.#look();
    }, this.#options.settleMs ?? SETTLE_MS);
  }

  #look(): void {
    if (this.#closed || this.#worker !== undefined) return; // after a load comes another look
    const state = stateOfPath(this.#options.path as string);
    const settled = state === this.#seen;
    this.#seen = state;
    if (state === this.#handled) return;
    if (!settled) this.#lookLater();
    else if (state === STATE_MISSING) this.#fail(state, 'ERR_GEO_DATABASE', this.#missing());
    else this.#load(state);
  }

  #missing(): string {
    return `Cannot read country database "${this.#options.path}": the file is gone`;
  }

  #load(state: string): void {
    const url = new URL('./geo-load-worker.ts', import.meta.url);
    const worker = new Worker(url, { workerData: this.#options.path });
    this.#worker = worker;
    let answer: GeoLoadAnswer | undefined;
    worker.on('message', (message: GeoLoadAnswer) => {
      answer = message;
    });
    worker.on('error', (error) => {
      answer = { failed: { code: 'ERR_GEO_DATABASE', message: errorMessage(error) } };
    });
    worker.on('exit', () => {
      this.#worker = undefined;
      if (this.#closed) return;
      if (answer !== undefined) this.#finish(state, answer);
      this.#look(); // it may have changed meanwhile
    });
  }

  #finish(state: string, answer: GeoLoadAnswer): void {
    if ('loaded' in answer) {
      this.#handled = answer.loaded.state;
      this.#options.onTable(answer.loaded);
    } else if (stateOfPath(this.#options.path as string) === state) {
      this.#fail(state, answer.failed.code, answer.failed.message);
    } // else what was read is not there any more: the next look decides
  }

  #fail(state: string, code: string, message: string): void {
    this.#handled = state;
    this.#options.onError(new ProxyError(code, message));
  }
}

/**
 * Region map from a TOML file with a table `[countries]` of country = "region"; null is the default
 * map. Throws ProxyError ERR_REGION_MAP with one line per problem.
 */
export async function loadRegionMap(path: string | null): Promise<RegionMap> {
  if (path === null) return defaultRegionMap();
  try {
    const text = await readFile(path, 'utf8');
    // Loaded only when needed: most starts have no such file, and the time to start is budgeted.
    const { parse } = await import('smol-toml');
    const { countries = {}, ...others } = parse(text);
    const unknown = Object.keys(others).map(
      (key) => `Cannot use key "${key}": only [countries] is known`,
    );
    if (unknown.length > 0) throw new RangeError(unknown.join('\n'));
    if (typeof countries !== 'object' || Array.isArray(countries) || countries instanceof Date) {
      throw new TypeError('Cannot use "countries": it must be a table of country = "region"');
    }
    return buildRegionMap(countries as Record<string, string>);
  } catch (error) {
    const lines = errorMessage(error).trimEnd().split('\n');
    const message = lines.map((line) => `Region map "${path}": ${line}`).join('\n');
    throw new ProxyError('ERR_REGION_MAP', message, { source: 'usage', cause: error });
  }
}
