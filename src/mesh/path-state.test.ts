// The states of a path in virtual time: what makes it degraded or dead, what heals it, and that it does not flap.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  createPath,
  judgePath,
  noteAnswer,
  noteHandshake,
  noteLost,
  noteProbe,
  type Path,
  type PathSettings,
  type PathState,
  pathLoss,
  pathRttMinimum,
} from './path-state.ts';

const SETTINGS: PathSettings = {
  intervalMs: 1000,
  deadMs: 5000,
  degradedLoss: 0.1,
  degradedRttMs: 0,
  degradedRttFactor: 5,
};
const TIMEOUT_MS = 2000;

/** A peer that is probed every second; `fate` says the RTT of a probe, or null for a lost one. */
class Run {
  nowMs = 1_000_000;
  path: Path = createPath(this.nowMs);
  readonly settings: PathSettings;
  readonly seen: PathState[] = [];
  readonly #out: { atMs: number; sentMs: number; rttMs: number | null }[] = [];

  constructor(settings: Partial<PathSettings> = {}) {
    this.settings = { ...SETTINGS, ...settings };
  }

  step(fate: number | null): void {
    noteProbe(this.path, this.nowMs);
    const waitMs = fate ?? TIMEOUT_MS;
    this.#out.push({ atMs: this.nowMs + waitMs, sentMs: this.nowMs, rttMs: fate });
    this.#out.sort((one, two) => one.atMs - two.atMs);
    const endMs = this.nowMs + this.settings.intervalMs;
    while (this.#out.length > 0 && this.#out[0].atMs <= endMs) {
      const { atMs, sentMs, rttMs } = this.#out.shift()!;
      this.nowMs = atMs;
      if (rttMs === null) noteLost(this.path);
      else noteAnswer(this.path, atMs, sentMs, rttMs, true);
      this.judge();
    }
    this.nowMs = endMs;
    this.judge();
  }

  judge(): void {
    if (judgePath(this.path, this.settings, this.nowMs)) this.seen.push(this.path.state);
  }

  steps(count: number, fate: (step: number) => number | null): void {
    for (let step = 0; step < count; step++) this.step(fate(step));
  }

  handshake(ageMs: number | null, receivedBytes: number): void {
    noteHandshake(this.path, this.nowMs, { ageMs, receivedBytes });
  }
}

test('judgePath() keeps a good path ok', () => {
  const run = new Run();
  run.steps(1000, (step) => 20 + (step % 7));
  assert.deepEqual(run.seen, []);
  assert.equal(pathLoss(run.path), 0);
  assert.ok(run.path.rttMs > 20 && run.path.rttMs < 27);
  assert.equal(pathRttMinimum(run.path), 20);
});

test('judgePath() calls a path dead after the set time without any answer, and alive after three answers', () => {
  const run = new Run();
  run.steps(20, () => 20);
  const cutMs = run.nowMs;
  while (run.path.state !== 'dead') run.step(null);
  assert.ok(run.nowMs - cutMs >= 5000 && run.nowMs - cutMs <= 6000, String(run.nowMs - cutMs));
  assert.match(run.path.reason, /^no answer for 5 s$/);
  run.steps(60, () => null);
  assert.deepEqual(run.seen, ['degraded', 'dead']);
  run.step(20);
  assert.equal(
    run.path.state,
    'dead',
    'one answer may be luck, and probes of before are still lost',
  );
  run.steps(5, () => 20);
  assert.deepEqual(run.seen, ['degraded', 'dead', 'ok']);
  run.steps(60, () => 20);
  assert.deepEqual(
    run.seen,
    ['degraded', 'dead', 'ok'],
    'what was lost while it was dead is forgotten',
  );
});

test('judgePath() never calls a path dead whose every fourth probe is answered', () => {
  const run = new Run();
  run.steps(20, () => 20);
  run.steps(200, (step) => (step % 4 === 0 ? 20 : null));
  assert.deepEqual(run.seen, ['degraded']);
  assert.match(run.path.reason, /^7\d % of the probes are lost$/);
});

test('judgePath() calls a lossy path degraded, until it has been good for a while', () => {
  const run = new Run();
  run.steps(40, () => 20);
  run.steps(40, (step) => (step % 5 === 0 ? null : 20));
  assert.deepEqual(run.seen, ['degraded']);
  run.steps(25, () => 20);
  assert.deepEqual(run.seen, ['degraded'], 'not at once');
  run.steps(30, () => 20);
  assert.deepEqual(run.seen, ['degraded', 'ok']);
});

test('judgePath() does not mind one lost probe in twenty', () => {
  const run = new Run();
  run.steps(400, (step) => (step % 20 === 19 ? null : 20));
  assert.deepEqual(run.seen, []);
});

