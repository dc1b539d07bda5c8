// A simulated world: clients, workers of the proxy, backends and a control plane on one virtual clock. It is a loop over
// what happens next: an event of the network or of a peer, or a worker whose completions or timer are due. The workers run
// the unchanged data plane, one batch at a time, in the order the seed gives.

import { resumeAccept } from '../proxy/accept.ts';
import { startEnding } from '../proxy/drain.ts';
import { createRecordBuffer } from '../proxy/session-records.ts';
import { sharedSessionsBytes } from '../proxy/sessions.ts';
import {
  COMMAND_DRAIN,
  COMMAND_STOP,
  CONTROL_COMMAND,
  CONTROL_PUBLICATIONS,
  createControlBlock,
  createGlobalBlock,
} from '../proxy/shared.ts';
import { createWorkerStats } from '../proxy/stats.ts';
import { nextWaitMs, runBatch } from '../proxy/worker.ts';
import { createWorkerState, type WorkerMemory, type WorkerState } from '../proxy/worker-state.ts';
import { openAccessList } from '../route/access-list.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import {
  type ClientTable,
  createClientTable,
  openClientTable,
  sweepClients,
} from '../route/client-table.ts';
import { useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT } from '../sys/errno.ts';
import { NO_ACCESS_LIST, SimAccess, type SimAccessList } from './sim-access.ts';
import { SimChecks } from './sim-checks.ts';
import { GEO } from './sim-clients.ts';
import { BackendConnections } from './sim-closes.ts';
import { SimControl } from './sim-control.ts';
import { SimDrains } from './sim-drains.ts';
import type { SimEngineHost } from './sim-engine-host.ts';
import { drawHeaders, HEAD_PARTIAL, SimHeaders } from './sim-headers.ts';
import * as net from './sim-network.ts';
import { drawOptions, LISTENERS, type SimOptions } from './sim-options.ts';
import { SimPeers } from './sim-peers.ts';
import { SimRandom } from './sim-random.ts';
import { fail, SimTrace, traceKind } from './sim-trace.ts';
import { SimulatedEngine } from './simulated-engine.ts';

const TRACE = {
  command: traceKind('command'),
  publish: traceKind('publish'),
  lost: traceKind('peer-lost'),
  rst: traceKind('rst-arrived'),
};
/** Words of WORLD_CONTROL. */
const CONTROL_DRAIN = 0;
const CONTROL_STOP = 1;
/** More than one batch can end; each is read after the batch. */
const RECORDS = 4096;
const LASTING_MS = 500;
/** Longer than any completion may be late. */
const STOP_MS_MAX = 10_000;

export interface SimWorker {
  readonly state: WorkerState;
  readonly engine: SimulatedEngine;
  readonly memory: WorkerMemory;
  /** Snapshots and access lists; null has it end what is granted of draining backends. */
  readonly publications: (SharedArrayBuffer | SimAccessList | null)[];
  /** The access list in force. */
  access: SimAccessList;
  /** By listener: ends of connections not accepted yet. */
  readonly backlog: number[][];
  /** The last connect started at an endpoint goes to this uid. */
  readonly uid: Int32Array;
  wakeAt: number;
  busyUntil: number;
  done: boolean;
}

export class SimWorld implements SimEngineHost {
  readonly options: SimOptions;
  readonly random: SimRandom;
  readonly trace = new SimTrace();
  readonly network: net.SimNetwork;
  readonly peers: SimPeers;
  readonly control: SimControl;
  readonly access: SimAccess;
  readonly drains: SimDrains;
  readonly connections = new BackendConnections();
  readonly headers: SimHeaders;
  readonly workers: SimWorker[];
  readonly checks: SimChecks;
  readonly clients: ClientTable;
  readonly sessions: number;
  stopped = false;
  #clientsLeft: number;
  /** Virtual time by which all workers must have stopped. */
  #endBy = Number.POSITIVE_INFINITY;
  /** By end: the number of the client that connected there. */
  readonly clientOf: Int32Array;
  /** By end: the tag of the listener it connected to. */
  readonly listenerOf: Uint8Array;

