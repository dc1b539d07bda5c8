// The tables of a worker against each other and against the engine, after a batch: counts of slots, timers, buffers,
// operations in flight and reserved places must agree, and no session may be past its deadline.

import { COUNTRIES_MAX } from '../limits.ts';
import {
  RECEIVE_ARMED,
  RECEIVE_CANCELLING,
  RECEIVE_HELD,
  RECEIVE_PUMP_STOPPING,
  RECEIVE_PUMPING,
  RECEIVE_STARVED,
  STATE_CLOSING,
  STATE_CONNECTING,
  STATE_FREE,
  STATE_HEADER,
  STATE_RELAYING,
} from '../proxy/sessions.ts';
import { GLOBAL_SESSIONS } from '../proxy/shared.ts';
import { STAT_COUNTRY_ENDED, STAT_COUNTRY_OPENED, STAT_CURRENT } from '../proxy/stats.ts';
import type { WorkerState } from '../proxy/worker-state.ts';
import { BACKEND_INDEXES_MAX } from './sim-control.ts';
import { PUMP, RECEIVE, SEND } from './sim-operations.ts';
import type { SlotRecord } from './sim-slot-record.ts';
import { fail } from './sim-trace.ts';
import type { SimWorker, SimWorld } from './sim-world.ts';
import type { SimulatedEngine } from './simulated-engine.ts';

/** A timer fires up to a tick late, is looked at a tick later, and the worker and its completions may be late too. */
const SLACK_MS = 700;

/** Buffers that a direction may have waiting before its receive is stopped (relay.ts). */
const QUEUED_MAX = 8;

const reserved = new Int32Array(BACKEND_INDEXES_MAX);

/** What must hold of one slot. */
export function checkSlot(
  world: SimWorld,
  worker: SimWorker,
  index: number,
  slot: number,
  record: SlotRecord,
): void {
  const { state, engine } = worker;
  const { sessions, timers } = state;
  if (sessions.state[slot] === STATE_FREE) {
    if (timers.bucket[slot] !== 0) fail('A free slot has a timer', index, slot);
    if (sessions.backend[slot] !== 0) fail('A free slot has a backend', index, slot);
    return;
  }
  const { operations } = engine;
  const pending = operations.inFlight(slot * 2) + operations.inFlight(slot * 2 + 1);
  if (sessions.pending[slot] !== pending) {
    fail(`${pending} operations in flight, ${sessions.pending[slot]} counted`, index, slot);
  }
  checkEndpoint(state, engine, index, slot * 2);
  checkEndpoint(state, engine, index, slot * 2 + 1);
  const isOpen = sessions.state[slot] !== STATE_CLOSING;
  const backend = (sessions.backend[slot] as number) - 1;
  const incarnation = sessions.incarnation[slot] as number;
  if (isOpen && backend >= 0) world.drains.checkOpen(backend, incarnation, index, slot);
  if (sessions.state[slot] === STATE_CONNECTING) checkConnecting(world, state, index, slot, record);
  else if (sessions.state[slot] === STATE_RELAYING) {
    checkRelaying(world, state, index, slot, record);
  } else if (sessions.state[slot] === STATE_HEADER) {
    const late = SLACK_MS + world.options.busyMsMax * 4 + world.options.engine.lateMsMax;
    world.checks.headers.checkWaiting(index, slot, late);
  }
}

/** What must hold of a worker's tables as a whole, and of every slot. */
export function checkTables(
  world: SimWorld,
  worker: SimWorker,
  index: number,
  record: SlotRecord,
): void {
  const { state, engine } = worker;
  const { sessions, timers, stats } = state;
  let open = 0;
  let buffers = 0;
  let starved = 0;
  let held = 0;
  for (let slot = 0; slot < sessions.slots.fresh; slot++) {
    checkSlot(world, worker, index, slot, record);
    if (sessions.state[slot] === STATE_FREE) continue;
    open++;
    for (let endpoint = slot * 2; endpoint <= slot * 2 + 1; endpoint++) {
      buffers += sessions.queueCount[endpoint] + (sessions.sending[endpoint] !== 0 ? 1 : 0);
      const { [slot]: slotState } = sessions.state;
      const hears = slotState === STATE_RELAYING || slotState === STATE_HEADER;
      if (hears && sessions.receiving[endpoint] === RECEIVE_STARVED) starved++;
      if (slotState === STATE_RELAYING && sessions.receiving[endpoint] === RECEIVE_HELD) held++;
    }
  }
  if (buffers !== engine.buffers.held) {
    fail(`${engine.buffers.held} buffers are held, sessions know of ${buffers}`, index);
  }
  if (open !== sessions.slots.used) fail(`${sessions.slots.used} slots used, ${open} open`, index);
  if (stats.totals[STAT_CURRENT] !== open) fail('Open sessions are counted wrong', index);
  let byCountry = 0;
  for (let country = 0; country < COUNTRIES_MAX; country++) {
    byCountry += stats.totals[STAT_COUNTRY_OPENED + country] as number;
    byCountry -= stats.totals[STAT_COUNTRY_ENDED + country] as number;
  }
  const admitted = open - world.checks.headers.unadmitted(index);
  if (byCountry !== admitted) fail(`${byCountry} sessions by country, ${open} open`, index);
  if (timers.count > open) fail('A timer leaked', index);
  if (held > 0 && state.owedCount === 0) fail('A PROXY header that waits is not listed', index);
  if (starved > 0 && state.starvedCount === 0) fail('A starved direction is not listed', index);
  checkShared(world, index);
}

