// Watches routing.db and hands over its rows after every change, within 100 ms of the commit. One
// timer drives everything: events only bring the next check forward, so a burst of commits costs
// one read per `READ_GAP_MS` and the last commit is always read. A failed check keeps the last good
// rows, is retried soon, and is reported once per kind of failure; a lock or a half-written file
// that clears up quickly is not reported at all.

import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errorMessage, ProxyError } from '../base/errors.ts';
import {
  closeRoutingDb,
  fileState,
  openRoutingDb,
  type RoutingDb,
  type RoutingRows,
  readRouting,
  resolvedPath,
  routingDbError,
  routingDbState,
} from './routing-db.ts';

interface RoutingWatchOptions {
  readonly path: string;
  /** The safety net: a check at least this often, whatever the watch says. */
  readonly pollMs: number;
  onChange(rows: RoutingRows): void;
  /** Once per state of the file, not once per try. */
  onError(error: ProxyError): void;
  /**
   * An open database whose rows are already in use: taken over, so that its rows are not read a
   * second time.
   */
  readonly db?: RoutingDb;
}

/** One commit causes several events (journal, file, journal again); they become one check. */
const EVENT_DELAY_MS = 5;
/**
 * The least time between the end of one read and the next: what is left of 100 ms for a read of
 * 10,000 rows.
 */
const READ_GAP_MS = 40;
const LOCKED_RETRY_MS = 20;
const FAILED_RETRY_MS = 250;
/** A copy over the file or a short lock is no news; after this it is. */
const FAILED_REPORT_MS = 200;
const LOCKED_REPORT_MS = 1000;

/** One directory under watch; `inode` tells when the path leads to another directory. */
interface DirectoryWatch {
  readonly watcher: FSWatcher;
  readonly inode: bigint;
}

class RoutingWatch {
  readonly #options: RoutingWatchOptions;
  readonly #directories = new Map<string, DirectoryWatch>();
  #db: RoutingDb | null;
  #timer: NodeJS.Timeout | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #readEndMs = Number.NEGATIVE_INFINITY;
  #failedSinceMs: number | null = null;
  #reported = '';
  #closed = false;

  constructor(options: RoutingWatchOptions) {
    this.#options = options;
    this.#db = options.db ?? null;
    // From here on nothing may wait for a lock: this is the thread that starts, drains and answers.
    this.#db?.handle.exec('PRAGMA busy_timeout = 0');
    this.#watchDirectories();
    this.#schedule(0);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const directory of this.#directories.values()) directory.watcher.close();
    this.#directories.clear();
    this.#closeDb();
  }

  #closeDb(): void {
    if (this.#db) closeRoutingDb(this.#db);
    this.#db = null;
  }

  /** Brings the next check forward to `delayMs` from now; never pushes it back. */
  #schedule(delayMs: number): void {
    const now = performance.now();
    const due = Math.max(now + delayMs, this.#readEndMs + READ_GAP_MS);
    if (this.#closed || due >= this.#timerDueMs) return;
    clearTimeout(this.#timer);
    this.#timerDueMs = due;
    this.#timer = setTimeout(() => this.#check(), due - now);
    // The watch alone must not keep a process alive.
    this.#timer.unref();
  }

  #check(): void {
    this.#timerDueMs = Number.POSITIVE_INFINITY;
    try {
      this.#watchDirectories();
      this.#readIfChanged();
      this.#failedSinceMs = null;
      this.#reported = '';
      this.#schedule(this.#options.pollMs);
    } catch (error) {
      this.#failed(routingDbError(this.#options.path, 'read', error));
    }
  }

  #readIfChanged(): void {
    const db = this.#db;
    const state = db ? routingDbState(db) : 'replaced';
    // After a reported failure the rows are handed over again even if equal: the owner learns that
    // it is over.
    if (state === 'same' && this.#reported === '') return;
    if (state === 'replaced') {
      this.#closeDb();
      this.#db = openRoutingDb(this.#options.path, { busyTimeoutMs: 0 });
    }
    const rows = readRouting(this.#db as RoutingDb);
    this.#readEndMs = performance.now();
    this.#options.onChange(rows);
  }

  #failed(error: ProxyError): void {
    const locked = error.code === 'ERR_ROUTING_DB_LOCKED';
    // A lock leaves the open handle good; after anything else its cached pages are not to be
    // trusted.
    if (!locked) this.#closeDb();
    const now = performance.now();
    this.#failedSinceMs ??= now;
    const state = `${error.code} ${error.message}`;
    const patienceMs = locked ? LOCKED_REPORT_MS : FAILED_REPORT_MS;
    if (state !== this.#reported && now - this.#failedSinceMs >= patienceMs) {
      this.#reported = state;
      this.#options.onError(error);
    }
    const young = now - this.#failedSinceMs < LOCKED_REPORT_MS;
    this.#schedule(young ? LOCKED_RETRY_MS : FAILED_RETRY_MS);
  }

  /** Watches the directory of the path and, behind a symbolic link, the one of the file itself. */
  #watchDirectories(): void {
    const { path } = this.#options;
    const directory = dirname(path);
    const target = resolvedPath(path);
    const linked = target !== path && target !== join(resolvedPath(directory), basename(path));
    // A link may lead over another link (a mounted ConfigMap swaps `..data`): then every name
    // counts.
    const wanted = new Map([[directory, linked ? '' : basename(path)]]);
    if (linked && !wanted.has(dirname(target))) wanted.set(dirname(target), basename(target));
    for (const [watched, { watcher }] of this.#directories) {
      if (wanted.has(watched)) continue;
      watcher.close();
      this.#directories.delete(watched);
    }
    for (const [wantedDirectory, prefix] of wanted) this.#watchDirectory(wantedDirectory, prefix);
  }

  #watchDirectory(directory: string, prefix: string): void {
    const present = this.#directories.get(directory);
    let inode: bigint;
    try {
      inode = fileState(directory).inode;
    } catch {
      // Gone: the check that follows reports the missing file, and its retries come back here.
      present?.watcher.close();
      this.#directories.delete(directory);
      return;
    }
    if (present?.inode === inode) return;
    present?.watcher.close();
    try {
      const watcher = watch(directory, { persistent: false }, (_event, name) => {
        if (name === null || name.startsWith(prefix)) this.#schedule(EVENT_DELAY_MS);
      });
      watcher.on('error', () => this.#schedule(EVENT_DELAY_MS));
      this.#directories.set(directory, { watcher, inode });
    } catch (error) {
      this.#reportUnwatched(directory, inode, error);
    }
  }

  /**
   * No watch to be had (inotify limit, file system without it): the poll goes on alone, and says so
   * once.
   */
  #reportUnwatched(directory: string, inode: bigint, cause: unknown): void {
    const watcher = { close() {} } as FSWatcher;
    this.#directories.set(directory, { watcher, inode });
    const seconds = this.#options.pollMs / 1000;
    const instead = `changes are found by polling every ${seconds} s`;
    const message = `Cannot watch directory "${directory}": ${errorMessage(cause)}; ${instead}`;
    this.#options.onError(
      new ProxyError('ERR_ROUTING_DB_WATCH', message, { retry: 'always', cause }),
    );
  }
}

/** Starts watching; the first check runs at once. Call `close` to stop. */
export function watchRoutingDb(options: RoutingWatchOptions): { close(): void } {
  return new RoutingWatch(options);
}
