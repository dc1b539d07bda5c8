// The limits of one client address (IPv6: its /64), over all apps: new connections per time by a token bucket, and sessions
// at once. Checked before any other work is done for a connection; a dry run only counts.

import { clientOpenSessions, releaseClient } from '../route/client-table.ts';
import { acquireLimitRow, takeToken } from '../route/token-bucket.ts';
import { REJECT_CLIENT_SESSIONS, REJECT_RATE_LIMITED } from './close-reason.ts';
import { STAT_LIMIT_DRY_RUN } from './stats.ts';
import type { WorkerState } from './worker-state.ts';

export interface ClientLimits {
  /** Tokens per ms; 0 = no rate limit. */
  readonly ratePerMs: number;
  /** Tokens of a full bucket. */
  readonly rateCapacity: number;
  /** Sessions at once; 0 = no limit. */
  readonly sessionsMax: number;
  /** Count what would be turned away, and let it pass. */
  readonly dryRun: boolean;
}

export const NO_LIMITS: ClientLimits = {
  ratePerMs: 0,
  rateCapacity: 0,
  sessionsMax: 0,
  dryRun: false,
};

/** The client may pass, and holds no limit row. */
export const PASS = -1;

/**
 * Checks the client in `worker.peer`. PASS, or the row its session holds while it is open (releaseClient), or a rejection
 * reason as -2 - reason.
 */
export function checkClientLimits(worker: WorkerState): number {
  const { limits, clients, peer, clientClock, stats } = worker;
  if (limits.ratePerMs === 0 && limits.sessionsMax === 0) return PASS;
  const now = clientClock[0];
  const row = acquireLimitRow(clients, peer.family, peer.w0, peer.w1, peer.w3, now);
  // A table so full that the client finds no row: serving it unlimited is the lesser harm, and counted as unbound.
  if (row < 0) return PASS;
  let rejection = PASS;
  if (
    limits.ratePerMs > 0 &&
    !takeToken(clients, row, now, limits.ratePerMs, limits.rateCapacity)
  ) {
    rejection = REJECT_RATE_LIMITED;
  } else if (limits.sessionsMax > 0 && clientOpenSessions(clients, row) > limits.sessionsMax) {
    rejection = REJECT_CLIENT_SESSIONS;
  }
  if (rejection !== PASS && limits.dryRun) {
    stats.totals[STAT_LIMIT_DRY_RUN]++;
    rejection = PASS;
  }
  if (rejection === PASS && limits.sessionsMax > 0) return row;
  releaseClient(clients, row, now);
  return rejection === PASS ? PASS : -2 - rejection;
}
