// Decides which backends are up: checks each one regularly and keeps new sessions from those that
// fail, by the GATE_HEALTH bit of the shared backend state. It never writes to routing.db. A backend
// counts as healthy until `unhealthyThreshold` checks in a row have failed, and again after
// `healthyThreshold` have succeeded.
//
// While the path to a backend is dead (GATE_PATH) its failed checks say nothing about it, and count as inconclusive.
//
// Pacing: one timer wheel holds every backend's next event (its next check, or the deadline of the
// one that runs). What is due waits in a queue from which checks start at a bounded rate and number,
// so neither the start of the program, nor a pause, nor a failing network makes a burst.

import type { Logger } from '../base/log.ts';
import { advanceTimers, clearTimer, createTimerWheel, setTimer } from '../base/timer-wheel.ts';
import { BACKENDS_MAX } from '../limits.ts';
import { type BackendState, GATE_HEALTH, GATE_PATH } from '../route/backend-state.ts';
import { monotonicMs } from '../sys/clock.ts';
import { type CheckOutcome, type Probe, type StartProbe, startProbe } from './health-probe.ts';
import { type CheckDefaults, type HealthCheck, resolveCheck, sameRowCheck } from './health-spec.ts';
import { addressText, proxyVersion, type RawBackend } from './routing-rows.ts';

export interface HealthSettings {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly healthyThreshold: number;
  readonly unhealthyThreshold: number;
  readonly defaults: CheckDefaults;
  /** Version of the PROXY header for backends whose row says nothing; absent or 0 = none. */
  readonly proxyProtocol?: number;
  /** Connections of checks at once. */
  readonly concurrentMax: number;
  /** Called when a backend is healthy again, with its index. */
  readonly onRecovered?: (index: number) => void;
}

/** Time, chance and sockets: replaced in tests. */
export interface HealthWorld {
  nowMs(): number;
  /** Calls `work` once after `delayMs`, after the I/O that is ready by then; returns what cancels it. */
  wake(delayMs: number, work: () => void): () => void;
  /** From 0 to 1. */
  random(): number;
  readonly startProbe: StartProbe;
}

export interface BackendHealth {
  readonly id: string;
  readonly index: number;
  readonly healthy: boolean;
  readonly success: number;
  readonly failure: number;
  readonly inconclusive: number;
  /** What the last check found, '' before it: `connected`, `timeout after 2 s`. */
  readonly reason: string;
}

/** One backend under check; `row` and `index` are what it is, the rest is how it fares. */
interface Target {
  row: RawBackend;
  readonly index: number;
  readonly host: string;
  check: HealthCheck;
  healthy: boolean;
  /** When that last changed. */
  judgedMs: number;
  /** Results in a row that speak against `healthy`. */
  contrary: number;
  /** The check that runs. */
  probe: Probe | null;
  startedMs: number;
  /** The path was dead then. */
  excused: boolean;
  /** It has got its time anew: never twice, or a slow event loop would hide dead backends. */
  extended: boolean;
  /** When that check fails for want of an answer or, while none runs, when the next one is due. */
  deadlineMs: number;
  success: number;
  failure: number;
  inconclusive: number;
  reason: string;
}

const FAST_FRACTION = 1 / 5;
const FAST_MS_MIN = 200;
/** Ticks of the wheel: a hundredth of the shorter time, within what keeps both idle cost and bursts small. */
const TICK_MS_MIN = 5;
const TICK_MS_MAX = 20;
/** A backlog is worked off at this many times the even rate, and never slower than the least rate. */
const CATCH_UP = 2;
const STARTS_PER_MS_MIN = 0.2;
/** The event loop was this late: the checks that ran meanwhile get their time anew, once each. */
const STALL_MS = 100;
/** Lacks of this machine are reported once a minute: every check may meet them. */
const LACK_REPORT_MS = 60_000;
const NEVER = Number.POSITIVE_INFINITY;

