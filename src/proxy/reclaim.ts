// Gives back what a dead worker held: its sockets and those it had parked (by RST, its clients must not see a clean end),
// its places at backends, its client rows and its locks. Called by the supervisor after the thread has ended; nobody else
// writes the tables then.

import { openBackendState } from '../route/backend-state.ts';
import { type ClientTable, releaseClient, releaseLocksOf } from '../route/client-table.ts';
import { closeDescriptor, setResetOnClose } from '../sys/socket.ts';
import { REASON_WORKER_LOST } from './close-reason.ts';
import { openSharedSessions, STATE_FREE } from './sessions.ts';
import { CONTROL_ENGINE_FD, CONTROL_PARKED, GLOBAL_SESSIONS, PARKED_MAX } from './shared.ts';
import {
  openWorkerStats,
  STAT_BUFFERS_IN_USE,
  STAT_COUNTRY_ENDED,
  STAT_COUNTRY_OPENED,
  STAT_CURRENT,
  STAT_END,
} from './stats.ts';
import type { WorkerMemory } from './worker-state.ts';

/**
 * Returns how many sessions were lost. `clients` is the caller's own view of the client table; `hadDescriptors` is false
 * for an engine whose sockets ended with its thread.
 */
export function reclaimWorker(
  memory: WorkerMemory,
  workerId: number,
  hadDescriptors: boolean,
  clients: ClientTable,
  nowMs: number,
): number {
  const control = new Int32Array(memory.control);
  const engineFd = control[CONTROL_ENGINE_FD] - 1;
  // The ring first: closing it cancels the operations that hold the sockets open.
  if (engineFd >= 0) closeDescriptor(engineFd);
  control[CONTROL_ENGINE_FD] = 0;
  releaseLocksOf(memory.clients, workerId);
  const { sockets, backend, clientRow, limitRow, state } = openSharedSessions(memory.sessions);
  const { active } = openBackendState(memory.backendState);
  let lost = 0;
  for (let slot = 0; slot < backend.length; slot++) {
    if (sockets[slot * 2] !== 0) lost++;
    reclaimSocket(sockets, slot * 2, hadDescriptors);
    reclaimSocket(sockets, slot * 2 + 1, hadDescriptors);
    if (backend[slot] !== 0) Atomics.sub(active, backend[slot] - 1, 1);
    reclaimRow(clients, clientRow, slot, nowMs);
    reclaimRow(clients, limitRow, slot, nowMs);
    if (backend[slot] !== 0) backend[slot] = 0;
    // The worker that takes over begins with free slots.
    if (state[slot] !== STATE_FREE) state[slot] = STATE_FREE;
  }
  for (let index = 0; index < PARKED_MAX; index++) {
    reclaimSocket(control, CONTROL_PARKED + index * 2, hadDescriptors);
  }
  const { totals } = openWorkerStats(memory.stats);
  totals[STAT_END + REASON_WORKER_LOST] += lost;
  totals[STAT_CURRENT] = 0;
  totals.copyWithin(STAT_COUNTRY_ENDED, STAT_COUNTRY_OPENED, STAT_COUNTRY_ENDED);
  totals[STAT_BUFFERS_IN_USE] = 0;
  Atomics.sub(new Int32Array(memory.global), GLOBAL_SESSIONS, lost);
  return lost;
}

function reclaimRow(clients: ClientTable, rows: Int32Array, slot: number, nowMs: number): void {
  if (rows[slot] === 0) return;
  releaseClient(clients, rows[slot] - 1, nowMs);
  rows[slot] = 0;
}

function reclaimSocket(sockets: Int32Array, endpoint: number, isDescriptor: boolean): void {
  if (sockets[endpoint] === 0) return;
  if (isDescriptor) {
    setResetOnClose(sockets[endpoint] - 1);
    closeDescriptor(sockets[endpoint] - 1);
  }
  sockets[endpoint] = 0;
}
