// The simulation as a test: fixed seeds, which must keep meeting every way a session can end, and fresh ones, each printed
// so that a failure can be replayed. `npm run sim` runs more of them; docs/simulation.md says what is checked.

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import {
  CLOSE_REASONS,
  REASON_BUFFERS_EXHAUSTED,
  REASON_WORKER_LOST,
  REJECT_CLIENT_SESSIONS,
  REJECT_RATE_LIMITED,
  REJECT_REASONS,
} from '../src/proxy/close-reason.ts';
import {
  STAT_BUFFER_WAITS,
  STAT_END,
  STAT_PUMPS,
  STAT_REJECTED,
  STAT_RETRIES,
  STAT_UNBOUND_SESSIONS,
} from '../src/proxy/stats.ts';
import { type SimResult, simulate } from '../src/testing/sim-run.ts';

const SESSIONS = 300;
const FIXED_SEEDS = 60;
const FRESH_SEEDS = 20;

function run(seed: number): SimResult {
  const result = simulate(seed, SESSIONS);
  assert.equal(result.failure, '');
  return result;
}

test('simulate() finds nothing wrong with fixed seeds, which meet every reason', () => {
  const met = new Float64Array(1024);
  for (let seed = 1; seed <= FIXED_SEEDS; seed++) {
    run(seed).totals.forEach((count, stat) => {
      met[stat] += count;
    });
  }
  for (let reason = 1; reason < CLOSE_REASONS.length; reason++) {
    // No worker dies here: what a dead one leaves is given back by the supervisor, with real sockets.
    if (reason === REASON_WORKER_LOST) continue;
    // Peers that read nothing for seconds, and hold all buffers: attacks.test.ts has them.
    if (reason === REASON_BUFFERS_EXHAUSTED) continue;
    assert.ok(met[STAT_END + reason] > 0, `no session ended for ${CLOSE_REASONS[reason]?.name}`);
  }
  for (let reason = 0; reason < REJECT_REASONS.length; reason++) {
    // Limits of a client are off in the simulation; protection.test.ts meets them.
    if (reason === REJECT_RATE_LIMITED || reason === REJECT_CLIENT_SESSIONS) continue;
    const { name } = REJECT_REASONS[reason] as { name: string };
    assert.ok(met[STAT_REJECTED + reason] > 0, `no client was rejected for ${name}`);
  }
  for (const stat of [STAT_RETRIES, STAT_PUMPS, STAT_BUFFER_WAITS, STAT_UNBOUND_SESSIONS]) {
    assert.ok(met[stat] > 0, `nothing was counted as statistic ${stat}`);
  }
});

test('simulate() finds nothing wrong with fresh seeds', (context) => {
  for (let count = 0; count < FRESH_SEEDS; count++) {
    const seed = randomInt(2 ** 31);
    context.diagnostic(`seed ${seed}`);
    run(seed);
  }
});

test('simulate() replays a seed event by event', () => {
  for (const seed of [3, 7, 11]) {
    const first = run(seed);
    const second = run(seed);
    assert.equal(second.hash, first.hash);
    assert.equal(second.steps, first.steps);
    assert.notEqual(run(seed + 100).hash, first.hash);
  }
});
