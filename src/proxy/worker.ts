// The data plane's loop: one batch of events from the engine, then timers, waiting directions, publications and commands.
// Blocking engines are driven by runWorker(); an event-driven one calls runBatch() itself.

import {
  EVENT_BUFFER,
  EVENT_ENDPOINT,
  EVENT_GENERATION,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  OP_ACCEPT,
  OP_CONNECT,
  OP_PUMP,
  OP_RECEIVE,
  OP_SEND,
} from '../engine/proactor.ts';
import { setSelectorTime } from '../route/select.ts';
import {
  onAccept,
  parkedCount,
  pauseAccept,
  rejectParked,
  resumeAccept,
  reviewAccept,
  takeWaiting,
} from './accept.ts';
import { admitHeld, onConnect } from './admit.ts';
import { feedStarved } from './buffer-turns.ts';
import { REASON_SHUTDOWN } from './close-reason.ts';
import { runTimers } from './deadlines.ts';
import { endDrained } from './drain.ts';
import { endSession } from './end.ts';
import { onHeaderReceive } from './proxy-header.ts';
import { feedOwed, onPump, onReceive, onSend } from './relay.ts';
import { recordLasting } from './session-records.ts';
import { STATE_CLOSING, STATE_FREE, STATE_HEADER } from './sessions.ts';
import {
  COMMAND_CRASH,
  COMMAND_HAND_OVER,
  COMMAND_HOLD,
  COMMAND_RUN,
  COMMAND_STOP,
  CONTROL_COMMAND,
  CONTROL_PHASE,
  CONTROL_PUBLICATIONS,
  PHASE_DRAINING,
} from './shared.ts';
import {
  STAT_BATCHES,
  STAT_BUFFERS_IN_USE,
  STAT_EVENTS,
  STAT_SLOTS,
  STAT_STALE_EVENTS,
} from './stats.ts';
import { TICK_MS, type WorkerState } from './worker-state.ts';

const FOREVER = -1;

/** Runs until the control plane has the worker drained or stopped. `takePublications` is called when some wait. */
export function runWorker(worker: WorkerState, takePublications: () => void): void {
  resumeAccept(worker);
  for (;;) {
    const events = worker.engine.wait(nextWaitMs(worker));
    if (!runBatch(worker, events, takePublications)) return;
  }
}

/** With no session and nothing held back, nothing needs the clock. */
export function nextWaitMs(worker: WorkerState): number {
  if (worker.drainLeft > 0) return 0;
  const idle = worker.sessions.slots.used === 0 && !worker.acceptPaused && worker.backoff[0] === 0;
  return idle ? FOREVER : TICK_MS;
}

/** Handles the engine's `events` and what is due besides. False: the worker is done. */
export function runBatch(
  worker: WorkerState,
  events: number,
  takePublications: () => void,
): boolean {
  worker.engine.readClock(worker.clock);
  worker.clientClock[0] = Math.floor(worker.clock[0] - worker.options.epochMs);
  setSelectorTime(worker.selector, worker.clientClock[0]);
  for (let event = 0; event < events; event++) handleEvent(worker, event * EVENT_WORDS);
  const { totals } = worker.stats;
  totals[STAT_BATCHES]++;
  totals[STAT_EVENTS] += events;
  runTimers(worker);
  if (worker.recorder !== null) recordLasting(worker, worker.recorder);
  if (worker.owedCount > 0) feedOwed(worker);
  if (worker.starvedCount > 0) feedStarved(worker);
  totals[STAT_BUFFERS_IN_USE] = worker.engine.buffersInUse();
  totals[STAT_SLOTS] = worker.sessions.slots.fresh;
  if (worker.acceptPaused || worker.backoff[0] !== 0) reviewAccept(worker);
  // Pairs with the control plane's add after posting: a counted message is there to be received.
  if (Atomics.load(worker.control, CONTROL_PUBLICATIONS) !== worker.publicationsSeen) {
    takePublications();
  }
  if (worker.drainLeft > 0) endDrained(worker);
  return obeyCommand(worker);
}

function handleEvent(worker: WorkerState, at: number): void {
  const { events } = worker.engine;
  const operation = events[at + EVENT_OP];
  const endpoint = events[at + EVENT_ENDPOINT];
  const result = events[at + EVENT_RESULT];
  const buffer = events[at + EVENT_BUFFER];
  const more = events[at + EVENT_MORE];
  if (operation === OP_ACCEPT) {
    onAccept(worker, endpoint, result, more);
    return;
  }
  const { sessions } = worker;
  const slot = endpoint >> 1;
  const state = sessions.state[slot];
  const late = state === STATE_FREE || sessions.generation[slot] !== events[at + EVENT_GENERATION];
  if (late) {
    // Cannot happen while slots wait for their last event; counted, so that it would be seen if it did.
    worker.stats.totals[STAT_STALE_EVENTS]++;
    if (buffer >= 0 && operation === OP_RECEIVE) worker.engine.releaseBuffer(buffer);
    return;
  }
  if (operation === OP_RECEIVE) {
    if (state !== STATE_HEADER) onReceive(worker, endpoint, result, buffer, more);
    else if (onHeaderReceive(worker, endpoint, result, buffer, more)) admitHeld(worker, slot);
  } else if (operation === OP_SEND) onSend(worker, endpoint, result);
  else if (operation === OP_CONNECT) onConnect(worker, endpoint, result);
  else if (operation === OP_PUMP) onPump(worker, endpoint, result, buffer, more);
}

function obeyCommand(worker: WorkerState): boolean {
  const command = Atomics.load(worker.control, CONTROL_COMMAND);
  if (command === COMMAND_RUN) {
    if (worker.held) {
      worker.held = false;
      resumeAccept(worker);
    }
    return true;
  }
  if (command === COMMAND_HOLD) return true;
  if (command === COMMAND_CRASH) throw new Error('Worker was told to crash');
  if (!worker.draining) {
    worker.draining = true;
    pauseAccept(worker);
  }
  if (command === COMMAND_STOP) {
    rejectParked(worker);
    endAllSessions(worker);
  }
  if (worker.accepting.includes(1)) return true;
  if (worker.control[CONTROL_PHASE] < PHASE_DRAINING) {
    // After the last event of the accepts, so that nothing is left to the close of the listeners, which comes next.
    if (command !== COMMAND_STOP) takeWaiting(worker, command === COMMAND_HAND_OVER);
    Atomics.store(worker.control, CONTROL_PHASE, PHASE_DRAINING);
  }
  return worker.sessions.slots.used > 0 || parkedCount(worker) > 0;
}

function endAllSessions(worker: WorkerState): void {
  const { sessions } = worker;
  for (let slot = 0; slot < sessions.slots.fresh; slot++) {
    const state = sessions.state[slot];
    if (state !== STATE_FREE && state !== STATE_CLOSING) endSession(worker, slot, REASON_SHUTDOWN);
  }
}
