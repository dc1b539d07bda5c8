import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createLogger } from '../base/log.ts';
import {
  createBackendState,
  GATE_BREAKER,
  GATE_HEALTH,
  openBackendState,
} from '../route/backend-state.ts';
import { HealthChecker, type HealthSettings, type HealthWorld } from './health.ts';
import type { CheckOutcome } from './health-probe.ts';
import type { RowCheck } from './health-spec.ts';
import type { RawBackend } from './routing-rows.ts';

const SETTINGS: HealthSettings = {
  intervalMs: 5000,
  timeoutMs: 2000,
  healthyThreshold: 2,
  unhealthyThreshold: 3,
  defaults: { type: 'tcp', path: '/health' },
  concurrentMax: 100,
};
const GOOD: CheckOutcome = { result: 'success', reason: 'connected' };
const BAD: CheckOutcome = { result: 'failure', reason: 'connect refused' };
const LACK: CheckOutcome = { result: 'inconclusive', reason: 'no descriptor left' };
const FAST_MS = 1000;
/** Two ticks of the wheel: how far from its exact time a check may be. */
const SLACK_MS = 40;

/** How a backend answers: at once, or never. */
type Behaviour = () => CheckOutcome | null;

interface Started {
  readonly at: number;
  readonly host: string;
  readonly port: number;
}

/** Virtual time; everything happens in `advance`. */
class FakeWorld implements HealthWorld {
  now = 1_000_000;
  behaviour: Behaviour = () => GOOD;
  readonly started: Started[] = [];
  readonly finished: number[] = [];
  open = 0;
  openPeak = 0;
  cancelled = 0;
  #queue: { at: number; work: () => void }[] = [];

  nowMs(): number {
    return this.now;
  }

  wake(delayMs: number, work: () => void): () => void {
    const entry = { at: this.now + delayMs, work };
    this.#queue.push(entry);
    return () => {
      this.#queue = this.#queue.filter((other) => other !== entry);
    };
  }

  random(): number {
    return 0.5;
  }

  readonly startProbe: HealthWorld['startProbe'] = (host, check, onDone) => {
    this.started.push({ at: this.now, host, port: check.port });
    this.openPeak = Math.max(this.openPeak, ++this.open);
    let ended = false;
    const end = (outcome: CheckOutcome): void => {
      if (ended) return;
      ended = true;
      this.wake(0, () => {
        this.open--;
        this.finished.push(this.now);
        onDone(outcome);
      });
    };
    const answer = this.behaviour();
    if (answer !== null) end(answer);
    return {
      expire: (limit) => end({ result: 'failure', reason: `timeout after ${limit}` }),
      cancel: () => {
        this.cancelled++;
        end(LACK);
      },
    };
  };

  get pending(): number {
    return this.#queue.length;
  }

  advance(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      const next = this.#queue.reduce<{ at: number; work: () => void } | null>(
        (first, entry) => (first === null || entry.at < first.at ? entry : first),
        null,
      );
      if (next === null || next.at > until) break;
      this.#queue = this.#queue.filter((entry) => entry !== next);
      this.now = Math.max(this.now, next.at);
      next.work();
    }
    this.now = until;
  }

  /** The event loop does nothing for so long: what was due happens late. */
  stall(ms: number): void {
    this.now += ms;
  }
}

function row(id: string, fields: Partial<RawBackend> = {}): RawBackend {
  return {
    id,
    app: 'web',
    region: 'sa',
    country: null,
    ...{ family: 4, words: [0, 0, 0, 0x0a000001], port: 80 },
    healthy: true,
    weight: 1,
    softLimit: 100,
    hardLimit: 0,
    deleted: false,
    check: null,
    drain: null,
    proxyProtocol: null,
    ...fields,
  };
}

const CHECK: RowCheck = { type: null, port: null, path: null, expect: null };

function setUp(changes: Partial<HealthSettings> = {}) {
  const world = new FakeWorld();
  const state = openBackendState(createBackendState());
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => {
    const { time, ...fields } = JSON.parse(line);
    lines.push(fields);
  };
  const logger = createLogger({ json: true, write });
  const health = new HealthChecker({ ...SETTINGS, ...changes }, state, logger, world);
  const indexes = new Map<string, number>();
  const update = (...rows: RawBackend[]): void => {
    for (const { id } of rows) if (!indexes.has(id)) indexes.set(id, indexes.size);
    health.update(rows, (id) => indexes.get(id));
  };
  const gate = (id: string): number => state.gate[indexes.get(id) as number] as number;
  const only = () => [...health.backends()][0];
  return { world, state, lines, health, update, gate, only };
}

