// What must hold when a simulated run is over: nothing is left anywhere, the statistics say what happened, and no client
// or backend was given a truncated stream that looks complete.

import { CLOSE_REASONS, REJECT_ACCESS_DENIED, REJECT_REASONS } from '../proxy/close-reason.ts';
import { GLOBAL_SESSIONS } from '../proxy/shared.ts';
import {
  BACKEND_BYTES,
  BACKEND_CONNECTIONS,
  BACKEND_STATS,
  DURATION_MS_BUCKETS,
  STAT_ACCEPT_ERRORS,
  STAT_BYTES,
  STAT_CONNECTIONS,
  STAT_CURRENT,
  STAT_DURATION_BUCKETS,
  STAT_END,
  STAT_PUMPS,
  STAT_REJECTED,
  STAT_RETRIES,
  STAT_STALE_EVENTS,
  STAT_TIER,
} from '../proxy/stats.ts';
import { clientOpenSessions, clientTableCounts } from '../route/client-table.ts';
import type { SimChecks } from './sim-checks.ts';
import { BACKEND_INDEXES_MAX } from './sim-control.ts';
import { FIN_ARRIVED, FIN_NONE, OWNER_PROXY } from './sim-network.ts';
import { fail } from './sim-trace.ts';
import type { SimWorker, SimWorld } from './sim-world.ts';

export function checkEnd(world: SimWorld, checks: SimChecks): void {
  for (let index = 0; index < world.workers.length; index++) {
    const worker = world.workers[index] as SimWorker;
    if (!worker.done) fail('A worker never stopped', index);
    checkNothingLeft(worker, index);
    checkStats(worker, index, checks);
  }
  const { state } = world.workers[0] as SimWorker;
  if (state.global[GLOBAL_SESSIONS] !== 0) fail('Sessions are left in the count of all');
  for (let backend = 0; backend < BACKEND_INDEXES_MAX; backend++) {
    if (state.backendState.active[backend] !== 0) fail(`Backend ${backend} counts a session`);
  }
  const counts = clientTableCounts(world.clients);
  for (let row = 0; row < Math.min(world.options.clientRows, world.options.clients * 2); row++) {
    if (clientOpenSessions(world.clients, row) !== 0) fail(`Client row ${row} is still held`);
  }
  if (counts.rows > world.options.clientRows) fail('The client table counts too many rows');
  checkStreams(world);
  checks.records.atEnd();
}

function checkNothingLeft({ state, engine }: SimWorker, index: number): void {
  const { sessions, timers } = state;
  if (sessions.slots.used !== 0) fail('A slot is left', index);
  if (timers.count !== 0) fail('A timer is left', index);
  if (!engine.buffers.allFree()) fail('A buffer is left', index);
  if (engine.sockets.open !== 0) fail(`${engine.sockets.open} sockets are left`, index);
  if (!engine.isClean()) fail('An operation is left', index);
  if (sessions.queueCount.some((count) => count !== 0)) fail('A queue is left', index);
  if (sessions.sockets.some((socket) => socket !== 0)) fail('A session kept a socket', index);
}

function expectEqual(what: string, counted: number, happened: number, index: number): void {
  if (counted !== happened) fail(`${what}: ${counted} counted, ${happened} happened`, index);
}

function sumOf(totals: Float64Array, first: number, count: number): number {
  return totals.subarray(first, first + count).reduce((sum, value) => sum + value, 0);
}

