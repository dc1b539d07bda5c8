// What must hold in a simulation, checked after every batch, at every close, and at the end. The checks keep their own
// account of what happened and compare the data plane with it; where they read its tables, they read them against each other.

import { OP_CONNECT, OP_PUMP, OP_RECEIVE } from '../engine/proactor.ts';
import { TIER_SCAN_MAX } from '../limits.ts';
import {
  CLOSE_REASONS,
  REASON_BACKEND_LOST,
  REASON_BACKEND_RESET,
  REASON_BUFFERS_EXHAUSTED,
  REASON_CLIENT_LOST,
  REASON_CLIENT_RESET,
  REASON_COMPLETED,
  REASON_CONNECT_FAILED,
  REASON_CONNECT_TIMEOUT,
  REASON_DRAINED,
  REASON_HALF_CLOSED_TIMEOUT,
  REASON_IDLE_TIMEOUT,
  REASON_NO_DESCRIPTORS,
  REASON_SHUTDOWN,
  REJECTED,
} from '../proxy/close-reason.ts';
import { STATE_CLOSING, STATE_RELAYING } from '../proxy/sessions.ts';
import { COMMAND_STOP, CONTROL_COMMAND, CONTROL_PHASE, PHASE_DRAINING } from '../proxy/shared.ts';
import { STAT_STALE_EVENTS } from '../proxy/stats.ts';
import { explainSelection } from '../route/candidates.ts';
import { clientBackend, clientIncarnation } from '../route/client-table.ts';
import { scoreOf } from '../route/select.ts';
import { FLAG_DEGRADED, FLAG_DRAINING, FLAG_ENABLED, FLAG_PRESENT } from '../route/snapshot.ts';
import { ECANCELED, ENOBUFS, ETIMEDOUT } from '../sys/errno.ts';
import { isLetIn } from './sim-access.ts';
import { PROXIES } from './sim-clients.ts';
import { BACKEND_INDEXES_MAX } from './sim-control.ts';
import { checkEnd } from './sim-end-checks.ts';
import { SimHeaderChecks } from './sim-header-checks.ts';
import { FIN_ARRIVED, FIN_NONE } from './sim-network.ts';
import { LISTENERS } from './sim-options.ts';
import { SimRecords } from './sim-records.ts';
import { SlotRecord, TRIES_MAX } from './sim-slot-record.ts';
import { checkSlot, checkTables } from './sim-table-checks.ts';
import { fail } from './sim-trace.ts';
import type { SimWorker, SimWorld } from './sim-world.ts';

/** Bytes that could have moved for this long, and did not, are stuck. */
const STUCK_MS = 1500;

const BATCH_EVENTS_MAX = 512;
const SLOTS_PER_BATCH = 12;
/** Of the clients without a binding every this many is compared with all it could have had. */
const CHOICE_SAMPLE = 8;
/** The client table counts whole milliseconds. */
const ROUNDING_MS = 2;

export class SimChecks {
  readonly world: SimWorld;
  readonly headers: SimHeaderChecks;
  /** By worker. */
  readonly slots: SlotRecord[];
  readonly ended: Int32Array;
  readonly rejected: Int32Array;
  /** Of the rejected, those whom the access list does not let in. */
  readonly keptOut: Int32Array;
  readonly connects: Int32Array;
  readonly connected: Int32Array;
  readonly firstConnects: Int32Array;
  readonly records: SimRecords;
  /** Workers whose listeners may be closed. */
  readonly #drained = new Set<number>();
  readonly #backendIds: string[] = [];
  /** Backend ids a client was connected to: client * 4096 + position in #backendIds. */
  readonly #served = new Set<number>();
  /** Active counts before the batch, and the limits of the snapshot it began with. */
  readonly #activeBefore = new Int32Array(BACKEND_INDEXES_MAX);
  #hardLimits: Int32Array = new Int32Array(0);
  /** By client and listener: last seen, and open sessions. */
  readonly #seenAt: Float64Array;
  readonly #open: Int32Array;
  /** Slots that the batch had events for. */
  readonly #touched = new Int32Array(BATCH_EVENTS_MAX);
  #touchedCount = 0;
  #credit = 0;
  /** By worker: when its buffer pool was last seen empty. */
  readonly #emptyAt: Float64Array;