/** Lets `count` checks of the only backend run. */
function runChecks(world: FakeWorld, count: number): void {
  const before = world.finished.length;
  while (world.finished.length < before + count) world.advance(10);
}

test('HealthChecker gates a backend only at the unhealthy threshold, and opens it at the healthy one', () => {
  const { world, update, gate, lines } = setUp();
  update(row('a'));
  assert.equal(gate('a'), 0, 'a new backend is open before its first check');
  world.behaviour = () => BAD;
  runChecks(world, 2);
  assert.equal(gate('a'), 0);
  runChecks(world, 1);
  assert.equal(gate('a'), GATE_HEALTH);
  world.behaviour = () => GOOD;
  runChecks(world, 1);
  assert.equal(gate('a'), GATE_HEALTH);
  runChecks(world, 1);
  assert.equal(gate('a'), 0);
  runChecks(world, 20);
  assert.deepEqual(lines, [
    {
      level: 'warn',
      message: 'A backend is unhealthy',
      event: 'backend_unhealthy',
      backend: 'a',
      from: 'healthy',
      to: 'unhealthy',
      reason: 'connect refused',
    },
    {
      level: 'info',
      message: 'A backend is healthy again',
      event: 'backend_healthy',
      backend: 'a',
      from: 'unhealthy',
      to: 'healthy',
      reason: 'connected',
    },
  ]);
});

test('HealthChecker follows the thresholds for any sequence of results', () => {
  const results = fc.array(fc.constantFrom(GOOD, BAD, BAD, LACK), { maxLength: 60 });
  const threshold = fc.integer({ min: 1, max: 4 });
  fc.assert(
    fc.property(results, threshold, threshold, (sequence, healthyThreshold, unhealthyThreshold) => {
      const { world, update, gate, only } = setUp({ healthyThreshold, unhealthyThreshold });
      update(row('a'));
      let history = '';
      let open = true;
      for (const outcome of sequence) {
        world.behaviour = () => outcome;
        runChecks(world, 1);
        if (outcome.result === 'success') history += '+';
        if (outcome.result === 'failure') history += '-';
        if (history.endsWith('-'.repeat(unhealthyThreshold))) open = false;
        else if (history.endsWith('+'.repeat(healthyThreshold))) open = true;
        assert.equal(gate('a') === 0, open, history);
        assert.equal(only()?.healthy, open);
      }
      const count = (mark: string): number => history.split(mark).length - 1;
      assert.equal(only()?.success, count('+'));
      assert.equal(only()?.failure, count('-'));
      assert.equal(only()?.inconclusive, sequence.length - history.length);
    }),
    { numRuns: 200 },
  );
});

test('HealthChecker checks every interval, and five times as often while the state is changing', () => {
  const { world, update } = setUp();
  update(row('a'));
  const nextGap = (behaviour: Behaviour): number => {
    world.behaviour = behaviour;
    runChecks(world, 1);
    const [one, two] = world.started.slice(-2);
    return (two?.at ?? 0) - (one?.at ?? 0);
  };
  const near = (gap: number, expected: number): void =>
    assert.ok(Math.abs(gap - expected) <= SLACK_MS, `${gap} instead of ${expected} ms`);
  runChecks(world, 1);
  near(
    nextGap(() => BAD),
    5000,
  );
  near(
    nextGap(() => BAD),
    FAST_MS,
  );
  near(
    nextGap(() => BAD),
    FAST_MS,
  );
  near(
    nextGap(() => BAD),
    5000,
  );
  near(
    nextGap(() => GOOD),
    5000,
  );
  near(
    nextGap(() => GOOD),
    FAST_MS,
  );
  near(
    nextGap(() => GOOD),
    5000,
  );
});

test('HealthChecker fails a check without an answer at the time-out, and pauses before the next', () => {
  const { world, update, gate, lines } = setUp();
  world.behaviour = () => null;
  update(row('a'));
  runChecks(world, 3);
  for (let at = 0; at < 3; at++) {
    const tookMs = (world.finished[at] ?? 0) - (world.started[at]?.at ?? 0);
    assert.ok(tookMs >= 2000 && tookMs <= 2000 + SLACK_MS, `${tookMs} ms`);
  }
  assert.ok((world.started[1]?.at ?? 0) - (world.finished[0] ?? 0) >= FAST_MS - SLACK_MS);
  assert.equal(gate('a'), GATE_HEALTH);
  assert.equal(lines[0]?.reason, 'timeout after 2 s');
});