/** An endpoint's state against what the engine has in flight for it. */
function checkEndpoint(
  { sessions }: WorkerState,
  { operations }: SimulatedEngine,
  index: number,
  endpoint: number,
): void {
  const slot = endpoint >> 1;
  const receiving = sessions.receiving[endpoint];
  const isRelaying = sessions.state[slot] === STATE_RELAYING;
  if (isRelaying || sessions.state[slot] === STATE_HEADER) {
    const wanted = receiving === RECEIVE_ARMED || receiving === RECEIVE_CANCELLING;
    const pumping = receiving === RECEIVE_PUMPING || receiving === RECEIVE_PUMP_STOPPING;
    const isReceiving = operations.isInFlight(endpoint, RECEIVE);
    if (isReceiving !== wanted || operations.isInFlight(endpoint, PUMP) !== pumping) {
      fail('The receive state is not that of the engine', index, slot);
    }
  }
  if (receiving === RECEIVE_ARMED && sessions.queueCount[endpoint] >= QUEUED_MAX) {
    fail('Receiving goes on though the queue is full', index, slot);
  }
  const sending = sessions.sending[endpoint] !== 0;
  if (operations.isInFlight(endpoint, SEND) !== sending) {
    fail('A send the engine has not', index, slot);
  }
  const waits = sessions.queueCount[endpoint] > 0 && sessions.sending[endpoint ^ 1] === 0;
  if (isRelaying && waits && receiving !== RECEIVE_HELD)
    fail('Buffers wait though nothing is sent', index, slot);
}

function checkConnecting(
  world: SimWorld,
  state: WorkerState,
  index: number,
  slot: number,
  record: SlotRecord,
): void {
  const now = world.network.clock[0];
  const { connectTimeoutMs, connectTotalTimeoutMs } = world.options.worker;
  const late = SLACK_MS + world.options.busyMsMax * 4 + world.options.engine.lateMsMax;
  if (now - (record.connectAt[slot] as number) > connectTimeoutMs + late) {
    fail('A connect is past its deadline', index, slot);
  }
  if (now - (state.sessions.acceptedAt[slot] as number) > connectTotalTimeoutMs + late) {
    fail('The connects of a session are past their deadline', index, slot);
  }
}

function checkRelaying(
  world: SimWorld,
  state: WorkerState,
  index: number,
  slot: number,
  record: SlotRecord,
): void {
  const now = world.network.clock[0];
  const { idleTimeoutMs, halfClosedTimeoutMs } = world.options.worker;
  const late = SLACK_MS + world.options.busyMsMax * 4 + world.options.engine.lateMsMax;
  const silent = now - (record.movedAt[slot] as number);
  if (idleTimeoutMs > 0 && silent > idleTimeoutMs + late)
    fail('An idle session is still open', index, slot);
  const half = Math.min(silent, now - (record.halfAt[slot] as number));
  if (halfClosedTimeoutMs > 0 && half > halfClosedTimeoutMs + late) {
    fail('A half-closed and silent session is still open', index, slot);
  }
  const row = (state.sessions.clientRow[slot] as number) - 1;
  if (row >= 0) world.checks.checkBinding(index, slot, row);
}

/** Reserved places and open sessions of all workers against the shared counts. */
function checkShared(world: SimWorld, index: number): void {
  let open = 0;
  let end = 0;
  for (const { state } of world.workers) {
    const { sessions } = state;
    open += sessions.slots.used;
    for (let slot = 0; slot < sessions.slots.fresh; slot++) {
      const backend = (sessions.backend[slot] as number) - 1;
      if (backend < 0) continue;
      reserved[backend]++;
      if (backend >= end) end = backend + 1;
    }
  }
  const { state } = world.workers[0] as SimWorker;
  const { active } = state.backendState;
  const all = Math.max(end, world.control.snapshot.backendEnd);
  for (let backend = 0; backend < all; backend++) {
    if (active[backend] !== reserved[backend]) {
      fail(
        `Backend ${backend} counts ${active[backend]} sessions, not ${reserved[backend]}`,
        index,
      );
    }
    reserved[backend] = 0;
  }
  if (open > world.options.worker.maxConnections) fail(`${open} sessions are too many`, index);
  if (state.global[GLOBAL_SESSIONS] !== open) fail('Sessions of all are counted wrong', index);
}