  constructor(seed: number, sessions: number) {
    this.sessions = sessions;
    this.#clientsLeft = sessions;
    this.random = new SimRandom(seed);
    this.options = drawOptions(this.random, drawHeaders(seed));
    const { random, options } = this;
    this.network = new net.SimNetwork(random, sessions * 4 + 16);
    this.headers = new SimHeaders(seed, this.network, options.headers, options.clients);
    this.network.onReady = (end) => this.#ready(end);
    this.network.onReset = (end) => this.#resetArrived(end);
    this.clientOf = new Int32Array(this.network.owner.length);
    this.listenerOf = new Uint8Array(this.network.owner.length);
    this.peers = new SimPeers(this.network, random, this.trace, options.peers);
    const backendState = createBackendState();
    const state = openBackendState(backendState);
    this.control = new SimControl(random, state, options.control, this.network.clock);
    const lateMs = options.busyMsMax * 10 + options.engine.lateMsMax;
    this.drains = new SimDrains(this.network, this.control, state, lateMs, () => this.#post(null));
    const alpha = this.control.publisher.appIndex('alpha');
    this.access = new SimAccess(random, new Map([['alpha', alpha]]));
    const common = {
      global: createGlobalBlock(),
      backendState,
      clients: createClientTable(options.clientRows, [random.next() | 0, random.next() | 0]),
      routing: this.control.snapshot.buffer as SharedArrayBuffer,
      geo: GEO,
      access: NO_ACCESS_LIST.buffer,
    };
    this.clients = openClientTable(common.clients, 0xffff);
    this.workers = Array.from({ length: options.workers }, (_, worker) =>
      this.#makeWorker(worker, common),
    );
    this.checks = new SimChecks(this);
  }

  #makeWorker(
    worker: number,
    common: Omit<WorkerMemory, 'control' | 'stats' | 'sessions' | 'records'>,
  ): SimWorker {
    const { random, options, network } = this;
    const engineOptions = { ...options.engine, worker };
    const engine = new SimulatedEngine(network, random, this.trace, this, engineOptions);
    const memory = {
      ...common,
      control: createControlBlock(),
      stats: createWorkerStats(),
      sessions: new SharedArrayBuffer(sharedSessionsBytes(options.slots)),
      // A connection that is turned away after its header was waited for is recorded before its socket is closed.
      records: options.worker.proxyIn === undefined ? createRecordBuffer(RECORDS) : null,
    };
    const address = { host: '::', port: 8080, v6Only: false, shared: false };
    const listeners = [
      { ...address, socket: 1_000_000, app: 0 },
      { ...address, socket: 1_000_001, app: this.control.publisher.appIndex('alpha') },
    ];
    const state = createWorkerState(engine, memory, {
      ...options.worker,
      workerId: worker + 1,
      seed: random.next() | 0,
      listeners,
      records: { share: 1, intervalMs: LASTING_MS },
    });
    return {
      state,
      engine,
      memory,
      publications: [],
      access: NO_ACCESS_LIST,
      backlog: listeners.map(() => []),
      uid: new Int32Array(options.slots * 2),
      wakeAt: Number.POSITIVE_INFINITY,
      busyUntil: 0,
      done: false,
    };
  }

  // ---- the loop --------------------------------------------------------------------------------------------------

