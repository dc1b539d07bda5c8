// Opens the session log; what it is made of is loaded only when it is on.

import type { SessionLog, SessionLogOptions } from './session-log.ts';

/** null: it is off, there are no rings. */
export async function openSessionLog(
  rings: readonly SharedArrayBuffer[],
  options: SessionLogOptions,
): Promise<SessionLog | null> {
  if (rings.length === 0) return null;
  const { SessionLog } = await import('./session-log.ts');
  return new SessionLog(rings, options);
}
