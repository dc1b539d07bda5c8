// Memory that the control plane shares with one worker or with all, and the words it commands them by.
// A worker looks at its commands after every batch; the control plane stores them, then signals the worker's eventfd.

/** Per worker. What it must do: see COMMAND_…; stored by the control plane. */
export const CONTROL_COMMAND = 0;
/** Per worker. Publications posted to it so far; more than it has seen means a message waits. */
export const CONTROL_PUBLICATIONS = 1;
/** Per worker. Set by the worker, see PHASE_…. */
export const CONTROL_PHASE = 2;
/** Per worker. Its engine's descriptor + 1 while it is open: closed by the supervisor if the worker died without. */
export const CONTROL_ENGINE_FD = 3;
/** Per worker. Accepted sockets that wait for EDGEPROXY_MAX_CONNECTIONS: a ring of PARKED_MAX pairs socket + 1, listener. */
export const CONTROL_PARKED_HEAD = 4;
export const CONTROL_PARKED_COUNT = 5;
export const CONTROL_PARKED = 16;
/** What the kernel can have accepted before the order to stop takes effect: two batches of events. */
export const PARKED_MAX = 4096;
const CONTROL_WORDS = CONTROL_PARKED + PARKED_MAX * 2;

export const COMMAND_RUN = 0;
/** Accept no more, let sessions finish, then stop. */
export const COMMAND_DRAIN = 1;
/** End what is open by RST with reason `shutdown`, then stop. */
export const COMMAND_STOP = 2;
/** Throw, as a bug would: fault injection of the tests. */
export const COMMAND_CRASH = 3;

/** As COMMAND_DRAIN, but another process accepts on the same sockets by now. */
export const COMMAND_HAND_OVER = 5;
/** Do not accept yet: the control plane is not ready, or another process still accepts. Comes before COMMAND_RUN. */
export const COMMAND_HOLD = 4;

/** 0 until then: zeroed memory is a worker that is starting. */
export const PHASE_RUNNING = 1;
/** Accepts no more and has no accept in flight: the listening sockets may be closed. */
export const PHASE_DRAINING = 2;
export const PHASE_DRAINED = 3;

/** For all workers: open sessions, against EDGEPROXY_MAX_CONNECTIONS. */
export const GLOBAL_SESSIONS = 0;
const GLOBAL_WORDS = 16;

export function createControlBlock(command = COMMAND_RUN): SharedArrayBuffer {
  const block = new SharedArrayBuffer(CONTROL_WORDS * 4);
  new Int32Array(block)[CONTROL_COMMAND] = command;
  return block;
}

export function createGlobalBlock(): SharedArrayBuffer {
  return new SharedArrayBuffer(GLOBAL_WORDS * 4);
}