  run(): void {
    const { network } = this;
    for (const worker of this.workers) resumeAccept(worker.state);
    network.schedule(0, net.WORLD_CLIENT, 0);
    for (;;) {
      let time = network.queue.nextTime();
      let next = -1;
      for (let index = 0; index < this.workers.length; index++) {
        const due = this.#dueAt(this.workers[index] as SimWorker);
        if (due < time) {
          time = due;
          next = index;
        }
      }
      if (time === Number.POSITIVE_INFINITY) break;
      network.clock[0] = Math.max(network.clock[0], time);
      if (time > this.#endBy) fail('The workers do not stop');
      this.trace.clock[0] = network.clock[0];
      this.trace.step++;
      if (next < 0) this.#happen();
      else this.#runWorker(next);
      if (this.stopped && this.workers.every(({ done }) => done)) break;
    }
    this.#afterwards();
    this.checks.atEnd();
  }

  #dueAt(worker: SimWorker): number {
    if (worker.done) return Number.POSITIVE_INFINITY;
    return Math.max(worker.busyUntil, Math.min(worker.engine.nextEventAt(), worker.wakeAt));
  }

  #runWorker(index: number): void {
    const worker = this.workers[index] as SimWorker;
    const { state, engine } = worker;
    this.checks.beforeBatch(worker);
    const events = engine.wait(0);
    const goesOn = runBatch(state, events, () => this.#takePublications(worker));
    this.checks.queues(worker, index);
    worker.done = !goesOn;
    const now = this.network.clock[0];
    worker.busyUntil = now + this.random.between(0.001, this.options.busyMsMax);
    // What the batch queued for the kernel goes there at its end.
    if (worker.done) engine.closes.carryOut();
    else if (engine.closes.count > 0) {
      this.network.schedule(worker.busyUntil - now, net.WORLD_SUBMIT, index);
    }
    const waitMs = nextWaitMs(state);
    // One timer is in flight at a time, so an earlier one may end a later wait.
    worker.wakeAt =
      waitMs < 0 ? Number.POSITIVE_INFINITY : now + waitMs * this.random.between(0.5, 1.1);
    this.checks.afterBatch(worker, index);
  }