const REAL_WORLD: HealthWorld = {
  nowMs: monotonicMs,
  wake: (delayMs, work) => {
    let immediate: NodeJS.Immediate | undefined;
    // setImmediate comes after the poll phase: an answer that waits in its socket is read first.
    const timer = setTimeout(() => {
      immediate = setImmediate(work);
    }, delayMs);
    return () => {
      clearTimeout(timer);
      clearImmediate(immediate);
    };
  },
  random: Math.random,
  startProbe,
};

function sameEndpoint(one: RawBackend, two: RawBackend): boolean {
  const same = one.family === two.family && one.port === two.port;
  return same && one.words.every((word, at) => word === two.words[at]);
}

function healthOf(target: Target): BackendHealth {
  const { row, index, healthy, success, failure, inconclusive, reason } = target;
  return { id: row.id, index, healthy, success, failure, inconclusive, reason };
}

export class HealthChecker {
  readonly #settings: HealthSettings;
  readonly #state: BackendState;
  readonly #logger: Logger;
  readonly #world: HealthWorld;
  readonly #fastMs: number;
  readonly #targets = new Map<string, Target>();
  /** The same by backend index: the wheel's slots. */
  readonly #byIndex: (Target | undefined)[] = [];
  readonly #wheel: ReturnType<typeof createTimerWheel>;
  /** Due, longest first. */
  readonly #due = new Set<Target>();
  readonly #running = new Set<Target>();
  /** Sockets that are not closed yet: those of #running, and cancelled ones for a moment. */
  #open = 0;
  /** Starts that the rate allows now, and when that was counted. */
  #starts = 1;
  #startsAtMs: number;
  #wakeAtMs = NEVER;
  #cancelWake: () => void = () => {};
  #lackReportedMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(
    settings: HealthSettings,
    state: BackendState,
    logger: Logger,
    world: HealthWorld = REAL_WORLD,
  ) {
    this.#settings = settings;
    this.#state = state;
    this.#logger = logger;
    this.#world = world;
    const { intervalMs, timeoutMs } = settings;
    this.#fastMs = Math.min(intervalMs, Math.max(FAST_MS_MIN, intervalMs * FAST_FRACTION));
    const tickMs = Math.min(intervalMs, timeoutMs) / 100;
    this.#startsAtMs = world.nowMs();
    this.#wheel = createTimerWheel(
      BACKENDS_MAX,
      Math.min(TICK_MS_MAX, Math.max(TICK_MS_MIN, Math.floor(tickMs))),
      this.#startsAtMs,
    );
  }

  /** Follows a publication: checks start, go on or end. `indexOf` is the publisher's. */
  update(backends: readonly RawBackend[], indexOf: (id: string) => number | undefined): void {
    const left = new Set(this.#targets.values());
    const wanted: [RawBackend, number, HealthCheck][] = [];
    for (const row of backends) {
      const index = indexOf(row.id);
      const check = resolveCheck(row.check, row.port, this.#settings.defaults, this.#header(row));
      // One that is disabled is still checked: how it fares is known when it is enabled again.
      if (index === undefined || check === null || row.deleted) continue;
      wanted.push([row, index, check]);
      const known = this.#targets.get(row.id);
      if (known?.index === index && sameEndpoint(known.row, row)) left.delete(known);
    }
    // Before anything new begins: its index may be theirs.
    for (const target of left) this.#remove(target);
    const fresh = wanted.flatMap((each) => this.#follow(...each) ?? []);
    const nowMs = this.#world.nowMs();
    // Evenly over one interval, each somewhere in its own share of it.
    fresh.forEach((target, at) => {
      const share = (at + this.#world.random()) / fresh.length;
      this.#setDeadline(target, nowMs + share * this.#settings.intervalMs);
    });
  }

  #header(row: RawBackend): number {
    return proxyVersion(row, this.#settings.proxyProtocol ?? 0);
  }

  /** The target if it is to be scheduled anew, else null. */
  #follow(row: RawBackend, index: number, check: HealthCheck): Target | null {
    const known = this.#targets.get(row.id);
    if (known !== undefined) {
      const sameHeader = this.#header(known.row) === this.#header(row);
      const sameCheck = sameHeader && sameRowCheck(known.row.check, row.check);
      known.row = row;
      if (sameCheck) return null;
      // The same server, asked differently: what it was stays until the new check says otherwise.
      this.#stopWork(known);
      known.check = check;
      known.contrary = 0;
      return known;
    }
    const target: Target = {
      row,
      index,
      host: addressText(row),
      check,
      healthy: true,
      judgedMs: 0,
      contrary: 0,
      probe: null,
      startedMs: 0,
      excused: false,
      extended: false,
      deadlineMs: 0,
      success: 0,
      failure: 0,
      inconclusive: 0,
      reason: '',
    };
    this.#targets.set(row.id, target);
    this.#byIndex[index] = target;
    return target;
  }

  /** Its gate bit goes with it, so an index that is given to another id starts open. */
  #remove(target: Target): void {
    this.#stopWork(target);
    this.#targets.delete(target.row.id);
    this.#byIndex[target.index] = undefined;
    this.#setGate(target.index, true);
  }

  #stopWork(target: Target): void {
    clearTimer(this.#wheel, target.index);
    this.#due.delete(target);
    this.#running.delete(target);
    target.probe?.cancel();
    target.probe = null;
  }

  #setGate(index: number, healthy: boolean): void {
    // Pairs with the loads in select.ts: once this has returned no worker adds a session here.
    if (healthy) Atomics.and(this.#state.gate, index, ~GATE_HEALTH);
    else Atomics.or(this.#state.gate, index, GATE_HEALTH);
  }

  #setDeadline(target: Target, deadlineMs: number): void {
    clearTimer(this.#wheel, target.index);
    target.deadlineMs = deadlineMs;
    setTimer(this.#wheel, target.index, deadlineMs);
    const { tickMs } = this.#wheel;
    this.#wakeBy(Math.ceil(deadlineMs / tickMs) * tickMs);
  }

  #wakeBy(atMs: number): void {
    if (atMs >= this.#wakeAtMs || this.#closed) return;
    this.#cancelWake();
    this.#wakeAtMs = atMs;
    const delayMs = Math.max(0, atMs - this.#world.nowMs());
    this.#cancelWake = this.#world.wake(delayMs, () => this.#work());
  }

  #work(): void {
    if (this.#closed) return;
    const nowMs = this.#world.nowMs();
    const lateMs = nowMs - this.#wakeAtMs;
    this.#wakeAtMs = NEVER;
    if (lateMs > STALL_MS) this.#giveTimeBack(nowMs);
    const fired = advanceTimers(this.#wheel, nowMs);
    for (let at = 0; at < fired; at++) {
      const target = this.#byIndex[this.#wheel.fired[at]] as Target;
      // Too early: beyond the horizon of the wheel, or time given back.
      if (target.deadlineMs > nowMs) this.#setDeadline(target, target.deadlineMs);
      else if (target.probe === null) this.#due.add(target);
      else target.probe.expire(`${this.#settings.timeoutMs / 1000} s`);
    }
    this.#startDue(nowMs);
    this.#sleep(nowMs);
  }

  #giveTimeBack(nowMs: number): void {
    for (const target of this.#running) {
      if (!target.extended) target.deadlineMs = nowMs + this.#settings.timeoutMs;
      target.extended = true;
    }
  }

  #startDue(nowMs: number): void {
    const { intervalMs, concurrentMax } = this.#settings;
    const perMs = Math.max(STARTS_PER_MS_MIN, (CATCH_UP * this.#targets.size) / intervalMs);
    const most = Math.ceil(perMs * this.#wheel.tickMs);
    this.#starts = Math.min(most, this.#starts + perMs * (nowMs - this.#startsAtMs));
    this.#startsAtMs = nowMs;
    for (const target of this.#due) {
      if (this.#starts < 1 || this.#open >= concurrentMax) return;
      this.#starts--;
      this.#due.delete(target);
      this.#start(target, nowMs);
    }
  }

  /** Until something is due: a tick while checks wait for their turn, else the next timer. */
  #sleep(nowMs: number): void {
    const { tickMs, tick, first, count } = this.#wheel;
    if (this.#due.size > 0) this.#wakeBy(nowMs + tickMs);
    if (count === 0) return;
    let ahead = 1;
    while (first[(tick + ahead) % first.length] === 0) ahead++;
    this.#wakeBy((tick + ahead) * tickMs);
  }

  #start(target: Target, nowMs: number): void {
    this.#open++;
    this.#running.add(target);
    target.startedMs = nowMs;
    target.excused = this.#isPathDead(target);
    target.extended = false;
    this.#setDeadline(target, nowMs + this.#settings.timeoutMs);
    const probe = this.#world.startProbe(target.host, target.check, (outcome) => {
      this.#open--;
      // Otherwise it was cancelled, and its target is gone or checked in another way.
      if (target.probe === probe && !this.#closed) this.#finish(target, outcome);
    });
    target.probe = probe;
  }

  #finish(target: Target, outcome: CheckOutcome): void {
    target.probe = null;
    this.#running.delete(target);
    target.reason = outcome.reason;
    const isExcused = target.excused || this.#isPathDead(target);
    const result = outcome.result === 'failure' && isExcused ? 'inconclusive' : outcome.result;
    target[result]++;
    if (outcome.result === 'inconclusive') this.#reportLack(outcome.reason);
    else if (result === 'inconclusive') target.contrary = 0;
    else this.#judge(target, outcome.result === 'success', outcome.reason);
    const { intervalMs } = this.#settings;
    const periodMs = target.contrary > 0 ? this.#fastMs : intervalMs;
    // From start to start, so that the spread stays; a slow check still leaves the backend a pause.
    const nowMs = this.#world.nowMs();
    this.#setDeadline(target, Math.max(target.startedMs + periodMs, nowMs + this.#fastMs));
  }

  #isPathDead({ index }: Target): boolean {
    return (Atomics.load(this.#state.gate, index) & GATE_PATH) !== 0;
  }

  /** The path to a backend is dead since `sinceMs`, and was at fault for what checks found after that. */
  excuse(index: number, sinceMs: number): void {
    const target = this.#byIndex[index];
    if (target === undefined) return;
    target.contrary = 0;
    if (target.healthy || target.judgedMs < sinceMs) return;
    this.#turn(target, true, 'the path to it was at fault');
  }

  #judge(target: Target, success: boolean, reason: string): void {
    if (success === target.healthy) {
      target.contrary = 0;
      return;
    }
    const { healthyThreshold, unhealthyThreshold } = this.#settings;
    target.contrary++;
    if (target.contrary < (success ? healthyThreshold : unhealthyThreshold)) return;
    this.#turn(target, success, reason);
  }

  #turn(target: Target, success: boolean, reason: string): void {
    target.contrary = 0;
    target.healthy = success;
    target.judgedMs = this.#world.nowMs();
    this.#setGate(target.index, success);
    const [from, to] = success ? ['unhealthy', 'healthy'] : ['healthy', 'unhealthy'];
    const event = success ? 'backend_healthy' : 'backend_unhealthy';
    const fields = { event, backend: target.row.id, from, to, reason };
    if (success) this.#settings.onRecovered?.(target.index);
    if (success) this.#logger.info('A backend is healthy again', fields);
    else this.#logger.warn('A backend is unhealthy', fields);
  }

  #reportLack(reason: string): void {
    const nowMs = this.#world.nowMs();
    if (nowMs - this.#lackReportedMs < LACK_REPORT_MS) return;
    this.#lackReportedMs = nowMs;
    const fields = { event: 'health_checks_impossible', reason };
    this.#logger.warn('Health checks cannot be made, states stay as they are', fields);
  }

  /** Every backend under check. */
  *backends(): Iterable<BackendHealth> {
    for (const target of this.#targets.values()) yield healthOf(target);
  }

  /** How many backends are under check. */
  get checked(): number {
    return this.#targets.size;
  }

  /** One backend; null when it is not under check. */
  backend(id: string): BackendHealth | null {
    const target = this.#targets.get(id);
    return target === undefined ? null : healthOf(target);
  }

  /** Ends all checks; gates stay as they are. */
  close(): void {
    this.#closed = true;
    this.#cancelWake();
    for (const target of this.#targets.values()) this.#stopWork(target);
  }
}
