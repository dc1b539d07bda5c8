// From an accepted socket to an open backend connection: who the client is, which backend, connect, and the next-best
// backend when that fails. DESIGN 3.4 is the order of decisions.

import { takeSlot } from '../base/slot-pool.ts';
import { clearTimer, setTimerTicks } from '../base/timer-wheel.ts';
import { type AccessList, decideAccess, isDenied } from '../route/access-list.ts';
import {
  acquireClient,
  bindClient,
  clientBackend,
  clientIncarnation,
  releaseClient,
} from '../route/client-table.ts';
import { lookupIPv4, lookupIPv6 } from '../route/geo-table.ts';
import { ALL_FULL, releaseBackend, reserveBackend, reserveBound } from '../route/select.ts';
import { tierOf } from '../route/tier-plan.ts';
import { ECANCELED, EMFILE, ENFILE, ETIMEDOUT } from '../sys/errno.ts';
import { checkClientLimits, PASS } from './client-limits.ts';
import {
  REASON_CONNECT_FAILED,
  REASON_CONNECT_TIMEOUT,
  REASON_NO_DESCRIPTORS,
  REJECT_ACCESS_DENIED,
  REJECT_CLIENT_GONE,
  REJECT_HARD_LIMIT,
  REJECT_MAX_CONNECTIONS,
  REJECT_NO_BACKEND,
} from './close-reason.ts';
import { ticksOf } from './deadlines.ts';
import {
  closeEndpoint,
  endSession,
  reject,
  rejectHeld,
  releaseReserved,
  settleClosing,
} from './end.ts';
import { awaitHeader, isTrusted, readClient, takeConnection } from './proxy-header.ts';
import { startRelay } from './relay.ts';
import { recordOpening } from './session-records.ts';
import {
  bumpGeneration,
  MAPPED_WORD,
  STATE_CLOSING,
  STATE_CONNECTING,
  STATE_RELAYING,
  setClient,
} from './sessions.ts';
import {
  countConnect,
  countConnectFailure,
  STAT_ACCESS_DRY_RUN,
  STAT_BOUND_SESSIONS,
  STAT_COUNTRY_OPENED,
  STAT_FAIL_OPEN,
  STAT_RETRIES,
  STAT_TIER,
  STAT_UNBOUND_SESSIONS,
} from './stats.ts';
import { backendFailed } from './verdict.ts';
import type { WorkerState } from './worker-state.ts';

const NO_CLIENT = -1;
const NO_SLOT = -1;

/** Makes an accepted connection a session, or turns it away: then the result is false. */
export function admit(worker: WorkerState, listener: number, socket: number): boolean {
  const { engine, peer, options } = worker;
  if (worker.recorder !== null) worker.recorder.listenerNow = listener;
  if (engine.readPeer(socket, peer) < 0) {
    reject(worker, socket, REJECT_CLIENT_GONE);
    return false;
  }
  const app = options.listeners[listener].app;
  if (worker.proxyIn.accept !== 0 && isTrusted(worker)) return awaitHeader(worker, app, socket);
  return admitClient(worker, app, socket, NO_SLOT);
}

/** The same for a connection that has a slot since its PROXY header was waited for. */
export function admitHeld(worker: WorkerState, slot: number): void {
  const { sessions } = worker;
  const socket = sessions.sockets[slot * 2] - 1;
  if (worker.recorder !== null) worker.recorder.listenerNow = worker.recorder.listener[slot];
  if (readClient(worker, slot) < 0) rejectHeld(worker, slot, REJECT_CLIENT_GONE);
  else admitClient(worker, sessions.app[slot], socket, slot);
}

function turnAway(worker: WorkerState, socket: number, held: number, reason: number): boolean {
  if (held === NO_SLOT) reject(worker, socket, reason);
  else rejectHeld(worker, held, reason);
  return false;
}