function checkStats({ state, engine }: SimWorker, index: number, checks: SimChecks): void {
  const { totals, backends } = state.stats;
  expectEqual('Connections', totals[STAT_CONNECTIONS] as number, engine.accepts.count, index);
  expectEqual('Current', totals[STAT_CURRENT] as number, 0, index);
  expectEqual('Stale events', totals[STAT_STALE_EVENTS] as number, 0, index);
  expectEqual('Pumps', totals[STAT_PUMPS] as number, engine.pumps, index);
  let ended = 0;
  for (let reason = 0; reason < CLOSE_REASONS.length; reason++) {
    const happened = checks.ended[index * CLOSE_REASONS.length + reason] as number;
    const name = CLOSE_REASONS[reason]?.name ?? '';
    expectEqual(`Ended for ${name}`, totals[STAT_END + reason] as number, happened, index);
    ended += happened;
  }
  let rejected = 0;
  for (let reason = 0; reason < REJECT_REASONS.length; reason++) {
    rejected += totals[STAT_REJECTED + reason] as number;
  }
  expectEqual('Rejected', rejected, checks.rejected[index] as number, index);
  const denied = totals[STAT_REJECTED + REJECT_ACCESS_DENIED] as number;
  // Some of them had left, or found no place, before the list was asked.
  if (denied > (checks.keptOut[index] as number)) fail('An allowed client was denied', index);
  expectEqual('Rejected and ended', rejected + ended, engine.accepts.count, index);
  for (let errno = 0; errno < 256; errno++) {
    const counted = totals[STAT_ACCEPT_ERRORS + errno] as number;
    expectEqual(`Accept error ${errno}`, counted, engine.accepts.errors[errno] as number, index);
  }
  const up = totals[STAT_BYTES] as number;
  const bytes = up + (totals[STAT_BYTES + 1] as number);
  // What a session held when it ended was received and not sent; what came after its end is not counted.
  if (bytes > engine.bytesReceived) fail('More bytes are counted than were received', index);
  if (bytes < engine.bytesSent) fail('Fewer bytes are counted than were sent', index);
  const retries = (checks.connects[index] as number) - (checks.firstConnects[index] as number);
  // A retry that found no descriptor never got to connect.
  if ((totals[STAT_RETRIES] as number) < retries) fail('Retries are not all counted', index);
  let connected = 0;
  let backendBytes = 0;
  for (let backend = 0; backend < BACKEND_INDEXES_MAX; backend++) {
    const at = backend * BACKEND_STATS;
    connected += backends[at + BACKEND_CONNECTIONS] as number;
    backendBytes += (backends[at + BACKEND_BYTES] + backends[at + BACKEND_BYTES + 1]) as number;
  }
  expectEqual('Connected', connected, checks.connected[index] as number, index);
  expectEqual('Bytes by backend', backendBytes, bytes, index);
  expectEqual('Connected by tier', sumOf(totals, STAT_TIER, 4), connected, index);
  const durations = sumOf(totals, STAT_DURATION_BUCKETS, DURATION_MS_BUCKETS.length + 1);
  expectEqual('Durations', durations, ended, index);
}

/** Of each stream the proxy wrote: FIN only after all of a stream that ended; and nothing else than FIN or RST ends it. */
function checkStreams(world: SimWorld): void {
  const { network } = world;
  for (let end = 0; end < network.ends; end++) {
    if (network.owner[end] < OWNER_PROXY) continue;
    const worker = network.owner[end] - OWNER_PROXY;
    if (network.closed[end] === 0) fail(`End ${end} was never closed`, worker);
    const peer = end ^ 1;
    const sawFin = network.fin[end] === FIN_ARRIVED;
    if (network.over[end] === 0 && network.over[peer] === 0 && network.fin[end] === FIN_NONE) {
      fail(`End ${peer} was sent neither FIN nor RST`, worker);
    }
    if (network.fin[end] === FIN_NONE) continue;
    const pair = network.pair[end] as number;
    const origin = pair < 0 ? -1 : pair ^ 1;
    if (origin < 0) fail(`End ${peer} saw a FIN that no peer sent`, worker);
    const whole =
      network.fin[origin] === FIN_ARRIVED &&
      network.positionOf(end, network.arrived[end] as number) === network.wrote[origin];
    if (sawFin && !whole) fail(`End ${peer} saw a truncated stream end by FIN`, worker);
  }
}