  #takePublications(worker: SimWorker): void {
    for (const publication of worker.publications.splice(0)) {
      worker.state.publicationsSeen++;
      if (publication === null) {
        startEnding(worker.state);
      } else if (publication instanceof SharedArrayBuffer) {
        useSnapshot(worker.state.selector, openSnapshot(publication));
      } else {
        worker.state.access = openAccessList(publication.buffer);
        worker.access = publication;
      }
    }
  }

  /** The workers have stopped: the rest of the network comes to its end. */
  #afterwards(): void {
    const { network } = this;
    for (const { backlog } of this.workers) {
      for (const end of backlog.flat()) network.reset(end);
    }
    while (network.queue.count > 0) {
      network.clock[0] = Math.max(network.clock[0], network.queue.nextTime());
      this.trace.clock[0] = network.clock[0];
      this.#happen();
    }
  }

  #happen(): void {
    const { network } = this;
    const { queue } = network;
    queue.take();
    const { words, taken } = queue;
    const where = words[taken + 1];
    const more = words[taken + 2];
    const extra = words[taken + 3];
    switch (words[taken]) {
      case net.WORLD_DELIVER:
        network.deliver(where);
        return;
      case net.WORLD_PEER:
        this.peers.act(where);
        return;
      case net.WORLD_KERNEL:
        this.#worker(where).engine.kernelTurn(more);
        return;
      case net.WORLD_CONNECT:
        this.#connectArrives(where, more, extra);
        return;
      case net.WORLD_BACKLOG:
        this.#clientArrives(where, more);
        return;
      case net.WORLD_CLIENT:
        this.#newClients();
        return;
      case net.WORLD_FAULT:
        this.#losePeer(where);
        return;
      case net.WORLD_SUBMIT:
        this.#worker(where).engine.closes.carryOut();
        return;
      case net.WORLD_DRAIN:
        this.drains.fire(where);
        return;
      case net.WORLD_CONTROL:
        this.#command(where);
        return;
      default:
        throw new Error(`Cannot handle world event ${words[taken]}`);
    }
  }

  #worker(index: number): SimWorker {
    return this.workers[index] as SimWorker;
  }

  // ---- clients ---------------------------------------------------------------------------------------------------

  #newClients(): void {
    const { random, options, network } = this;
    if (this.stopped) return;
    const burst = random.chance(0.05) ? random.whole(1, options.burst) : 1;
    for (let count = Math.min(burst, this.#clientsLeft); count > 0; count--) this.#newClient();
    if (random.chance(options.changeChance)) this.#publish();
    if (random.chance(options.gateChance)) this.control.changeGate();
    if (random.chance(options.accessChance)) this.#post(this.access.change());
    if (random.chance(0.002)) {
      const ttl = options.worker.bindingTtlMs;
      sweepClients(this.clients, network.clock[0], ttl, 0, options.clientRows);
    }
    const done = this.sessions - this.#clientsLeft;
    if (done < this.sessions * options.stopAfter) {
      network.schedule(random.between(0, options.gapMs * 2), net.WORLD_CLIENT, 0);
    } else if (options.stopAfter < 1) {
      this.#command(CONTROL_STOP);
    } else {
      network.schedule(random.between(0, 100), net.WORLD_CONTROL, CONTROL_DRAIN);
      network.schedule(100 + options.drainMs, net.WORLD_CONTROL, CONTROL_STOP);
    }
  }

  #newClient(): void {
    const { random, options, network } = this;
    this.#clientsLeft--;
    const worker = random.below(options.workers);
    const delay = random.between(0.01, options.delayMsMax);
    const owner = net.OWNER_PROXY + worker;
    const end = network.connection(net.OWNER_CLIENT, owner, options.bufferMax, delay);
    this.clientOf[end] = this.headers.begin(end, random.below(options.clients));
    const tag = random.below(LISTENERS);
    this.listenerOf[end] = tag;
    network.schedule(delay, net.WORLD_BACKLOG, end, worker * LISTENERS + tag);
  }

  /** The handshake with the kernel is over: the connection waits to be accepted, and the client may send. */
  #clientArrives(end: number, listener: number): void {
    const worker = this.#worker(Math.floor(listener / LISTENERS));
    const tag = listener % LISTENERS;
    const { headers } = this;
    const whole = headers.head[end] !== HEAD_PARTIAL;
    this.peers.start(end, headers.headBytes(end), headers.headPaceMs(), whole);
    if (worker.done) {
      this.network.reset(end + 1);
      return;
    }
    (worker.backlog[tag] as number[]).push(end + 1);
    worker.engine.accepts.arrived(tag);
  }

  nextPending(worker: number, tag: number): number {
    return this.#worker(worker).backlog[tag]?.shift() ?? -1;
  }

  socketAcross(worker: number, endpoint: number): number {
    return (this.#worker(worker).state.sessions.sockets[endpoint ^ 1] as number) - 1;
  }

  // ---- backends --------------------------------------------------------------------------------------------------

  backendAt(worker: number, endpoint: number, words: Uint32Array, offset: number): number {
    const uid = this.control.uidOf(words, offset);
    this.checks.connecting(worker, endpoint, uid, offset / 4);
    return uid;
  }

  connectTo(worker: number, endpoint: number, generation: number, uid: number): void {
    const { network } = this;
    const { delayMs, silent } = this.control.reachability[uid] as {
      delayMs: number;
      silent: number;
    };
    this.#worker(worker).uid[endpoint] = uid;
    if (this.random.chance(silent)) return;
    const delay = this.random.between(0.01, delayMs);
    network.schedule(delay, net.WORLD_CONNECT, worker, endpoint, generation);
  }

  connectNow(worker: number, endpoint: number, generation: number): void {
    this.#connectArrives(worker, endpoint, generation);
  }

  #connectArrives(index: number, endpoint: number, generation: number): void {
    const { random, network, options } = this;
    const { engine, uid } = this.#worker(index);
    if (!engine.isConnecting(endpoint, generation)) return;
    const { refused, unreachable, delayMs } = this.control.reachability[
      uid[endpoint] as number
    ] as { refused: number; unreachable: number; delayMs: number };
    let error = 0;
    if (random.chance(refused)) error = ECONNREFUSED;
    else if (random.chance(unreachable)) {
      error = random.pick([EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, EADDRNOTAVAIL]);
    }
    if (error !== 0) {
      engine.connectDone(endpoint, generation, -error, -1);
      return;
    }
    const owner = net.OWNER_PROXY + index;
    const end = network.connection(owner, net.OWNER_BACKEND, options.bufferMax, delayMs);
    engine.connectDone(endpoint, generation, 0, end);
    this.checks.headers.connected(index, endpoint, end);
    this.peers.start(end + 1);
  }

  /** A session's relay starts: sometimes one of its peers will vanish. */
  paired(worker: number, slot: number): void {
    if (!this.random.chance(this.options.lostChance)) return;
    const { sockets } = this.#worker(worker).engine;
    const end = sockets.endOf(slot * 2 + this.random.below(2));
    this.network.schedule(this.random.spread(1, 2000) / 10, net.WORLD_FAULT, end);
  }

  #losePeer(end: number): void {
    this.trace.add(TRACE.lost, -1, -2, end, 0);
    this.peers.gaveUp[end ^ 1] = 1;
    this.network.lose(end, this.random.pick([ETIMEDOUT, EHOSTUNREACH]));
  }

  #ready(end: number): void {
    const owner = this.network.owner[end] as number;
    if (owner >= net.OWNER_PROXY) this.#worker(owner - net.OWNER_PROXY).engine.ready(end);
    else this.peers.ready(end);
  }

  #resetArrived(end: number): void {
    const owner = this.network.owner[end] as number;
    const worker = owner - net.OWNER_PROXY;
    const endpoint = worker < 0 ? -2 : this.#worker(worker).engine.sockets.endpointOf(end);
    this.trace.add(TRACE.rst, worker, endpoint, end, 0);
  }

  // ---- control ---------------------------------------------------------------------------------------------------

  /** One publication, or a few before any worker looks. */
  #publish(): void {
    const count = this.random.chance(0.3) ? this.random.whole(2, 4) : 1;
    for (let publication = 0; publication < count; publication++) this.#publishOne();
  }

  #publishOne(): void {
    const buffer = this.control.change();
    this.trace.add(TRACE.publish, -1, -2, this.control.snapshot.version, 0);
    this.#post(buffer);
    this.drains.update();
  }

  #post(publication: SharedArrayBuffer | SimAccessList | null): void {
    for (const worker of this.workers) {
      worker.publications.push(publication);
      Atomics.add(worker.state.control, CONTROL_PUBLICATIONS, 1);
      this.#wake(worker);
    }
  }

  #command(what: number): void {
    const command = what === CONTROL_STOP ? COMMAND_STOP : COMMAND_DRAIN;
    this.trace.add(TRACE.command, -1, -2, command, 0);
    this.stopped = true;
    if (command === COMMAND_STOP) this.#endBy = this.network.clock[0] + STOP_MS_MAX;
    for (const worker of this.workers) {
      Atomics.store(worker.state.control, CONTROL_COMMAND, command);
      this.#wake(worker);
    }
  }

  /** Signals the worker's eventfd. */
  #wake(worker: SimWorker): void {
    const at = this.network.clock[0] + this.random.between(0, 1);
    worker.wakeAt = Math.min(worker.wakeAt, at);
  }

  leaving(worker: number, endpoint: number): number {
    return this.connections.leaving(this.#worker(worker).state, endpoint);
  }

  reported(worker: number, endpoint: number, op: number, result: number, more: number): void {
    this.checks.reported(worker, endpoint, op, result, more);
  }

  cancelling(worker: number, endpoint: number): void {
    this.checks.cancelling(worker, endpoint);
  }

  closing(worker: number, endpoint: number, socket: number, end: number, reset: boolean): void {
    this.checks.closing(worker, endpoint, socket, end, reset);
  }
}