/** The client is the one in `worker.peer`; `held` is the slot the connection has already, or NO_SLOT. */
function admitClient(worker: WorkerState, app: number, socket: number, held: number): boolean {
  const { peer, options, stats } = worker;
  const mapped = peer.family === 4 ? MAPPED_WORD : peer.w2;
  const country =
    peer.family === 4
      ? lookupIPv4(worker.geo, peer.w3)
      : lookupIPv6(worker.geo, peer.w0, peer.w1, peer.w2, peer.w3);
  if (worker.access !== null && isKeptOut(worker, worker.access, app, mapped, country)) {
    return turnAway(worker, socket, held, REJECT_ACCESS_DENIED);
  }
  const limitRow = checkClientLimits(worker);
  if (limitRow < PASS) return turnAway(worker, socket, held, -2 - limitRow);
  const row = acquireClient(
    worker.clients,
    peer.w0,
    peer.w1,
    mapped,
    peer.w3,
    app,
    worker.clientClock[0],
    options.bindingTtlMs,
  );
  if (row === NO_CLIENT) stats.totals[STAT_UNBOUND_SESSIONS]++;
  const backend = chooseBackend(worker, app, country, row);
  const slot = backend < 0 || held >= 0 ? held : takeSlot(worker.sessions.slots);
  if (backend < 0 || slot < 0) {
    if (row !== NO_CLIENT) releaseClient(worker.clients, row, worker.clientClock[0]);
    if (limitRow !== PASS) releaseClient(worker.clients, limitRow, worker.clientClock[0]);
    if (backend >= 0) releaseBackend(worker.backendState, backend);
    const reason =
      backend >= 0
        ? REJECT_MAX_CONNECTIONS
        : backend === ALL_FULL
          ? REJECT_HARD_LIMIT
          : REJECT_NO_BACKEND;
    return turnAway(worker, socket, held, reason);
  }
  if (held === NO_SLOT) takeConnection(worker, slot, socket, app);
  openSession(worker, slot, country, row);
  worker.sessions.limitRow[slot] = limitRow + 1;
  if (worker.recorder !== null) recordOpening(worker.recorder, slot);
  connectTo(worker, slot, backend);
  return true;
}

/** Whether the access list denies the client in `worker.peer`; a dry run only counts. */
function isKeptOut(
  worker: WorkerState,
  list: AccessList,
  app: number,
  mapped: number,
  country: number,
): boolean {
  const { peer } = worker;
  const decision = decideAccess(list, app, peer.w0, peer.w1, mapped, peer.w3, country);
  if (!isDenied(decision)) return false;
  if (!worker.options.accessDryRun) return true;
  worker.stats.totals[STAT_ACCESS_DRY_RUN]++;
  return false;
}

/** A live binding wins; else the best backend. Reserved, or negative as reserveBackend() has it. */
function chooseBackend(worker: WorkerState, app: number, country: number, row: number): number {
  if (row !== NO_CLIENT) {
    const bound = clientBackend(worker.clients, row);
    if (bound >= 0) {
      const incarnation = clientIncarnation(worker.clients, row);
      if (reserveBound(worker.selector, app, bound, incarnation)) {
        worker.stats.totals[STAT_BOUND_SESSIONS]++;
        return bound;
      }
    }
  }
  return reserveBackend(worker.selector, app, country, worker.failed, 0);
}

/** The slot, which has its connection already, is a session of the client in `worker.peer`. */
function openSession(worker: WorkerState, slot: number, country: number, row: number): void {
  const { sessions, options, stats } = worker;
  setClient(sessions, slot, worker.peer);
  sessions.country[slot] = country;
  sessions.clientRow[slot] = row + 1;
  sessions.state[slot] = STATE_CONNECTING;
  stats.totals[STAT_COUNTRY_OPENED + country]++;
  setTimerTicks(worker.timers, slot, ticksOf(options.connectTimeoutMs));
}

