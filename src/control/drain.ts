// The drains of backends, as routing.db says them: keeps new sessions away by the GATE_DRAIN bit of
// the shared backend state, and ends the sessions that are left when a drain's time is over, at its
// pace. It only grants how many may end (route/end-quota.ts); the workers find and end them. All of
// it is derived from the rows and the clock, so it goes on after a restart, and each POP that reads
// the same database does the same.

import type { Logger } from '../base/log.ts';
import { type BackendState, GATE_DRAIN } from '../route/backend-state.ts';
import { endsLeft, grantEnds, revokeEnds } from '../route/end-quota.ts';
import type { RawBackend, RowDrain } from './routing-rows.ts';

/** Where the publisher keeps a backend. */
interface BackendPlaces {
  backendIndex(id: string): number | undefined;
  incarnation(index: number): number;
}

/** Time: replaced in tests. */
export interface DrainWorld {
  /** Since 1970: drains end at a time of day. */
  nowMs(): number;
  /** Calls `work` once after `delayMs`; returns what cancels it. */
  wake(delayMs: number, work: () => void): () => void;
}

interface Target {
  readonly index: number;
  readonly incarnation: number;
  drain: RowDrain;
  /** The time is over, and that was said. */
  closing: boolean;
  /** Sessions that the pace allows to be ended now; whole ones are granted. */
  credit: number;
  creditAtMs: number;
  /** Looks in a row at which no session was open. */
  emptyLooks: number;
}

const CLOSE_TICK_MS = 100;
const LOOK_MS = 1000;
/** A session may be added while the gate is being closed: only the second look is sure. */
const EMPTY_LOOKS = 2;
/** What a stalled thread may catch up with, in seconds of the pace, beside one: more would be a burst. */
const CATCH_UP_SECS = 0.2;

const REAL_WORLD: DrainWorld = {
  nowMs: Date.now,
  wake: (delayMs, work) => {
    const timer = setTimeout(work, delayMs);
    return () => clearTimeout(timer);
  },
};

export class BackendDrains {
  readonly #state: BackendState;
  readonly #places: BackendPlaces;
  readonly #logger: Logger;
  readonly #onGrant: () => void;
  readonly #world: DrainWorld;
  /** By backend id. */
  readonly #targets = new Map<string, Target>();
  #cancelWake: () => void = () => {};

  /** `onGrant` has the workers look for sessions to end. */
  constructor(
    state: BackendState,
    places: BackendPlaces,
    logger: Logger,
    onGrant: () => void,
    world: DrainWorld = REAL_WORLD,
  ) {
    this.#state = state;
    this.#places = places;
    this.#logger = logger;
    this.#onGrant = onGrant;
    this.#world = world;
  }

  /** Follows a publication: drains start, change or end. */
  update(backends: readonly RawBackend[]): void {
    const left = new Set(this.#targets.keys());
    for (const { id, drain } of backends) {
      const index = this.#places.backendIndex(id);
      if (drain === null || index === undefined) continue;
      this.#follow(id, index, drain);
      left.delete(id);
    }
    for (const id of left) this.#end(id);
    this.#look();
  }

  #follow(id: string, index: number, drain: RowDrain): void {
    const incarnation = this.#places.incarnation(index);
    const known = this.#targets.get(id);
    if (known?.index === index && known.incarnation === incarnation) {
      const { closeAt, closeRate } = known.drain;
      if (drain.closeAt === closeAt && drain.closeRate === closeRate) return;
      known.drain = drain;
      known.closing = false;
      revokeEnds(this.#state, index);
    } else {
      if (known !== undefined) this.#end(id);
      // Pairs with the loads in select.ts: once this has returned no worker adds a session here.
      Atomics.or(this.#state.gate, index, GATE_DRAIN);
      const fresh = { closing: false, credit: 0, creditAtMs: 0, emptyLooks: 0 };
      this.#targets.set(id, { index, incarnation, drain, ...fresh });
    }
    this.#logger.info('A backend is draining', {
      event: 'drain_started',
      backend: id,
      open: this.#open(index),
      closeAt: drain.closeAt === null ? 'never' : new Date(drain.closeAt * 1000).toISOString(),
      ...(drain.closeRate === null ? {} : { closeRate: drain.closeRate }),
    });
  }

  /** What it set goes with it, so an index that is given to another id starts as new. */
  #end(id: string): void {
    const { index } = this.#targets.get(id) as Target;
    this.#targets.delete(id);
    revokeEnds(this.#state, index);
    Atomics.and(this.#state.gate, index, ~GATE_DRAIN);
    const fields = { event: 'drain_cancelled', backend: id };
    this.#logger.info('A backend is not draining any more', fields);
  }

  #open(index: number): number {
    return Atomics.load(this.#state.active, index);
  }

  /** Looks at every drain, and comes back when there is something to see. */
  #look(): void {
    const nowMs = this.#world.nowMs();
    let granted = false;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [id, target] of this.#targets) {
      const open = this.#open(target.index);
      this.#noteEmpty(id, target, open);
      if (target.emptyLooks >= EMPTY_LOOKS) continue;
      const { closeAt } = target.drain;
      const waitMs = closeAt === null ? LOOK_MS : closeAt * 1000 - nowMs;
      if (waitMs > 0) {
        nextMs = Math.min(nextMs, waitMs, LOOK_MS);
        continue;
      }
      if (open > 0) granted = this.#close(id, target, open, nowMs) || granted;
      nextMs = Math.min(nextMs, CLOSE_TICK_MS);
    }
    if (granted) this.#onGrant();
    this.#cancelWake();
    if (nextMs === Number.POSITIVE_INFINITY) return;
    // Rounded up: a timer that fires early would only have to be set again.
    this.#cancelWake = this.#world.wake(Math.ceil(nextMs), () => this.#look());
  }

  #noteEmpty(id: string, target: Target, open: number): void {
    if (open > 0) {
      target.emptyLooks = 0;
      return;
    }
    if (target.emptyLooks >= EMPTY_LOOKS) return;
    target.emptyLooks++;
    if (target.emptyLooks < EMPTY_LOOKS) return;
    revokeEnds(this.#state, target.index);
    this.#logger.info('A draining backend is empty', { event: 'drain_empty', backend: id });
  }

  /** True when workers have something to end. */
  #close(id: string, target: Target, open: number, nowMs: number): boolean {
    const { index, incarnation, drain } = target;
    const { closeRate } = drain;
    if (!target.closing) {
      target.closing = true;
      // The first one at once, the others behind it.
      target.credit = 1;
      target.creditAtMs = nowMs;
      const pace = closeRate === null ? {} : { closeRate };
      const fields = { event: 'drain_over', backend: id, open, ...pace };
      this.#logger.warn('A drain is over, its sessions are ended', fields);
    }
    const left = endsLeft(this.#state, index, incarnation);
    let count = open - left;
    if (closeRate !== null) {
      const burst = 1 + closeRate * CATCH_UP_SECS;
      const elapsedSecs = Math.max(0, nowMs - target.creditAtMs) / 1000;
      target.credit = Math.min(burst, target.credit + closeRate * elapsedSecs);
      target.creditAtMs = nowMs;
      count = Math.min(count, Math.floor(Math.min(target.credit, burst - left)));
      if (count > 0) target.credit -= count;
    }
    if (count > 0) grantEnds(this.#state, index, incarnation, count);
    return count > 0 || left > 0;
  }

  /** Leaves the drains as they are. */
  close(): void {
    this.#cancelWake();
  }
}
