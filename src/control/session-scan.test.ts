import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  openSharedSessions,
  STATE_CLOSING,
  STATE_CONNECTING,
  STATE_FREE,
  STATE_RELAYING,
  sharedSessionsBytes,
} from '../proxy/sessions.ts';
import { createWorkerStats, openWorkerStats, STAT_SLOTS } from '../proxy/stats.ts';
import { scanSessions } from './session-scan.ts';
import type { WorkerPool } from './worker-pool.ts';

const CAPACITY = 70_000;
const SLOTS = 66_000;
const STATES = [STATE_FREE, STATE_CONNECTING, STATE_RELAYING, STATE_RELAYING, STATE_CLOSING];

interface Expected {
  readonly worker: number;
  readonly slot: number;
  readonly backend: number;
  readonly country: number;
  readonly bytes: number;
  readonly acceptedAt: number;
}

/** Two workers with slots in every state: more than one slice each, and something stale above the used ones. */
function setUp() {
  let random = 12_345;
  const below = (end: number): number => {
    random = (Math.imul(random, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return random % end;
  };
  const open: Expected[] = [];
  const workers = [1, 2].map((id) => {
    const sessions = new SharedArrayBuffer(sharedSessionsBytes(CAPACITY));
    const stats = createWorkerStats();
    openWorkerStats(stats).totals[STAT_SLOTS] = SLOTS;
    const view = openSharedSessions(sessions);
    for (let slot = 0; slot < CAPACITY; slot++) {
      const state = slot < SLOTS ? (STATES[below(STATES.length)] as number) : STATE_RELAYING;
      view.state[slot] = state;
      view.backend[slot] = below(4);
      view.country[slot] = below(3);
      view.bytes[slot * 2] = below(1_000_000);
      view.bytes[slot * 2 + 1] = below(1_000_000);
      // No two alike, so that there is one right order.
      view.acceptedAt[slot] = slot * 2 + id + 0.5;
      view.clientPort[slot] = slot & 0xffff;
      if (slot >= SLOTS || (state !== STATE_CONNECTING && state !== STATE_RELAYING)) continue;
      open.push({
        worker: id,
        slot,
        backend: (view.backend[slot] as number) - 1,
        country: view.country[slot] as number,
        bytes: (view.bytes[slot * 2] as number) + (view.bytes[slot * 2 + 1] as number),
        acceptedAt: view.acceptedAt[slot] as number,
      });
    }
    return { id, sessions, stats, engine: '', phase: 'running', replacements: 0 };
  });
  const pool = { views: () => workers } as unknown as WorkerPool;
  return { pool, open, workers };
}

test('scanSessions() finds the same sessions, in the same order, as sorting all of them', async () => {
  const { pool, open } = setUp();
  const filters = [{}, { backend: 1 }, { country: 2 }, { backend: 0, country: 0 }, { app: 7 }];
  for (const filter of filters) {
    const matching = open.filter(
      (session) =>
        (filter.backend === undefined || session.backend === filter.backend) &&
        (filter.country === undefined || session.country === filter.country) &&
        filter.app === undefined,
    );
    for (const count of [1, 2, 100, 1000]) {
      const largest = matching.toSorted((one, two) => two.bytes - one.bytes).slice(0, count);
      const byBytes = await scanSessions(pool, filter, 'bytes', count);
      assert.equal(byBytes.total, matching.length);
      assert.deepEqual(
        byBytes.sessions.map(({ bytesUp, bytesDown }) => bytesUp + bytesDown),
        largest.map(({ bytes }) => bytes),
      );
      const oldest = matching.toSorted((one, two) => one.acceptedAt - two.acceptedAt);
      const byAge = await scanSessions(pool, filter, 'age', count);
      assert.deepEqual(
        byAge.sessions.map(({ worker, slot }) => [worker, slot]),
        oldest.slice(0, count).map(({ worker, slot }) => [worker, slot]),
      );
    }
  }
});

test('scanSessions() leaves out what ends while it looks', async () => {
  const { pool, workers } = setUp();
  const scanning = scanSessions(pool, {}, 'age', 10);
  // The first slice has been looked at by now.
  const { state } = openSharedSessions((workers[0] as (typeof workers)[0]).sessions);
  state.fill(STATE_FREE);
  const { sessions } = await scanning;
  assert.ok(sessions.length < 10);
  assert.ok(sessions.every(({ worker }) => worker === 2));
});