  constructor(world: SimWorld) {
    this.world = world;
    this.records = new SimRecords(world);
    const { workers } = world;
    this.headers = new SimHeaderChecks(world);
    const numbers = world.options.clients + PROXIES;
    this.slots = workers.map(() => new SlotRecord(world.options.slots));
    this.ended = new Int32Array(workers.length * CLOSE_REASONS.length);
    this.rejected = new Int32Array(workers.length);
    this.keptOut = new Int32Array(workers.length);
    this.connects = new Int32Array(workers.length);
    this.connected = new Int32Array(workers.length);
    this.#seenAt = new Float64Array(numbers * LISTENERS);
    this.#open = new Int32Array(numbers * LISTENERS);
    this.#emptyAt = new Float64Array(workers.length);
    this.firstConnects = new Int32Array(workers.length);
  }

  #worker(index: number): SimWorker {
    return this.world.workers[index] as SimWorker;
  }

  #record(worker: number): SlotRecord {
    return this.slots[worker] as SlotRecord;
  }

  // ---- around a batch ----------------------------------------------------------------------------------------------

  beforeBatch(worker: SimWorker): void {
    this.#touchedCount = 0;
    const { snapshot } = worker.state.selector;
    const { active } = worker.state.backendState;
    if (snapshot === null) return;
    this.#hardLimits = snapshot.hardLimit;
    for (let index = 0; index < snapshot.backendEnd; index++) {
      this.#activeBefore[index] = active[index];
    }
  }

  afterBatch(worker: SimWorker, index: number): void {
    const { active } = worker.state.backendState;
    const limits = this.#hardLimits;
    for (let backend = 0; backend < limits.length; backend++) {
      const limit = limits[backend] as number;
      const count = active[backend] as number;
      if (limit > 0 && count > limit && count > (this.#activeBefore[backend] as number)) {
        fail(`Backend ${backend} has ${count} sessions, its hard limit is ${limit}`, index);
      }
    }
    if (!worker.engine.hasBuffer()) this.#emptyAt[index] = this.world.network.clock[0];
    const { totals } = worker.state.stats;
    if (totals[STAT_STALE_EVENTS] !== 0) fail('A stale event was counted', index);
    const record = this.#record(index);
    for (let at = 0; at < this.#touchedCount; at++) {
      checkSlot(this.world, worker, index, this.#touched[at] as number, record);
    }
    // All slots in turn with those an event was for would cost more than the run itself.
    this.#credit += SLOTS_PER_BATCH;
    if (this.#credit < worker.state.sessions.slots.fresh) return;
    this.#credit = 0;
    checkTables(this.world, worker, index, record);
  }

  /** A worker that says its listeners may be closed has left nobody waiting there; a drain is about those. */
  queues({ engine, backlog, memory }: SimWorker, index: number): void {
    const control = new Int32Array(memory.control);
    const isDrained = control[CONTROL_PHASE] === PHASE_DRAINING && !this.#drained.has(index);
    if (!isDrained) return;
    this.#drained.add(index);
    const excused = control[CONTROL_COMMAND] === COMMAND_STOP || engine.accepts.interrupted;
    if (!excused && backlog.some(({ length }) => length > 0)) fail('A queue was left', index);
  }

  // ---- connects ----------------------------------------------------------------------------------------------------

  connecting(index: number, endpoint: number, uid: number, backend: number): void {
    const { state } = this.#worker(index);
    const { sessions, selector } = state;
    const slot = endpoint >> 1;
    const record = this.#record(index);
    const { snapshot } = selector;
    if (uid < 0 || snapshot === null) fail('A connect to no backend', index, slot);
    this.headers.connecting(index, endpoint, backend);
    if (sessions.backend[slot] - 1 !== backend) {
      fail('A connect to another backend than the reserved one', index, slot);
    }
    if ((snapshot.flags[backend] & ~FLAG_DEGRADED) !== (FLAG_PRESENT | FLAG_ENABLED)) {
      const why = (snapshot.flags[backend] & FLAG_DRAINING) !== 0 ? 'draining' : 'disabled';
      fail(`A connect to backend ${backend}, which is ${why}`, index, slot);
    }
    if (state.backendState.gate[backend] !== 0) {
      fail(`A connect to backend ${backend}, whose gate is closed`, index, slot);
    }
    const app = sessions.app[slot] as number;
    if (app !== 0 && snapshot.app[backend] !== app) fail('A connect across apps', index, slot);
    this.world.connections.connecting(backend, snapshot.hardLimit[backend] as number, index, slot);
    record.connectAt[slot] = this.world.network.clock[0];
    this.connects[index]++;
    if (sessions.attempts[slot] === 0) {
      this.#firstConnect(index, slot, backend);
    } else {
      for (let at = 0; at < (record.tries[slot] as number); at++) {
        const again = record.tried[slot * TRIES_MAX + at] === backend;
        if (again) fail(`Backend ${backend} was tried a second time`, index, slot);
      }
    }
    const tries = record.tries[slot] as number;
    if (tries > this.world.options.worker.connectRetries) fail('One retry too many', index, slot);
    record.tried[slot * TRIES_MAX + tries] = backend;
    record.tries[slot]++;
  }

  /** A live binding wins over every other choice. */
  #firstConnect(index: number, slot: number, backend: number): void {
    const { state } = this.#worker(index);
    const { sessions, selector, clients, backendState } = state;
    this.firstConnects[index]++;
    const { snapshot } = selector;
    const row = sessions.clientRow[slot] - 1;
    const bound = row < 0 ? -1 : clientBackend(clients, row);
    this.#seeClient(index, slot, bound);
    const isBound =
      bound === backend && snapshot?.incarnation[bound] === clientIncarnation(clients, row);
    if (!isBound && bound >= 0) this.#checkChoice(index, slot, backend);
    else if (!isBound && this.connects[index] % CHOICE_SAMPLE === 0) {
      this.#checkChoice(index, slot, backend);
    }
    const isNew = bound !== backend && snapshot?.weight[backend] === 0;
    if (isNew) fail(`A new client on backend ${backend}, whose weight is 0`, index, slot);
    if (snapshot === null || bound < 0 || bound === backend || bound >= snapshot.backendEnd) return;
    const app = sessions.app[slot] as number;
    const limit = snapshot.hardLimit[bound] as number;
    const lives =
      (snapshot.flags[bound] & ~FLAG_DEGRADED) === (FLAG_PRESENT | FLAG_ENABLED) &&
      snapshot.incarnation[bound] === clientIncarnation(clients, row) &&
      (app === 0 || snapshot.app[bound] === app) &&
      backendState.gate[bound] === 0 &&
      (limit === 0 || (backendState.active[bound] as number) < limit);
    if (lives) fail(`The binding to backend ${bound} was passed over`, index, slot);
  }

  /** Who is not bound goes to the best backend that has room: nearest tier, nearest region, lowest score. */
  #checkChoice(index: number, slot: number, backend: number): void {
    const { sessions, selector, backendState } = this.#worker(index).state;
    const { snapshot } = selector;
    if (snapshot === null) return;
    const app = sessions.app[slot] as number;
    const candidates = explainSelection(selector, app, sessions.country[slot] as number);
    const chosen = candidates.find((candidate) => candidate.index === backend);
    if (chosen === undefined) fail('A choice that is no candidate', index, slot);
    // Its place is reserved by now; the choice was made without.
    const active = (backendState.active[backend] as number) - 1;
    const soft = snapshot.softLimit[backend] as number;
    const score = scoreOf(chosen.tier, active, soft, snapshot.weight[backend] as number);
    // In a large tier two random candidates are compared, not all.
    const isScanned = candidates.length <= TIER_SCAN_MAX;
    const better = candidates.find((other) => {
      if (other.excluded !== '' || other.index === backend) return false;
      if (other.tier !== chosen.tier) return other.tier < chosen.tier;
      const nearer = (other.distanceKm ?? 0) - (chosen.distanceKm ?? 0);
      return nearer < 0 || (isScanned && !(nearer > 0) && other.score < score);
    });
    if (better === undefined) return;
    fail(`Backend ${backend} was chosen, ${better.index} is better and has room`, index, slot);
  }

  /** A binding not seen for its time to live is none. Called for a new session before it is counted. */
  #seeClient(index: number, slot: number, bound: number): void {
    const { state, engine } = this.#worker(index);
    const end = engine.sockets.endOfSocket((state.sessions.sockets[slot * 2] as number) - 1);
    if (!isLetIn(this.world, index, end)) fail('A denied client was let in', index, slot);
    const now = this.world.network.clock[0] as number;
    const key = this.#clientKey(end);
    const seen = this.#seenAt[key] as number;
    const { bindingTtlMs } = this.world.options.worker;
    const expired = this.#open[key] === 0 && now - seen >= bindingTtlMs + ROUNDING_MS;
    if (bound >= 0 && expired) fail('A binding outlived its time', index, slot);
    this.#seenAt[key] = now;
    this.#open[key]++;
  }

  /** Bindings are per client and app, and each listener has its own app. */
  #clientKey(end: number): number {
    const { clientOf, listenerOf } = this.world;
    return (clientOf[end ^ 1] as number) * LISTENERS + (listenerOf[end ^ 1] as number);
  }

  // ---- events ------------------------------------------------------------------------------------------------------

  reported(index: number, endpoint: number, op: number, result: number, more: number): void {
    const slot = endpoint >> 1;
    this.#touched[this.#touchedCount++] = slot;
    const record = this.#record(index);
    const now = this.world.network.clock[0];
    if (op === OP_CONNECT) {
      record.connectResult[slot] = result;
      record.movedAt[slot] = now;
      record.receivedAt[slot] = now;
      if (result === 0) this.#established(index, slot);
      return;
    }
    if (result > 0) record.movedAt[slot] = now;
    if (result === -ENOBUFS) this.#emptyAt[index] = now;
    const { dead, state } = this.#worker(index).state.sessions;
    const counts = result > 0 && dead[endpoint ^ 1] === 0;
    if (counts && (op === OP_RECEIVE || op === OP_PUMP)) record.receivedAt[slot] = now;
    // An end of stream, or a failure: of a send at once, of a receive once what came before is delivered.
    const ended = result === 0 && more === 0 && (op === OP_RECEIVE || op === OP_PUMP);
    const failed = result < 0 && result !== -ECANCELED && result !== -ENOBUFS;
    // A FIN behind a PROXY header is left to the relay, which reads it again once it has sent what came before.
    const counted = failed || (ended && state[slot] === STATE_RELAYING);
    if (counted) record.halfAt[slot] = Math.min(record.halfAt[slot] as number, now);
  }

  #established(index: number, slot: number): void {
    const { state, uid, engine } = this.#worker(index);
    if (state.sessions.state[slot] === STATE_CLOSING) return;
    this.connected[index]++;
    const id = this.world.control.backendOfUid(uid[slot * 2 + 1] as number);
    if (!this.#backendIds.includes(id)) this.#backendIds.push(id);
    const socket = (state.sessions.sockets[slot * 2] as number) - 1;
    const end = engine.sockets.endOfSocket(socket);
    const client = this.world.clientOf[end ^ 1] as number;
    this.#served.add(client * 4096 + this.#backendIds.indexOf(id));
  }

  /** A binding names a backend that was published and that this client was connected to. */
  checkBinding(index: number, slot: number, row: number): void {
    const { state, engine } = this.#worker(index);
    const bound = clientBackend(state.clients, row);
    if (bound < 0) fail('A session without a binding', index, slot);
    const incarnation = clientIncarnation(state.clients, row);
    const id = this.world.control.backendOf(bound, incarnation);
    if (id === undefined) fail(`A binding to backend ${bound}.${incarnation}`, index, slot);
    const end = engine.sockets.endOf(slot * 2);
    const client = this.world.clientOf[end ^ 1] as number;
    const served = this.#served.has(client * 4096 + this.#backendIds.indexOf(id));
    if (!served) fail(`A binding to ${id}, where the client never was`, index, slot);
  }

  // ---- ends --------------------------------------------------------------------------------------------------------

  /** Before anything is cancelled for a session's end: was it right to end it? */
  cancelling(index: number, endpoint: number): void {
    const { sessions } = this.#worker(index).state;
    const slot = endpoint >> 1;
    if (sessions.state[slot] !== STATE_CLOSING || (endpoint & 1) === 1) return;
    const socket = (sessions.sockets[endpoint] as number) - 1;
    this.#judge(index, slot, this.#worker(index).engine.sockets.endOfSocket(socket));
  }

  closing(index: number, endpoint: number, socket: number, end: number, reset: boolean): void {
    const { sessions } = this.#worker(index).state;
    if (endpoint < 0) {
      if (!reset) fail(`Socket ${socket} was turned away without RST`, index);
      this.rejected[index]++;
      if (end >= 0 && !isLetIn(this.world, index, end)) this.keptOut[index]++;
      this.records.rejected(index, end);
      // Rejected or not, the client was seen.
      if (end >= 0) this.#seenAt[this.#clientKey(end)] = this.world.network.clock[0] as number;
      return;
    }
    const slot = endpoint >> 1;
    if (sessions.state[slot] !== STATE_CLOSING) {
      if ((endpoint & 1) === 0) fail('A client was closed without a reason', index, slot);
      if (end >= 0 && !reset) fail('A failed connect was closed by FIN', index, slot);
      return;
    }
    if ((endpoint & 1) === 0) this.#judge(index, slot, end);
    const reason = sessions.reason[slot] as number;
    if (reset !== this.#isReset(reason, end)) {
      fail(`Ended by ${reset ? 'RST' : 'FIN'} for ${nameOf(reason)}`, index, slot);
    }
    if ((endpoint & 1) === 1) return;
    this.records.ended(index, slot, end);
    const key = this.#clientKey(end);
    this.#seenAt[key] = this.world.network.clock[0] as number;
    const record = this.#record(index);
    // Without a descriptor a session ends before its first connect.
    if (record.tries[slot] > 0) this.#open[key]--;
    record.tries[slot] = 0;
    record.judged[slot] = 0;
    record.connectResult[slot] = 0;
    record.halfAt[slot] = Number.POSITIVE_INFINITY;
    if (reason < REJECTED) {
      this.ended[index * CLOSE_REASONS.length + reason]++;
      return;
    }
    this.rejected[index]++;
    if (!isLetIn(this.world, index, end)) this.keptOut[index]++;
  }

  /** Whether a socket is to end by RST: where nobody failed, one that has its whole stream and FIN is left to get it. */
  #isReset(reason: number, end: number): boolean {
    if (reason === REASON_COMPLETED) return false;
    return end < 0 || !isOwnDecision(reason) || this.world.network.shut[end] === 0;
  }

  #judge(index: number, slot: number, client: number): void {
    const record = this.#record(index);
    if (record.judged[slot] === 1) return;
    record.judged[slot] = 1;
    const { state } = this.#worker(index);
    const { network, options, stopped } = this.world;
    const reason = state.sessions.reason[slot] as number;
    if (reason >= REJECTED) {
      this.headers.judge(index, slot, client);
      return;
    }
    const backend = network.pair[client] as number;
    const now = network.clock[0];
    const timedOut = isTimeout(record.connectResult[slot] as number);
    const silent = now - (record.receivedAt[slot] as number);
    const { idleTimeoutMs, halfClosedTimeoutMs } = options.worker;
    let right = true;
    switch (reason) {
      case REASON_COMPLETED:
        right = backend >= 0 && this.#isComplete(client, backend);
        break;
      case REASON_CLIENT_RESET:
      case REASON_CLIENT_LOST:
        right = backend >= 0 && network.over[client] === 1;
        break;
      case REASON_BACKEND_RESET:
      case REASON_BACKEND_LOST:
        right = backend >= 0 && network.over[backend] === 1;
        break;
      case REASON_CONNECT_FAILED:
        right = backend < 0 && !timedOut && record.connectResult[slot] !== 0;
        break;
      case REASON_CONNECT_TIMEOUT:
        right = backend < 0 && timedOut;
        break;
      case REASON_NO_DESCRIPTORS:
        right = backend < 0;
        break;
      case REASON_IDLE_TIMEOUT:
        right = backend >= 0 && idleTimeoutMs > 0 && silent >= idleTimeoutMs;
        break;
      case REASON_BUFFERS_EXHAUSTED:
        // What waited in its own queues was given back by now.
        right = backend >= 0 && this.#worker(index).engine.emptyAt === now;
        break;
      case REASON_HALF_CLOSED_TIMEOUT:
        right = backend >= 0 && halfClosedTimeoutMs > 0 && silent >= halfClosedTimeoutMs;
        break;
      case REASON_DRAINED: {
        const { backend: place, incarnation } = state.sessions;
        const index = (place[slot] as number) - 1;
        right = this.world.drains.mayEnd(index, incarnation[slot] as number);
        break;
      }
      default:
        right = reason === REASON_SHUTDOWN && stopped;
    }
    if (!right) fail(`Ended for ${nameOf(reason)}, which it is not`, index, slot);
    const quiet = now - (record.movedAt[slot] as number) > STUCK_MS;
    if (backend < 0 || !quiet || !isOwnDecision(reason)) return;
    this.#checkStuck(index, slot, client, backend);
    this.#checkStuck(index, slot, backend, client);
  }

  #isComplete(client: number, backend: number): boolean {
    const { network } = this.world;
    const passed = (from: number, to: number): boolean =>
      network.sawEnd[from] === 1 &&
      (network.over[to] === 1 ||
        network.positionOf(to, network.wrote[to]) === network.wrote[from ^ 1]);
    return passed(client, backend) && passed(backend, client);
  }

  /** A silent session is ended: nothing may have been waiting that the proxy could have moved. */
  #checkStuck(index: number, slot: number, source: number, target: number): void {
    const { network } = this.world;
    const { engine, state } = this.#worker(index);
    const now = network.clock[0];
    const starved = !engine.hasBuffer() || now - (this.#emptyAt[index] as number) < STUCK_MS;
    if (network.over[target] === 1 || starved) return;
    const { sessions } = state;
    if (sessions.dead[slot * 2] === 1 || sessions.dead[slot * 2 + 1] === 1) return;
    const origin = source ^ 1;
    const delivered = network.positionOf(target, network.wrote[target]) === network.read[origin];
    const waiting = network.readableBytes(source) > 0;
    if (waiting && network.isWritable(target)) fail('Bytes were stuck', index, slot);
    const all = !waiting && delivered && network.fin[origin] === FIN_ARRIVED;
    if (all && network.fin[target] === FIN_NONE) fail('A FIN was stuck', index, slot);
    const failed = network.over[source] === 1 && !waiting && delivered;
    if (failed && network.fin[origin] !== FIN_ARRIVED) fail('An RST was stuck', index, slot);
  }

  atEnd(): void {
    checkEnd(this.world, this);
  }
}

function nameOf(reason: number): string {
  return CLOSE_REASONS[reason]?.name ?? String(reason);
}

function isOwnDecision(reason: number): boolean {
  return (
    reason === REASON_IDLE_TIMEOUT ||
    reason === REASON_HALF_CLOSED_TIMEOUT ||
    reason === REASON_DRAINED ||
    reason === REASON_SHUTDOWN
  );
}

function isTimeout(result: number): boolean {
  return result === -ECANCELED || result === -ETIMEDOUT;
}
