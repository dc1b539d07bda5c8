// Finds open sessions in the memory that workers share (proxy/sessions.ts), without a word to the workers: the largest by
// bytes or age, and how many match. A slot is read while its worker may use it again; its generation before and after tells.
// A scan of a million slots is cut into slices, so that the event loop stays free.

import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  openSharedSessions,
  type SharedSessions,
  STATE_CONNECTING,
  STATE_RELAYING,
} from '../proxy/sessions.ts';
import { openWorkerStats, STAT_SLOTS } from '../proxy/stats.ts';
import type { WorkerPool } from './worker-pool.ts';

/** Slots looked at in one turn of the event loop: below a millisecond. */
const SLICE_SLOTS = 32_768;

/** Undefined: any. */
export interface SessionFilter {
  /** Index of the backend. */
  readonly backend?: number | undefined;
  readonly country?: number | undefined;
  readonly app?: number | undefined;
}

/** One open session, as it was for a moment. */
export interface OpenSession {
  readonly worker: number;
  readonly slot: number;
  readonly isConnecting: boolean;
  readonly words: readonly [number, number, number, number];
  readonly port: number;
  readonly country: number;
  readonly app: number;
  /** -1 = none. */
  readonly backend: number;
  readonly acceptedAt: number;
  readonly activityAt: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** The sessions with the highest keys so far: a heap with the lowest of them on top. */
interface Ranking {
  readonly keys: Float64Array;
  readonly workers: Uint16Array;
  readonly slots: Int32Array;
  count: number;
}

function isOpen(state: number): boolean {
  return state === STATE_CONNECTING || state === STATE_RELAYING;
}

function swap(ranking: Ranking, one: number, two: number): void {
  for (const array of [ranking.keys, ranking.workers, ranking.slots]) {
    const held = array[one] as number;
    array[one] = array[two] as number;
    array[two] = held;
  }
}

function set(ranking: Ranking, at: number, key: number, worker: number, slot: number): void {
  ranking.keys[at] = key;
  ranking.workers[at] = worker;
  ranking.slots[at] = slot;
}

function offer(ranking: Ranking, key: number, worker: number, slot: number): void {
  const { keys } = ranking;
  const isFull = ranking.count === keys.length;
  if (isFull && key <= (keys[0] as number)) return;
  let at = isFull ? 0 : ranking.count++;
  set(ranking, at, key, worker, slot);
  if (!isFull) {
    for (let up = (at - 1) >> 1; at > 0 && (keys[up] as number) > key; up = (at - 1) >> 1) {
      swap(ranking, at, up);
      at = up;
    }
    return;
  }
  for (;;) {
    let least = at;
    for (const child of [at * 2 + 1, at * 2 + 2]) {
      if (child < ranking.count && (keys[child] as number) < (keys[least] as number)) least = child;
    }
    if (least === at) return;
    swap(ranking, at, least);
    at = least;
  }
}

function matches(sessions: SharedSessions, slot: number, filter: SessionFilter): boolean {
  const { backend, country, app } = filter;
  if (backend !== undefined && (sessions.backend[slot] as number) - 1 !== backend) return false;
  if (country !== undefined && sessions.country[slot] !== country) return false;
  return app === undefined || sessions.app[slot] === app;
}

/** Null when another session has the slot by now, or none. */
function readSession(sessions: SharedSessions, worker: number, slot: number): OpenSession | null {
  const generation = sessions.generation[slot];
  const state = sessions.state[slot] as number;
  const [w0, w1, w2, w3] = sessions.clientWords.subarray(slot * 4, slot * 4 + 4);
  const session: OpenSession = {
    worker,
    slot,
    isConnecting: state === STATE_CONNECTING,
    words: [w0 as number, w1 as number, w2 as number, w3 as number],
    port: sessions.clientPort[slot] as number,
    country: sessions.country[slot] as number,
    app: sessions.app[slot] as number,
    backend: (sessions.backend[slot] as number) - 1,
    acceptedAt: sessions.acceptedAt[slot] as number,
    activityAt: sessions.activityAt[slot] as number,
    bytesUp: sessions.bytes[slot * 2] as number,
    bytesDown: sessions.bytes[slot * 2 + 1] as number,
  };
  return isOpen(state) && sessions.generation[slot] === generation ? session : null;
}

/** The first `count` matching sessions, most bytes or oldest first, and how many match. */
export async function scanSessions(
  pool: WorkerPool,
  filter: SessionFilter,
  order: 'bytes' | 'age',
  count: number,
): Promise<{ readonly total: number; readonly sessions: readonly OpenSession[] }> {
  const ranking: Ranking = {
    keys: new Float64Array(count),
    workers: new Uint16Array(count),
    slots: new Int32Array(count),
    count: 0,
  };
  const workers = pool.views().map(({ id, stats, sessions }) => ({
    id,
    slots: openWorkerStats(stats).totals[STAT_SLOTS] as number,
    sessions: openSharedSessions(sessions),
  }));
  let total = 0;
  for (const [at, { slots, sessions }] of workers.entries()) {
    const { state, bytes, acceptedAt } = sessions;
    for (let slot = 0; slot < slots; slot++) {
      if (slot % SLICE_SLOTS === SLICE_SLOTS - 1) await nextTurn();
      if (!isOpen(state[slot] as number) || !matches(sessions, slot, filter)) continue;
      total++;
      const key =
        order === 'age'
          ? -(acceptedAt[slot] as number)
          : (bytes[slot * 2] as number) + (bytes[slot * 2 + 1] as number);
      offer(ranking, key, at, slot);
    }
  }
  const ranks = Array.from({ length: ranking.count }, (_, at) => at);
  ranks.sort((one, two) => (ranking.keys[two] as number) - (ranking.keys[one] as number));
  const sessions = ranks.flatMap((rank) => {
    const worker = workers[ranking.workers[rank] as number];
    if (worker === undefined) return [];
    return readSession(worker.sessions, worker.id, ranking.slots[rank] as number) ?? [];
  });
  return { total, sessions };
}