/** Starts connecting to `backend`, whose place is reserved already. */
function connectTo(worker: WorkerState, slot: number, backend: number): void {
  const { sessions, engine, selector } = worker;
  const snapshot = selector.snapshot;
  sessions.backend[slot] = backend + 1;
  sessions.trial[slot] = selector.trial;
  if (selector.failedOpen) worker.stats.totals[STAT_FAIL_OPEN]++;
  if (snapshot === null) return;
  sessions.incarnation[slot] = snapshot.incarnation[backend];
  const country = sessions.country[slot];
  sessions.tier[slot] = tierOf(
    snapshot,
    snapshot.region[backend],
    snapshot.country[backend],
    country,
  );
  sessions.headerOut[slot] = snapshot.proxyProtocol[backend];
  const family = snapshot.family[backend];
  const socket = engine.openSocket(family);
  if (socket < 0) {
    endSession(worker, slot, REASON_NO_DESCRIPTORS);
    return;
  }
  const endpoint = slot * 2 + 1;
  sessions.sockets[endpoint] = socket + 1;
  sessions.attemptAt[slot] = worker.clock[0];
  sessions.pending[slot]++;
  engine.connect(
    endpoint,
    sessions.generation[slot],
    socket,
    family,
    snapshot.addressWords,
    backend * 4,
    snapshot.port[backend],
  );
}

export function onConnect(worker: WorkerState, endpoint: number, result: number): void {
  const { sessions, stats, options } = worker;
  const slot = endpoint >> 1;
  sessions.pending[slot]--;
  if (sessions.state[slot] === STATE_CLOSING) {
    settleClosing(worker, slot);
    return;
  }
  const backend = sessions.backend[slot] - 1;
  const now = worker.clock[0];
  if (result === 0) {
    countConnect(stats, backend, worker.clock, sessions.attemptAt, slot);
    stats.totals[STAT_TIER + sessions.tier[slot]]++;
    const row = sessions.clientRow[slot] - 1;
    if (row !== NO_CLIENT) {
      const incarnation = sessions.incarnation[slot];
      bindClient(worker.clients, row, backend, incarnation, worker.clientClock[0]);
    }
    sessions.state[slot] = STATE_RELAYING;
    sessions.activityAt[slot] = now;
    sessions.connectedAt[slot] = now;
    bumpGeneration(sessions, slot);
    // The connect's timer runs on and looks at the idle time when it fires, unless that is too late.
    if (options.idleTimeoutMs > 0 && options.idleTimeoutMs < options.connectTimeoutMs) {
      clearTimer(worker.timers, slot);
      setTimerTicks(worker.timers, slot, ticksOf(options.idleTimeoutMs));
    }
    startRelay(worker, slot);
    return;
  }
  if (result === -EMFILE || result === -ENFILE) {
    // node:net makes the socket as it connects. The backend is not to blame, nor would another one help.
    endSession(worker, slot, REASON_NO_DESCRIPTORS);
    return;
  }
  countConnectFailure(stats, backend);
  backendFailed(worker, slot);
  closeEndpoint(worker, endpoint, 1);
  releaseReserved(worker, slot);
  sessions.failed[slot * sessions.attemptsMax + sessions.attempts[slot]] = backend;
  sessions.attempts[slot]++;
  // A cancelled connect is one that its deadline ended.
  const timedOut = result === -ECANCELED || result === -ETIMEDOUT;
  const reason = timedOut ? REASON_CONNECT_TIMEOUT : REASON_CONNECT_FAILED;
  const left = now - sessions.acceptedAt[slot] < options.connectTotalTimeoutMs;
  if (!left || sessions.attempts[slot] > options.connectRetries) endSession(worker, slot, reason);
  else retry(worker, slot, reason);
}

/** The next-best backend that has not failed this client; when there is none the session ends for `reason`. */
function retry(worker: WorkerState, slot: number, reason: number): void {
  const { sessions, failed } = worker;
  const attempts = sessions.attempts[slot];
  for (let index = 0; index < attempts; index++) {
    failed[index] = sessions.failed[slot * sessions.attemptsMax + index];
  }
  const app = sessions.app[slot];
  const next = reserveBackend(worker.selector, app, sessions.country[slot], failed, attempts);
  if (next < 0) {
    endSession(worker, slot, reason);
    return;
  }
  worker.stats.totals[STAT_RETRIES]++;
  bumpGeneration(sessions, slot);
  connectTo(worker, slot, next);
}
