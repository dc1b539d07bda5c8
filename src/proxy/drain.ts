// Ends sessions of draining backends, as many as the control plane has granted (route/end-quota.ts). It looks for them
// through the slots, some per batch, so that a batch stays short whatever the number of sessions. The search goes round
// from where it stopped last, so that one which is asked for again all the time still reaches every slot.

import { takeEnd } from '../route/end-quota.ts';
import { REASON_DRAINED } from './close-reason.ts';
import { endSession } from './end.ts';
import { STATE_CLOSING } from './sessions.ts';
import type { WorkerState } from './worker-state.ts';

/** Slots looked at per batch: about 10 µs. */
const SLOTS_PER_BATCH = 4096;
/** Sessions ended per batch, each some microseconds of cancelling and closing. */
const ENDS_PER_BATCH = 64;

/** Something was granted: every slot is to be looked at once from here on. */
export function startEnding(worker: WorkerState): void {
  worker.drainLeft = worker.sessions.slots.fresh;
}

/** Looks at some more slots. */
export function endDrained(worker: WorkerState): void {
  const { fresh } = worker.sessions.slots;
  let slot = worker.drainSlot;
  let ends = 0;
  for (let looks = SLOTS_PER_BATCH; looks > 0 && worker.drainLeft > 0; looks--) {
    if (slot >= fresh) slot = 0;
    if (endIfGranted(worker, slot)) ends++;
    slot++;
    worker.drainLeft--;
    if (ends === ENDS_PER_BATCH) break;
  }
  worker.drainSlot = slot;
}

/** True when it was one to end. Connecting or relaying is the same; what is ending already is left alone. */
function endIfGranted(worker: WorkerState, slot: number): boolean {
  const { sessions, backendState } = worker;
  const backend = sessions.backend[slot] - 1;
  if (backend < 0 || backendState.ends[backend] === 0) return false;
  if (sessions.state[slot] === STATE_CLOSING) return false;
  if (!takeEnd(backendState, backend, sessions.incarnation[slot])) return false;
  endSession(worker, slot, REASON_DRAINED);
  return true;
}
