import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../base/log.ts';
import {
  createBackendState,
  GATE_DRAIN,
  GATE_HEALTH,
  openBackendState,
} from '../route/backend-state.ts';
import { endsLeft, takeEnd } from '../route/end-quota.ts';
import { BackendDrains, type DrainWorld } from './drain.ts';
import type { RawBackend, RowDrain } from './routing-rows.ts';

/** A clock that goes when told to. One timer is all that is ever set. */
class FakeWorld implements DrainWorld {
  now = 1_700_000_000_000;
  #timer: { at: number; work: () => void } | null = null;

  nowMs(): number {
    return this.now;
  }

  wake(delayMs: number, work: () => void): () => void {
    assert.equal(this.#timer, null, 'a second timer');
    this.#timer = { at: this.now + delayMs, work };
    return () => {
      this.#timer = null;
    };
  }

  get isIdle(): boolean {
    return this.#timer === null;
  }

  advance(ms: number): void {
    const until = this.now + ms;
    while (this.#timer !== null && this.#timer.at <= until) {
      const { at, work } = this.#timer;
      this.#timer = null;
      this.now = Math.max(this.now, at);
      work();
    }
    this.now = until;
  }

  /** The thread does nothing for so long: what was due happens late. */
  stall(ms: number): void {
    this.now += ms;
  }
}

function row(id: string, drain: RowDrain | null): RawBackend {
  return {
    id,
    app: 'web',
    region: 'sa',
    country: null,
    family: 4,
    words: [0, 0, 0, 0x0a000001],
    port: 80,
    healthy: true,
    weight: 1,
    softLimit: 100,
    hardLimit: 0,
    deleted: false,
    check: null,
    drain,
    proxyProtocol: null,
  };
}

const FOREVER: RowDrain = { closeAt: null, closeRate: null };
const INCARNATION = 5;

function setUp() {
  const world = new FakeWorld();
  const state = openBackendState(createBackendState());
  const messages: unknown[] = [];
  const write = (line: string): void => void messages.push(JSON.parse(line).message);
  const indexes = new Map([
    ['a', 0],
    ['b', 1],
  ]);
  let isAlive = true;
  /** What the workers do: they end whatever they may, at once. */
  const work = (): void => {
    if (!isAlive) return;
    for (const index of indexes.values()) {
      while (state.active[index] > 0 && takeEnd(state, index, INCARNATION)) state.active[index]--;
    }
  };
  const places = {
    backendIndex: (id: string) => indexes.get(id),
    incarnation: () => INCARNATION,
  };
  const logger = createLogger({ json: true, write });
  const drains = new BackendDrains(state, places, logger, work, world);
  const update = (...rows: RawBackend[]): void => drains.update(rows);
  const stopWorkers = (stopped: boolean): void => {
    isAlive = !stopped;
  };
  /** A drain whose time is over in so many seconds. */
  const overIn = (seconds: number, closeRate: number | null = null): RowDrain => ({
    closeAt: world.now / 1000 + seconds,
    closeRate,
  });
  return { world, state, messages, indexes, drains, update, stopWorkers, overIn };
}

test('BackendDrains closes the gate of a draining backend and opens it after', () => {
  const { state, update, messages } = setUp();
  Atomics.or(state.gate, 0, GATE_HEALTH);
  update(row('a', FOREVER), row('b', null));
  assert.deepEqual([state.gate[0], state.gate[1]], [GATE_HEALTH | GATE_DRAIN, 0]);
  update(row('a', null), row('b', FOREVER));
  assert.deepEqual([state.gate[0], state.gate[1]], [GATE_HEALTH, GATE_DRAIN]);
  update();
  assert.equal(state.gate[1], 0, 'the row is gone');
  assert.deepEqual(messages, [
    'A backend is draining',
    'A backend is draining',
    'A backend is not draining any more',
    'A backend is not draining any more',
  ]);
});

test('BackendDrains ends nothing before the time, and everything at it', () => {
  const { world, state, update, messages, overIn } = setUp();
  state.active[0] = 100_000;
  state.active[1] = 7;
  update(row('a', overIn(60)), row('b', FOREVER));
  world.advance(59_999);
  assert.equal(state.active[0], 100_000);
  world.advance(1);
  assert.equal(state.active[0], 100_000 - 65_535, 'as many as one grant holds');
  world.advance(100);
  assert.equal(state.active[0], 0);
  world.advance(3_600_000);
  assert.equal(state.active[1], 7, 'without a time they stay');
  assert.deepEqual(messages.slice(2), [
    'A drain is over, its sessions are ended',
    'A draining backend is empty',
  ]);
});

test('BackendDrains ends at the pace it is given, whatever that is', () => {
  for (const rate of [0.5, 1, 3, 10, 250, 5000]) {
    const { world, state, update, overIn } = setUp();
    const open = 60_000;
    state.active[0] = open;
    update(row('a', overIn(0, rate)));
    const burst = 1 + rate * 0.2;
    for (let second = 0; second < 10; second++) {
      const before = state.active[0] as number;
      world.advance(1000);
      const ended = before - (state.active[0] as number);
      assert.ok(ended <= Math.ceil(rate) + burst, `${ended} in a second at rate ${rate}`);
    }
    const ended = open - (state.active[0] as number);
    assert.ok(Math.abs(ended - 10 * rate) <= burst + 1, `${ended} in 10 s at rate ${rate}`);
  }
});

test('BackendDrains makes no burst after a stall, of its own or of the workers', () => {
  const { world, state, update, overIn, stopWorkers } = setUp();
  state.active[0] = 1000;
  update(row('a', overIn(0, 10)));
  world.advance(1000);
  const before = state.active[0] as number;
  world.stall(60_000);
  world.advance(0);
  assert.ok(before - state.active[0] <= 3, `${before - state.active[0]} at once`);
  stopWorkers(true);
  world.advance(60_000);
  stopWorkers(false);
  const then = state.active[0] as number;
  world.advance(100);
  assert.ok(then - state.active[0] <= 5, `${then - state.active[0]} at once`);
});

test('BackendDrains goes on after a time in the past, and follows a change of the drain', () => {
  const { world, state, update, overIn } = setUp();
  state.active[0] = 10;
  update(row('a', overIn(-3600, 1)));
  assert.equal(state.active[0], 9, 'as after a restart');
  update(row('a', FOREVER));
  world.advance(60_000);
  assert.equal(state.active[0], 9);
  update(row('a', overIn(5)));
  world.advance(4999);
  assert.equal(state.active[0], 9);
  world.advance(1);
  assert.equal(state.active[0], 0);
});

test('BackendDrains takes its grants back when a drain ends or a backend loses its place', () => {
  const { state, update, overIn, indexes, stopWorkers } = setUp();
  stopWorkers(true);
  state.active[0] = 10;
  update(row('a', overIn(0)));
  assert.equal(endsLeft(state, 0, INCARNATION), 10);
  update(row('a', null));
  assert.equal(endsLeft(state, 0, INCARNATION), 0);
  update(row('a', overIn(0)));
  indexes.set('a', 2);
  update(row('a', overIn(0)));
  assert.equal(endsLeft(state, 0, INCARNATION), 0);
  assert.deepEqual([state.gate[0], state.gate[2]], [0, GATE_DRAIN]);
});

test('BackendDrains asks again for what the workers have not ended', () => {
  const { world, state, update, overIn, stopWorkers } = setUp();
  state.active[0] = 10;
  stopWorkers(true);
  update(row('a', overIn(0)));
  stopWorkers(false);
  world.advance(100);
  assert.equal(state.active[0], 0);
});

test('BackendDrains rests when every draining backend is empty', () => {
  const { world, state, update, messages, overIn } = setUp();
  update(row('a', FOREVER), row('b', overIn(10)));
  assert.ok(!world.isIdle, 'a session may have been added while the gate was closed');
  state.active[1] = 1;
  world.advance(2000);
  assert.deepEqual(messages.slice(2), ['A draining backend is empty']);
  assert.ok(!world.isIdle);
  world.advance(20_000);
  assert.equal(state.active[1], 0);
  assert.ok(world.isIdle);
  assert.deepEqual(messages.slice(3), [
    'A drain is over, its sessions are ended',
    'A draining backend is empty',
  ]);
});
