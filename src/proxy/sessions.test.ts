import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLOSE_REASONS, REJECT_REASONS } from './close-reason.ts';
import {
  bumpGeneration,
  createSessions,
  initSession,
  openSharedSessions,
  type SharedSessions,
  sharedSessionsBytes,
} from './sessions.ts';
import {
  BACKEND_CONNECT_BUCKETS,
  BACKEND_CONNECT_MS_SUM,
  BACKEND_CONNECTIONS,
  BACKEND_STATS,
  CONNECT_MS_BUCKETS,
  countConnect,
  createWorkerStats,
  openWorkerStats,
  STAT_CONNECT_BUCKETS,
} from './stats.ts';

function create(capacity: number): ReturnType<typeof createSessions> {
  return createSessions(new SharedArrayBuffer(sharedSessionsBytes(capacity)), 3);
}

test('initSession() clears every field that a session before may have left', () => {
  const sessions = create(4);
  const untouched = create(4);
  initSession(untouched, 2, Float64Array.of(1000));
  for (const field of Object.values(sessions)) {
    if (ArrayBuffer.isView(field)) (field as Uint8Array).fill(7);
  }
  // Set by admit() itself, or meaningless until the field that counts them says otherwise.
  const set = ['sockets', 'backend', 'incarnation', 'clientRow', 'app', 'country', 'state', 'free'];
  set.push('clientWords', 'clientPort', 'tier', 'headerWords');
  const counted = ['failed', 'sendOffset', 'sentAt', 'attemptAt', 'generation', 'pending'];
  initSession(sessions, 2, Float64Array.of(1000));
  for (const [name, field] of Object.entries(sessions)) {
    if (!ArrayBuffer.isView(field) || [...set, ...counted].includes(name)) continue;
    const values = field as Uint8Array;
    const expected = (untouched as unknown as Record<string, Uint8Array>)[name] as Uint8Array;
    const perSlot = values.length / 4;
    assert.deepEqual(
      values.slice(2 * perSlot, 3 * perSlot),
      expected.slice(2 * perSlot, 3 * perSlot),
      name,
    );
    assert.ok(
      values.slice(0, 2 * perSlot).every((value) => value === 7),
      `${name} of another slot`,
    );
  }
});

test('bumpGeneration() goes through 24 bits and leaves out 0', () => {
  const sessions = create(1);
  sessions.generation[0] = 0xff_fffe;
  bumpGeneration(sessions, 0);
  assert.equal(sessions.generation[0], 0xff_ffff);
  bumpGeneration(sessions, 0);
  assert.equal(sessions.generation[0], 1);
});

test('openSharedSessions() sees what the worker wrote, each field in its own place', () => {
  const buffer = new SharedArrayBuffer(sharedSessionsBytes(3));
  const worker = createSessions(buffer, 3);
  const names = Object.keys(openSharedSessions(buffer)) as (keyof SharedSessions)[];
  for (const [at, name] of names.entries()) worker[name].fill(at + 1);
  const control = openSharedSessions(buffer);
  for (const [at, name] of names.entries()) {
    const perSlot = control[name].length / 3;
    assert.ok(perSlot === 1 || perSlot === 2 || perSlot === 4, name);
    assert.deepEqual([...control[name]], new Array(control[name].length).fill(at + 1), name);
  }
  const bytes = names.reduce((sum, name) => sum + control[name].byteLength, 0);
  assert.equal(bytes, buffer.byteLength, 'no room is left over or shared');
});

test('countConnect() puts a connect time into the bucket that holds it, and the rest into the last', () => {
  const stats = openWorkerStats(createWorkerStats());
  const times = [0.1, 0.25, 0.26, 2999, 3000, 3001];
  for (const ms of times) countConnect(stats, 5, Float64Array.of(ms), Float64Array.of(0), 0);
  const at = 5 * BACKEND_STATS;
  const bucket = (index: number): number =>
    stats.backends[at + BACKEND_CONNECT_BUCKETS + index] as number;
  const last = CONNECT_MS_BUCKETS.length;
  assert.deepEqual([bucket(0), bucket(1), bucket(last - 1), bucket(last)], [2, 1, 2, 1]);
  assert.equal(stats.backends[at + BACKEND_CONNECTIONS], times.length);
  const sum = times.reduce((total, ms) => total + ms, 0);
  assert.equal(stats.backends[at + BACKEND_CONNECT_MS_SUM], sum);
  const all = stats.totals.slice(STAT_CONNECT_BUCKETS, STAT_CONNECT_BUCKETS + last + 1);
  assert.deepEqual([all[0], all[1], all[last - 1], all[last]], [2, 1, 2, 1]);
  assert.ok(stats.backends.slice(0, at).every((value) => value === 0));
});

test('close and rejection reasons have distinct names that are fit for a label', () => {
  const names = [...CLOSE_REASONS, ...REJECT_REASONS].map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const name of names) assert.match(name, /^[a-z]+(_[a-z]+)*$/);
});