test('HealthChecker spreads 10,000 backends over one interval', () => {
  const { world, update } = setUp();
  const count = 10_000;
  update(...Array.from({ length: count }, (_, at) => row(`b${at}`, { port: at + 1 })));
  const begin = world.now;
  world.advance(SETTINGS.intervalMs + SLACK_MS);
  assert.equal(new Set(world.started.map(({ port }) => port)).size, count);
  const perTenth = new Map<number, number>();
  for (const { at } of world.started.slice(0, count)) {
    const tenth = Math.floor((at - begin) / 100);
    perTenth.set(tenth, (perTenth.get(tenth) ?? 0) + 1);
  }
  // 200 in each 100 ms on average.
  assert.ok(Math.max(...perTenth.values()) <= 240, `${[...perTenth.values()]}`);
});

test('HealthChecker works a backlog off without a burst after a pause of the process', () => {
  const { world, update } = setUp({ concurrentMax: 10_000 });
  update(...Array.from({ length: 10_000 }, (_, at) => row(`b${at}`, { port: at + 1 })));
  world.advance(6000);
  world.stall(5000);
  const before = world.started.length;
  world.advance(20);
  assert.ok(world.started.length - before <= 200, `${world.started.length - before} at once`);
  world.advance(5000);
  const ports = new Set(world.started.slice(before).map(({ port }) => port));
  assert.equal(ports.size, 10_000, 'all were checked soon after');
});

test('HealthChecker never has more sockets than allowed, and every backend gets its turn', () => {
  const { world, update, gate } = setUp({ concurrentMax: 10 });
  world.behaviour = () => null;
  const rows = Array.from({ length: 100 }, (_, at) => row(`b${at}`, { port: at + 1 }));
  update(...rows);
  world.advance(120_000);
  assert.equal(world.openPeak, 10);
  for (const { id } of rows) assert.equal(gate(id), GATE_HEALTH, id);
});

test('update() keeps the state of a backend through reloads that do not change its address', () => {
  const { world, update, gate, only } = setUp();
  world.behaviour = () => BAD;
  update(row('a'));
  runChecks(world, 3);
  update(row('a', { weight: 7, healthy: false, region: 'eu', words: [0, 0, 0, 0x0a000001] }));
  assert.equal(gate('a'), GATE_HEALTH);
  assert.equal(only()?.failure, 3);
  // The check changed, the server did not: it stays out until the new check has succeeded twice.
  update(row('a', { check: { ...CHECK, port: 81 } }));
  assert.equal(gate('a'), GATE_HEALTH);
  world.behaviour = () => GOOD;
  runChecks(world, 2);
  assert.equal(world.started.at(-1)?.port, 81);
  assert.equal(gate('a'), 0);
});

test('update() begins anew when the address or port of a backend changes', () => {
  for (const change of [
    { port: 81 },
    { words: [0, 0, 0, 0x0a000002] as const },
    { family: 6 as const },
  ]) {
    const { world, update, gate, only } = setUp();
    world.behaviour = () => BAD;
    update(row('a'));
    runChecks(world, 3);
    assert.equal(gate('a'), GATE_HEALTH);
    update(row('a', change));
    assert.equal(gate('a'), 0, JSON.stringify(change));
    assert.equal(only()?.failure, 0);
    runChecks(world, 2);
    assert.equal(gate('a'), 0);
    runChecks(world, 1);
    assert.equal(gate('a'), GATE_HEALTH);
  }
});

test('update() clears the gate bit of a removed backend, and no other bit', () => {
  for (const gone of [
    [],
    [row('a', { deleted: true })],
    [row('a', { check: { ...CHECK, type: 'none' } })],
  ]) {
    const { world, state, update, gate, health } = setUp();
    world.behaviour = () => BAD;
    update(row('a'));
    runChecks(world, 3);
    Atomics.or(state.gate, 0, GATE_BREAKER);
    update(...gone);
    assert.equal(gate('a'), GATE_BREAKER);
    assert.deepEqual([...health.backends()], []);
    const before = world.started.length;
    world.advance(60_000);
    assert.equal(world.started.length, before, 'it is not checked any more');
  }
});

test('update() opens an index that goes to another backend, also in the same publication', () => {
  const { world, state, health } = setUp();
  world.behaviour = () => BAD;
  health.update([row('a')], () => 0);
  runChecks(world, 3);
  assert.equal(state.gate[0], GATE_HEALTH);
  health.update([row('b')], () => 0);
  assert.equal(state.gate[0], 0);
  runChecks(world, 3);
  assert.equal(state.gate[0], GATE_HEALTH);
});

