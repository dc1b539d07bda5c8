// What `backend drain` makes of what it sees while it waits: how many sessions are left, and when
// the wait is over, well or not. Pure: from what a running proxy says, and the time, to a verdict.

/** One look at the running proxy. */
export type DrainLook =
  /** It does not answer. */
  | { readonly kind: 'unreachable'; readonly reason: string }
  /** It has no such backend. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'seen'; readonly draining: boolean; readonly open: number };

/** What is being waited for. */
export interface DrainPlan {
  /** Unix milliseconds; null = never. */
  readonly closeAtMs: number | null;
  /** Sessions per second; null = at once. */
  readonly closeRate: number | null;
  /** Where the proxy is asked, for messages. */
  readonly address: string;
  readonly dbPath: string;
}

interface DrainVerdict {
  readonly done: boolean;
  /** '' when all is well. */
  readonly problem: string;
}

/** Long enough for a restart of the proxy, or for one that finds changes by polling. */
const PATIENCE_MS = 15_000;
/** The worker that takes the drain last may add a session after the first look. */
const EMPTY_LOOKS = 2;

const GOES_ON: DrainVerdict = { done: false, problem: '' };

export class DrainWatch {
  readonly #plan: DrainPlan;
  /** Sessions left when last seen; null before. */
  open: number | null = null;
  /** The proxy has taken the drain. */
  #confirmed = false;
  #emptyLooks = 0;
  /** When things were last as they should be: an answer, the drain in place, fewer sessions. */
  #goodMs: number;
  #answered = false;

  constructor(plan: DrainPlan, nowMs: number) {
    this.#plan = plan;
    this.#goodMs = nowMs;
  }

  /** The time is over: sessions are being ended. */
  isClosing(nowMs: number): boolean {
    const { closeAtMs } = this.#plan;
    return closeAtMs !== null && nowMs >= closeAtMs;
  }

  see(look: DrainLook, nowMs: number): DrainVerdict {
    const { address, dbPath } = this.#plan;
    const outOfPatience = nowMs - this.#goodMs > PATIENCE_MS;
    if (look.kind === 'unreachable') {
      // A proxy that answered before may be restarting.
      if (this.#answered && !outOfPatience) return GOES_ON;
      return fail(`no proxy answers at ${address}: ${look.reason}`);
    }
    this.#answered = true;
    if (look.kind === 'unknown' || !look.draining) {
      if (this.#confirmed) return fail('its drain was ended, or its row deleted, meanwhile');
      const what = look.kind === 'unknown' ? 'has no such backend' : 'does not drain it';
      return outOfPatience
        ? fail(`the proxy at ${address} ${what}; does it read ${dbPath}?`)
        : GOES_ON;
    }
    return this.#count(look.open, nowMs);
  }

  #count(open: number, nowMs: number): DrainVerdict {
    const { closeAtMs, closeRate } = this.#plan;
    const isProgress = !this.#confirmed || this.open === null || open < this.open;
    this.#confirmed = true;
    this.open = open;
    if (isProgress) this.#goodMs = nowMs;
    this.#emptyLooks = open === 0 ? this.#emptyLooks + 1 : 0;
    if (this.#emptyLooks >= EMPTY_LOOKS) return { done: true, problem: '' };
    // Until the time is over nothing has to move.
    if (closeAtMs === null || nowMs < closeAtMs) {
      this.#goodMs = nowMs;
      return GOES_ON;
    }
    const stepMs = closeRate === null ? 0 : 1000 / closeRate;
    if (nowMs - this.#goodMs <= PATIENCE_MS + stepMs) return GOES_ON;
    return fail(`${sessionsText(open)} open though the time is over`);
  }
}

function fail(problem: string): DrainVerdict {
  return { done: true, problem };
}

/** `1 session`, `2 sessions`. */
export function sessionsText(count: number): string {
  return `${count} ${count === 1 ? 'session' : 'sessions'}`;
}
