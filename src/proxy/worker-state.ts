// Everything one worker owns, made once. The functions of the data plane (admit, relay, end, deadlines) take it first.

import { createTimerWheel, type TimerWheel } from '../base/timer-wheel.ts';
import type { Proactor } from '../engine/proactor.ts';
import { WRITE_BUFFERS } from '../engine/write-buffers.ts';
import { type AccessList, openAccessList } from '../route/access-list.ts';
import { type BackendState, openBackendState } from '../route/backend-state.ts';
import type { BreakerPolicy } from '../route/breaker.ts';
import { type ClientTable, openClientTable } from '../route/client-table.ts';
import { type GeoTable, openGeoTable } from '../route/geo-table.ts';
import { createSelector, type Selector, useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { type ClientLimits, NO_LIMITS } from './client-limits.ts';
import { PROXY_HEADER_BYTES_MAX } from './proxy-protocol.ts';
import type { ProxyExtras } from './proxy-protocol-write.ts';
import {
  createRecorder,
  RECORD_ALL,
  type Recorder,
  type RecordOptions,
} from './session-records.ts';
import { createSessions, type Sessions } from './sessions.ts';
import { COMMAND_HOLD, CONTROL_COMMAND } from './shared.ts';
import { openWorkerStats, STAT_BUFFERS_MAX, type WorkerStats } from './stats.ts';

/** Coarse is enough for seconds-long timeouts, and 10 wake-ups a second cost nothing. */
export const TICK_MS = 100;

export interface ListenerOptions {
  /** The engine's number of a listening socket. */
  readonly socket: number;
  /** Other workers accept on it, too. */
  readonly shared: boolean;
  /** App index, 0 = any. */
  readonly app: number;
  /** Its address; the portable engine listens there itself. */
  readonly host: string;
  readonly port: number;
  readonly v6Only: boolean;
}

/** Connections from trusted proxies must begin with a PROXY header. */
export interface ProxyInOptions {
  /** PROXY_ACCEPT_… of proxy-protocol.ts; 0 = off. */
  readonly accept: number;
  /** See route/prefix-list.ts. */
  readonly trusted: Int32Array;
  readonly timeoutMs: number;
}

/** Parts of headers up to this are kept by slot: all of version 1, and most of version 2. */
export const HEADER_PART_BYTES = 128;

/** What came of PROXY headers that are not whole yet. */
export interface HeaderParts {
  /** HEADER_PART_BYTES per slot; untouched ones cost no memory. */
  readonly parts: Uint8Array;
  /** By slot. */
  readonly bytes: Uint8Array;
  /** For a part and what came behind it. */
  readonly scratch: Uint8Array;
}

function createHeaderParts(slots: number): HeaderParts {
  return {
    parts: new Uint8Array(slots * HEADER_PART_BYTES),
    bytes: new Uint8Array(slots),
    scratch: new Uint8Array(HEADER_PART_BYTES + PROXY_HEADER_BYTES_MAX),
  };
}

const PROXY_IN_OFF: ProxyInOptions = { accept: 0, trusted: new Int32Array(0), timeoutMs: 0 };

/** The settings the data plane reads; times in ms or s as named, 0 = never where a timeout may be off. */
export interface WorkerOptions {
  /** 1.., the owner of locks in the client table. */
  readonly workerId: number;
  readonly seed: number;
  /** Time 0 of the client table, on the engines' clock; the same for all who share the table. */
  readonly epochMs: number;
  readonly listeners: readonly ListenerOptions[];
  readonly maxConnections: number;
  readonly connectTimeoutMs: number;
  readonly connectTotalTimeoutMs: number;
  readonly connectRetries: number;
  readonly idleTimeoutMs: number;
  readonly halfClosedTimeoutMs: number;
  readonly bindingTtlMs: number;
  readonly keepaliveSecs: number;
  readonly userTimeoutSecs: number;
  /** Passive breaker of each backend; absent = off. */
  readonly breaker?: BreakerPolicy;
  /** When breakers leave an app no backend at all, use the ejected ones. */
  readonly failOpen?: boolean;
  /** Slow start of new and recovered backends; absent or 0 = off. */
  readonly slowStartMs?: number;
  /** Limits of each client address; absent = none. */
  readonly limits?: ClientLimits;
  /** Count whom the access list denies, and let them pass. */
  readonly accessDryRun?: boolean;
  /** What the session log records; its memory says whether anything is. */
  readonly records?: RecordOptions;
  /** Absent = off. */
  readonly proxyIn?: ProxyInOptions;
  /** This POP's region, for backends that get a PROXY header of version 2. */
  readonly popRegion?: string;
}

/** Shared memory the worker is handed; see the files that lay each of them out. */
export interface WorkerMemory {
  readonly control: SharedArrayBuffer;
  readonly global: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
  readonly sessions: SharedArrayBuffer;
  readonly backendState: SharedArrayBuffer;
  readonly clients: SharedArrayBuffer;
  readonly routing: SharedArrayBuffer;
  readonly geo: SharedArrayBuffer;
  readonly access: SharedArrayBuffer;
  /** Records of the session log (session-records.ts), null = it is off. */
  readonly records: SharedArrayBuffer | null;
}

export interface WorkerState {
  readonly engine: Proactor;
  readonly options: WorkerOptions;
  readonly control: Int32Array;
  readonly global: Int32Array;
  readonly stats: WorkerStats;
  readonly sessions: Sessions;
  readonly backendState: BackendState;
  readonly clients: ClientTable;
  readonly selector: Selector;
  geo: GeoTable;
  /** null: everyone may connect. */
  access: AccessList | null;
  readonly breaker: BreakerPolicy | null;
  readonly limits: ClientLimits;
  /** null: the session log is off. */
  readonly recorder: Recorder | null;
  readonly proxyIn: ProxyInOptions;
  /** Called when a breaker opened or closed (route/breaker.ts). */
  onBreaker: (backend: number, change: number) => void;
  readonly timers: TimerWheel;
  /** One element: the time of this batch, ms. An array, because a plain field would allocate on every store. */
  readonly clock: Float64Array;
  /** One element: whole ms since `epochMs`, the client table's time. Small integers are not boxed as arguments. */
  readonly clientClock: Float64Array;
  /** Scratch for the client being admitted. */
  readonly peer: PeerAddress;
  /** Scratch for what a PROXY header names besides `peer`, and says besides addresses. */
  readonly destination: PeerAddress;
  readonly extras: ProxyExtras;
  readonly headerParts: HeaderParts;
  /** Scratch for backends that failed this client. */
  readonly failed: Int32Array;

  /** By listener: 1 while an accept is in flight. */
  readonly accepting: Uint8Array;
  /** Accepting stopped because EDGEPROXY_MAX_CONNECTIONS is reached. */
  acceptPaused: boolean;
  /** Accepting waits until `backoff[0]` after an error; `backoff[1]` is the wait in ms, doubling. */
  readonly backoff: Float64Array;
  /** Accepting has not begun: COMMAND_HOLD. */
  held: boolean;
  draining: boolean;

  /** By buffer: the next one in its queue + 1, and the bytes in it. */
  readonly bufferNext: Int32Array;
  readonly bufferBytes: Int32Array;
  /** Endpoints that wait for a buffer, a ring of their numbers + 1 with each at most once. */
  readonly starved: Int32Array;
  starvedHead: number;
  starvedCount: number;
  readonly starvedListed: Uint8Array;
  /** By endpoint: since when it waits, ms. */
  readonly starvedAt: Float64Array;
  /** One element: not before this time are sessions ended to free buffers, ms. */
  readonly relieveAt: Float64Array;
  /** The same for slots whose PROXY header waits for a buffer to be written into. */
  readonly owed: Int32Array;
  owedHead: number;
  owedCount: number;
  readonly owedListed: Uint8Array;
  publicationsSeen: number;
  /** Slots still to be looked at for sessions of draining backends, and the next of them (drain.ts). */
  drainLeft: number;
  drainSlot: number;
}

function createExtras(popRegion: string): ProxyExtras {
  return { country: '', pop: new TextEncoder().encode(popRegion), checksum: true };
}

export function createWorkerState(
  engine: Proactor,
  memory: WorkerMemory,
  options: WorkerOptions,
): WorkerState {
  const sessions = createSessions(memory.sessions, options.connectRetries + 1);
  const { capacity } = sessions.slots;
  const backendState = openBackendState(memory.backendState);
  const breaker = options.breaker ?? null;
  const selector = createSelector(backendState, options.seed, {
    breaker,
    failOpen: options.failOpen ?? false,
    rampMs: options.slowStartMs ?? 0,
  });
  useSnapshot(selector, openSnapshot(memory.routing));
  const control = new Int32Array(memory.control);
  const stats = openWorkerStats(memory.stats);
  stats.totals[STAT_BUFFERS_MAX] = engine.bufferCount;
  const clock = new Float64Array(1);
  engine.readClock(clock);
  const now = clock[0];
  const buffers = engine.bufferCount + WRITE_BUFFERS;
  return {
    engine,
    options,
    control,
    global: new Int32Array(memory.global),
    stats,
    sessions,
    backendState,
    clients: openClientTable(memory.clients, options.workerId),
    selector,
    geo: openGeoTable(memory.geo),
    access: openAccessList(memory.access),
    breaker,
    limits: options.limits ?? NO_LIMITS,
    recorder: createRecorder(memory.records, options.records ?? RECORD_ALL, capacity, options.seed),
    proxyIn: options.proxyIn ?? PROXY_IN_OFF,
    onBreaker: () => {},
    timers: createTimerWheel(capacity, TICK_MS, now),
    clock,
    clientClock: Float64Array.of(Math.floor(now - options.epochMs)),
    peer: { family: 4, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 },
    destination: { family: 4, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 },
    headerParts: createHeaderParts((options.proxyIn ?? PROXY_IN_OFF).accept === 0 ? 0 : capacity),
    extras: createExtras(options.popRegion ?? ''),
    failed: new Int32Array(options.connectRetries + 1),
    accepting: new Uint8Array(options.listeners.length),
    acceptPaused: false,
    backoff: Float64Array.of(0, 0),
    held: control[CONTROL_COMMAND] === COMMAND_HOLD,
    draining: false,
    bufferNext: new Int32Array(buffers),
    bufferBytes: new Int32Array(buffers),
    starved: new Int32Array(capacity * 2),
    starvedHead: 0,
    starvedCount: 0,
    starvedListed: new Uint8Array(capacity * 2),
    starvedAt: new Float64Array(capacity * 2),
    relieveAt: new Float64Array(1),
    owed: new Int32Array(capacity),
    owedHead: 0,
    owedCount: 0,
    owedListed: new Uint8Array(capacity),
    publicationsSeen: 0,
    drainLeft: 0,
    drainSlot: 0,
  };
}