test('update() drops the result of a check that was under way for the old address', () => {
  const { world, update, gate, only } = setUp({ unhealthyThreshold: 1 });
  world.behaviour = () => null;
  update(row('a'));
  while (world.started.length === 0) world.advance(10);
  update(row('a', { port: 81 }));
  assert.equal(world.cancelled, 1);
  world.behaviour = () => GOOD;
  world.advance(20_000);
  assert.equal(gate('a'), 0);
  assert.equal(world.open, 0);
  assert.equal(only()?.failure, 0);
  assert.equal(only()?.inconclusive, 0);
});

test('update() drops the result of a check that was under way for other check columns', () => {
  const { world, update, only } = setUp();
  world.behaviour = () => null;
  update(row('a'));
  while (world.started.length === 0) world.advance(10);
  update(row('a', { check: { ...CHECK, port: 81 } }));
  assert.equal(world.cancelled, 1);
  world.behaviour = () => GOOD;
  world.advance(SETTINGS.intervalMs + SLACK_MS);
  assert.deepEqual(
    world.started.map(({ port }) => port),
    [80, 81],
  );
  assert.deepEqual([only()?.success, only()?.failure, only()?.inconclusive], [1, 0, 0]);
});

test('update() forgets a removed backend whose check runs, or waits for its turn', () => {
  const { world, update } = setUp({ concurrentMax: 1 });
  world.behaviour = () => null;
  const stays = row('stays', { port: 1 });
  update(stays, row('two', { port: 2 }), row('three', { port: 3 }));
  // Due at 1, 3 and 5 sixths of the interval: the first has timed out, the second runs, the third waits.
  world.advance(4500);
  assert.deepEqual(
    world.started.map(({ port }) => port),
    [1, 2],
  );
  world.behaviour = () => GOOD;
  update(stays);
  assert.equal(world.cancelled, 1);
  world.advance(60_000);
  assert.deepEqual([...new Set(world.started.slice(2).map(({ port }) => port))], [1]);
  assert.equal(world.open, 0);
});

test('HealthChecker checks a disabled backend too, and not a deleted one or one of type none', () => {
  const { world, update } = setUp();
  update(
    row('off', { healthy: false, port: 1 }),
    row('gone', { deleted: true, port: 2 }),
    row('none', { check: { ...CHECK, type: 'none' }, port: 3 }),
    row('elsewhere', { check: { ...CHECK, port: 99 }, port: 4 }),
  );
  world.advance(20_000);
  assert.deepEqual([...new Set(world.started.map(({ port }) => port))].sort(), [1, 99]);
});

test('HealthChecker keeps all states while this machine cannot ask, and says so once a minute', () => {
  const { world, update, gate, lines } = setUp({ unhealthyThreshold: 1 });
  world.behaviour = () => LACK;
  update(row('a'), row('b'));
  world.advance(59_000);
  assert.equal(gate('a') | gate('b'), 0);
  assert.equal(lines.length, 1);
  assert.match(String(lines[0]?.message), /states stay as they are/);
  world.advance(60_000);
  assert.equal(lines.length, 2);
});

test('HealthChecker gives a running check its time anew when the process was paused, once', () => {
  const { world, update, gate, only } = setUp({ unhealthyThreshold: 1 });
  world.behaviour = () => null;
  update(row('a'));
  while (world.started.length === 0) world.advance(10);
  world.stall(30_000);
  world.advance(0);
  assert.equal(gate('a'), 0, 'a check that was never looked at has not failed');
  world.advance(SETTINGS.timeoutMs + SLACK_MS);
  assert.equal(only()?.failure, 1);
  // Once for each check: an event loop that is always late must not hide a dead backend.
  while (world.open === 0) world.advance(10);
  for (let at = 0; at < 3; at++) {
    world.stall(3000);
    world.advance(0);
  }
  assert.equal(only()?.failure, 2);
});

test('close() ends running checks and leaves no timer', () => {
  const { world, update, health, gate } = setUp({ unhealthyThreshold: 1 });
  world.behaviour = () => null;
  update(row('a'), row('b', { port: 81 }));
  while (world.open === 0) world.advance(10);
  const { open } = world;
  health.close();
  assert.equal(world.cancelled, open);
  world.advance(60_000);
  assert.equal(world.open, 0);
  assert.equal(world.pending, 0);
  assert.equal(world.started.length, open);
  assert.equal(gate('a') | gate('b'), 0);
});