test('judgePath() calls a slow path degraded against its own minimum, not a hiccup', () => {
  const run = new Run();
  run.steps(40, () => 20);
  run.step(900);
  run.step(900);
  run.steps(40, () => 20);
  assert.deepEqual(run.seen, [], 'a hiccup');
  run.steps(40, () => 180);
  assert.deepEqual(run.seen, ['degraded']);
  assert.match(run.path.reason, /^the RTT is 1\d\d\.\d ms$/);
  run.steps(60, () => 20);
  assert.deepEqual(run.seen, ['degraded', 'ok']);
  // For good: after ten minutes it is what the path is like.
  run.steps(800, () => 180);
  assert.deepEqual(run.seen, ['degraded', 'ok', 'degraded', 'ok']);
});

test('judgePath() gives a path of no length some slack', () => {
  const run = new Run();
  run.steps(40, () => 0.2);
  run.steps(40, () => 40);
  assert.deepEqual(run.seen, []);
});

test('judgePath() holds to an absolute limit of the RTT', () => {
  const run = new Run({ degradedRttMs: 100, degradedRttFactor: 0 });
  run.steps(40, () => 101);
  assert.deepEqual(run.seen, ['degraded']);
  // A little below the limit is not enough to be ok again.
  run.steps(60, () => 95);
  assert.deepEqual(run.seen, ['degraded']);
  run.steps(60, () => 70);
  assert.deepEqual(run.seen, ['degraded', 'ok']);
});

test('judgePath() never calls a peer dead by probes alone that never answered one', () => {
  const run = new Run();
  let received = 0;
  for (let step = 0; step < 1000; step++) {
    run.step(null);
    // Keepalives every 10 s, a handshake every 120 s.
    if (step % 10 === 0) received += 32;
    run.handshake((step % 120) * 1000, received);
  }
  assert.deepEqual(run.seen, []);
});

test('judgePath() calls such a peer dead when nothing is received, and ok with the next handshake', () => {
  const run = new Run();
  for (let step = 0; step < 29; step++) {
    run.step(null);
    run.handshake(step * 1000, 500);
  }
  assert.deepEqual(run.seen, []);
  run.steps(10, () => null);
  assert.deepEqual(run.seen, ['dead']);
  assert.match(run.path.reason, /^nothing received for 3\d s$/);
  run.handshake(100, 700);
  run.step(null);
  assert.deepEqual(run.seen, ['dead', 'ok']);
});

test('judgePath() calls a peer dead that never shook hands, after a try and another', () => {
  const run = new Run();
  for (let step = 0; step < 9; step++) {
    run.handshake(null, 0);
    run.step(null);
  }
  assert.deepEqual(run.seen, []);
  run.steps(2, () => null);
  assert.deepEqual(run.seen, ['dead']);
  assert.match(run.path.reason, /^no handshake for 1\d s$/);
});

test('judgePath() finds the last handshake too old, whatever else is received', () => {
  const run = new Run();
  for (let step = 0; step < 194; step++) {
    run.handshake(step * 1000, step);
    run.step(null);
  }
  assert.deepEqual(run.seen, []);
  for (let step = 194; step < 198; step++) {
    run.handshake(step * 1000, step);
    run.step(null);
  }
  assert.deepEqual(run.seen, ['dead']);
  assert.match(run.path.reason, /^the last handshake is 19\d s old$/);
});

test('judgePath() goes by handshakes once a peer stops to answer probes but shakes hands', () => {
  const run = new Run();
  run.handshake(0, 100);
  run.steps(20, () => 20);
  run.steps(20, () => null);
  assert.deepEqual(run.seen, ['degraded', 'dead']);
  run.handshake(0, 300);
  run.steps(3, () => null);
  assert.deepEqual(run.seen, ['degraded', 'dead'], 'probes after the handshake get their chance');
  run.steps(4, () => null);
  assert.deepEqual(run.seen, ['degraded', 'dead', 'ok'], 'and their loss is no loss of the path');
  run.steps(40, () => null);
  assert.deepEqual(run.seen, ['degraded', 'dead', 'ok', 'dead'], 'nothing received since');
});

test('judgePath() does not flap: states last, for any fates', () => {
  const fate = fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 300 }) },
    fc.constant(null),
  );
  fc.assert(
    fc.property(fc.array(fate, { minLength: 50, maxLength: 400 }), (fates) => {
      const run = new Run();
      run.steps(20, () => 20);
      let sinceMs = run.path.sinceMs;
      let before: PathState = run.path.state;
      for (const each of fates) {
        run.step(each);
        const { state, sinceMs: nowMs } = run.path;
        if (state === before) continue;
        const lastedMs = nowMs - sinceMs;
        if (before === 'degraded' && state === 'ok') assert.ok(lastedMs >= 10_000);
        // Three answers, and the first was not what ended the silence.
        if (before === 'dead') assert.ok(lastedMs >= 1_000);
        if (state === 'dead') assert.ok(nowMs - run.path.answeredAtMs >= 4_999);
        assert.equal(run.path.reason === '', state === 'ok');
        before = state;
        sinceMs = nowMs;
      }
      assert.ok(pathLoss(run.path) >= 0 && pathLoss(run.path) <= 1);
    }),
    { numRuns: 300 },
  );
});
