// The drains of a simulation: the real control of them (control/drain.ts) on the virtual clock, and an account of its own
// by which the checks tell whether a session was rightly ended, at the pace given, and whether one was forgotten.

import type { Logger } from '../base/log.ts';
import { BackendDrains, type DrainWorld } from '../control/drain.ts';
import type { BackendState } from '../route/backend-state.ts';
import type { SimControl } from './sim-control.ts';
import { type SimNetwork, WORLD_DRAIN } from './sim-network.ts';
import { fail } from './sim-trace.ts';

const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} };
/** Two looks of the control plane, and the workers' way through their slots. */
const SLACK_MS = 400;
/** Sessions that workers may add before they look at the publication. */
const LATECOMERS = 40;

/** One drain whose time is known; `key` tells a changed one from the one before. */
interface Closing {
  readonly key: string;
  /** The first moment at which a session may be ended. */
  readonly fromMs: number;
  readonly closeRate: number | null;
  ended: number;
  /** When no session may be left any more. */
  overMs: number;
}

export class SimDrains implements DrainWorld {
  readonly #network: SimNetwork;
  readonly #control: SimControl;
  readonly #state: BackendState;
  readonly #drains: BackendDrains;
  /** By backend id. */
  readonly #closings = new Map<string, Closing>();
  #work: (() => void) | null = null;
  #timer = 0;
  /** Added to what a worker may be late. */
  readonly #lateMs: number;

  constructor(
    network: SimNetwork,
    control: SimControl,
    state: BackendState,
    lateMs: number,
    onGrant: () => void,
  ) {
    this.#network = network;
    this.#control = control;
    this.#state = state;
    this.#lateMs = lateMs;
    this.#drains = new BackendDrains(state, control.publisher, SILENT, onGrant, this);
  }

  nowMs(): number {
    return this.#network.clock[0] as number;
  }

  wake(delayMs: number, work: () => void): () => void {
    const timer = ++this.#timer;
    this.#work = work;
    this.#network.schedule(delayMs, WORLD_DRAIN, timer);
    return () => {
      this.#timer++;
    };
  }

  /** A timer is due; one that was cancelled is not the last that was set. */
  fire(timer: number): void {
    if (timer === this.#timer) this.#work?.();
  }

  /** After a publication. */
  update(): void {
    const now = this.nowMs();
    const present = new Set<string>();
    for (const { id, drain } of this.#control.rows) {
      const index = this.#control.publisher.backendIndex(id);
      if (drain === null || drain.closeAt === null || index === undefined) continue;
      present.add(id);
      const { closeAt, closeRate } = drain;
      const key = `${index} ${closeAt} ${closeRate}`;
      if (this.#closings.get(id)?.key === key) continue;
      const fromMs = Math.max(now, closeAt * 1000);
      this.#closings.set(id, { key, fromMs, closeRate, ended: 0, overMs: Infinity });
    }
    for (const id of this.#closings.keys()) if (!present.has(id)) this.#closings.delete(id);
    this.#drains.update(this.#control.rows);
  }

  #closingOf(backend: number, incarnation: number): Closing | undefined {
    const { publisher } = this.#control;
    const id = this.#control.backendOf(backend, incarnation);
    // One that was removed and came back is another backend: the sessions of its life before are not its drain's.
    if (id === undefined || publisher.backendIndex(id) !== backend) return undefined;
    return publisher.incarnation(backend) === incarnation ? this.#closings.get(id) : undefined;
  }

  /** A session is ended because of a drain: is there one, is its time over, is that its pace? */
  mayEnd(backend: number, incarnation: number): boolean {
    const closing = this.#closingOf(backend, incarnation);
    const now = this.nowMs();
    if (closing === undefined || now < closing.fromMs) return false;
    closing.ended++;
    if (closing.closeRate === null) return true;
    return closing.ended <= 1 + (closing.closeRate * (now - closing.fromMs)) / 1000;
  }

  /** A session is open: should it have been ended by now? */
  checkOpen(backend: number, incarnation: number, worker: number, slot: number): void {
    const closing = this.#closingOf(backend, incarnation);
    const now = this.nowMs();
    if (closing === undefined || now < closing.fromMs) return;
    if (closing.overMs === Infinity) {
      const sessions = Atomics.load(this.#state.active, backend) + LATECOMERS;
      const { closeRate } = closing;
      const pacedMs = closeRate === null ? 0 : (sessions / closeRate) * 1000;
      closing.overMs = now + pacedMs + SLACK_MS + this.#lateMs;
    }
    if (now > closing.overMs) fail('A session outlived the drain of its backend', worker, slot);
  }
}
