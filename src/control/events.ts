// What happened lately, for those who watch: a bounded ring of events and the subscribers to new ones. Control code does
// not call it: a log record whose field `event` names one of EVENT_TYPES is an event (tap()), so that log and stream say
// the same. Each type is limited per second; an event says how many of its type were left out before it.

import { LOG_LEVELS, type Logger, type LogLevel } from '../base/log.ts';
import { randomWords } from '../base/random.ts';
import { monotonicMs } from '../sys/clock.ts';

/** Every type with what it means; the reference and the API's description list these. */
export const EVENT_TYPES = {
  started: 'The proxy listens',
  draining: 'A stop was asked for: no new connections, open sessions may finish',
  stopping: 'A second signal: open sessions are ended',
  took_over: 'This process has the listeners of the one before it',
  takeover_offered: 'A new process prepares to take the listeners over',
  takeover_failed: 'The new process did not take over, this one goes on',
  reload_requested: 'SIGHUP: everything is read again',
  config_problem: 'A setting is unknown or more than the machine allows',
  routing_reloaded: 'A new routing version is in use',
  routing_unreadable: 'routing.db cannot be read, the last good data stays',
  routing_problem: 'A row of routing.db is skipped, or its check columns are',
  geo_reloaded: 'New country data is in use',
  geo_unreadable: 'Country data cannot be read, the last good data stays',
  access_reloaded: 'A new access list is in force',
  access_unreadable: 'The access table cannot be read, the last good list stays',
  mesh_device: 'The WireGuard device of the mesh is there',
  mesh_applied: 'The peers of the mesh are as the table says',
  mesh_device_ended: 'The device of the mesh ended by itself and is made again',
  mesh_device_back: 'The device of the mesh is back',
  mesh_error: 'A change of the mesh cannot be applied and is tried again',
  mesh_unreadable: 'The peers table cannot be read, the last good peers stay',
  mesh_helper_ended: 'The process that keeps the mesh ended and is started again',
  path_ok: 'The path to a peer of the mesh is good again',
  path_degraded: 'The path to a peer is bad: its backends are one tier further back',
  path_dead: 'The path to a peer is dead: its backends get no new sessions',
  path_mtu: 'The path to a peer takes other sizes of packets than before',
  path_probes_impossible: 'This machine cannot probe paths, handshakes alone tell',
  drain_started: 'A backend drains: no new sessions',
  drain_empty: 'A draining backend has no session any more',
  drain_over: 'The time of a drain is over, its sessions are ended',
  drain_cancelled: 'A backend does not drain any more',
  backend_unhealthy: 'Health checks take a backend out',
  backend_healthy: 'Health checks bring a backend back',
  health_checks_impossible: 'This machine cannot make health checks',
  breaker_opened: 'A backend is ejected after failures',
  breaker_closed: 'A backend is taken back after successful trials',
  backend_edited: 'The admin API changed routing.db',
  worker_died: 'A worker died; its sessions are lost',
  worker_replaced: 'A new worker took the place of a dead one',
  worker_failed: 'A dead worker cannot be replaced yet',
  engine_fallback: 'A faster engine is refused',
} as const;
export type EventType = keyof typeof EVENT_TYPES;

export interface ControlEvent {
  /** Counts from 1, over all types. */
  readonly sequence: number;
  readonly time: string;
  readonly level: LogLevel;
  readonly type: EventType;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

type Subscriber = (event: ControlEvent) => void;
type Fields = Readonly<Record<string, unknown>>;

/** Some 300 KB, with fields of usual size. */
const RING_EVENTS = 1000;
/** A failing network can change 10,000 backends at once; nobody reads that many. */
const PER_SECOND_MAX = 50;

interface TypeState {
  latest: ControlEvent | null;
  secondAt: number;
  count: number;
  suppressed: number;
}

export class EventBus {
  /** Another run of the program has another one, so that its sequence numbers are not taken for ours. */
  readonly runId = (randomWords(1)[0] as number).toString(16).padStart(8, '0');
  readonly #ring: ControlEvent[] = [];
  readonly #types = new Map<EventType, TypeState>();
  readonly #subscribers = new Set<Subscriber>();
  readonly #nowMs: () => number;
  #sequence = 0;

  /** The clock is replaced in tests. */
  constructor(nowMs: () => number = monotonicMs) {
    this.#nowMs = nowMs;
  }

  publish(type: EventType, level: LogLevel, message: string, fields: Fields): void {
    const state = this.#stateOf(type);
    const second = Math.floor(this.#nowMs() / 1000);
    if (second !== state.secondAt) state.count = 0;
    state.secondAt = second;
    if (++state.count > PER_SECOND_MAX) {
      state.suppressed++;
      return;
    }
    const event: ControlEvent = {
      sequence: ++this.#sequence,
      time: new Date().toISOString(),
      level,
      type,
      message,
      fields: state.suppressed === 0 ? fields : { ...fields, suppressed: state.suppressed },
    };
    state.suppressed = 0;
    state.latest = event;
    this.#ring.push(event);
    if (this.#ring.length > RING_EVENTS) this.#ring.shift();
    for (const subscriber of this.#subscribers) subscriber(event);
  }

  #stateOf(type: EventType): TypeState {
    let state = this.#types.get(type);
    if (state === undefined) {
      state = { latest: null, secondAt: 0, count: 0, suppressed: 0 };
      this.#types.set(type, state);
    }
    return state;
  }

  /** The same logger; its records with a field `event` are published too, whatever the level that is logged. */
  tap(logger: Logger): Logger {
    const at = (level: LogLevel): Logger[LogLevel] => {
      return (message, fields = {}) => {
        logger[level](message, fields);
        const { event, stack, ...others } = fields;
        if (isEventType(event)) this.publish(event, level, message, others);
      };
    };
    return Object.fromEntries(LOG_LEVELS.map((level) => [level, at(level)])) as Logger;
  }

  /** Events after `sequence` that are still there, and how many are not. */
  since(sequence: number): { readonly events: readonly ControlEvent[]; readonly missed: number } {
    const first = this.#sequence - this.#ring.length;
    const missed = Math.max(0, first - sequence);
    return { events: this.#ring.slice(Math.max(0, sequence - first)), missed };
  }

  get lastSequence(): number {
    return this.#sequence;
  }

  /** The last event of a type, however long ago. */
  latest(type: EventType): ControlEvent | null {
    return this.#types.get(type)?.latest ?? null;
  }

  /** Calls `subscriber` with every event from now on, until the returned function is called. */
  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }
}

function isEventType(name: unknown): name is EventType {
  return typeof name === 'string' && Object.hasOwn(EVENT_TYPES, name);
}
