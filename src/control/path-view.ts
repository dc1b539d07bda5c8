// The path to a backend as it is shown.

import type { PathStatus } from '../mesh/path-monitor.ts';

/** The path to a backend. */
export interface BackendPath extends PathStatus {
  readonly peer: string;
}

/** As the admin API and `explain --json` show it. */
export function pathJson(path: BackendPath | null) {
  if (path === null) return null;
  const { peer, state, reason, rttMs, loss } = path;
  return { peer, state, reason, rtt_ms: rttMs, loss };
}
