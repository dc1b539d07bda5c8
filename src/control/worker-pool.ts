// The worker threads: start, publications, commands, and the replacement of one that died. A dead worker loses only its
// own sessions; what it held is given back and a new thread takes over its listeners and its memory.

import { once } from 'node:events';
import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { errorMessage, ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type EngineChoice, usesNative } from '../engine/open.ts';
import { reclaimWorker } from '../proxy/reclaim.ts';
import { createRecordBuffer } from '../proxy/session-records.ts';
import { sharedSessionsBytes } from '../proxy/sessions.ts';
import {
  COMMAND_CRASH,
  COMMAND_HOLD,
  COMMAND_RUN,
  COMMAND_STOP,
  CONTROL_COMMAND,
  CONTROL_PARKED_COUNT,
  CONTROL_PHASE,
  CONTROL_PUBLICATIONS,
  createControlBlock,
  PHASE_DRAINED,
  PHASE_DRAINING,
  PHASE_RUNNING,
} from '../proxy/shared.ts';
import { createWorkerStats } from '../proxy/stats.ts';
import type { WorkerCommand, WorkerReport } from '../proxy/worker-main.ts';
import type { WorkerMemory, WorkerOptions } from '../proxy/worker-state.ts';
import { type ClientTable, openClientTable } from '../route/client-table.ts';
import { monotonicMs } from '../sys/clock.ts';
import { errnoName } from '../sys/errno.ts';
import { createEventfd, signalEventfd } from '../sys/eventfd.ts';
import type { EarlyThreads } from './worker-threads.ts';

const RESTART_DELAY_MS_MIN = 10;
const RESTART_DELAY_MS_MAX = 5000;
/** Until its listener is closed, connections still come in that nobody will accept. */
const PHASE_POLL_MS = 1;
/** The portable engine is woken by a message. -errno values are below. */
const NO_EVENTFD = -1;
/** A worker that lived this long died of something new: its replacement starts at once again. */
const HEALTHY_MS = 30_000;
/** Owner id of the control plane's own view of the client table; workers are 1.. */
export const CONTROL_OWNER_ID = 0xffff;

/** Shared memory that all workers see; per worker memory is made here. */
export type CommonMemory = Omit<WorkerMemory, 'control' | 'stats' | 'sessions' | 'records'>;

export interface WorkerPoolOptions {
  readonly engine: EngineChoice;
  readonly count: number;
  readonly slots: number;
  readonly bufferBytes: number;
  readonly bufferCount: number;
  readonly logger: Logger;
  /** The session log is on: workers write records (proxy/session-records.ts). */
  readonly recordsSessions: boolean;
  /** Called when the last worker has stopped after a drain or stop command. */
  readonly onStopped: () => void;
  /** A worker opened or closed a backend's breaker (route/breaker.ts). */
  readonly onBreaker: (backend: number, change: number) => void;
}

interface Member {
  readonly id: number;
  readonly wakeFd: number;
  memory: WorkerMemory | null;
  options: WorkerOptions | null;
  thread: Worker;
  startedAt: number;
  restartDelayMs: number;
  restart: NodeJS.Timeout | undefined;
  /** The thread has ended and none has taken its place. */
  exited: boolean;
  engine: string;
  /** Threads that took the place of a dead one. */
  replacements: number;
}

/** A worker as others may see it. */
export interface WorkerView {
  readonly id: number;
  readonly engine: string;
  readonly phase: 'starting' | 'running' | 'draining' | 'drained' | 'dead';
  readonly replacements: number;
  /** As proxy/stats.ts and proxy/sessions.ts lay them out. */
  readonly stats: SharedArrayBuffer;
  readonly sessions: SharedArrayBuffer;
}

function phaseOf({ exited, memory }: Member): WorkerView['phase'] {
  const phase = memory === null ? 0 : new Int32Array(memory.control)[CONTROL_PHASE];
  if (phase === PHASE_DRAINED) return 'drained';
  if (exited) return 'dead';
  if (phase === PHASE_DRAINING) return 'draining';
  return phase === PHASE_RUNNING ? 'running' : 'starting';
}

/** Makes the worker look at its control block. */
function wake(member: Member): void {
  if (member.wakeFd === NO_EVENTFD) member.thread.postMessage({ type: 'wake' });
  else signalEventfd(member.wakeFd);
}

export class WorkerPool {
  readonly #threads: EarlyThreads;
  readonly #options: WorkerPoolOptions;
  readonly #members: Member[];
  #common: CommonMemory | null = null;
  #clients: ClientTable | null = null;
  #command = COMMAND_RUN;
  #running = 0;
  #hasStopped = false;
  readonly #refusals = new Set<string>();

  /** Starts the threads; they open their engines while the caller loads its data. */
  constructor(threads: EarlyThreads, options: WorkerPoolOptions) {
    this.#threads = threads;
    this.#options = options;
    this.#members = Array.from({ length: options.count }, (_, index) => {
      const wakeFd = usesNative(options.engine) ? createEventfd() : NO_EVENTFD;
      if (wakeFd < NO_EVENTFD) {
        throw new ProxyError('ERR_WORKER', `Cannot make an eventfd: ${errnoName(wakeFd)}`);
      }
      return {
        id: index + 1,
        wakeFd,
        memory: null,
        options: null,
        thread: this.#spawn(wakeFd),
        startedAt: monotonicMs(),
        restartDelayMs: 0,
        restart: undefined,
        exited: false,
        engine: '',
        replacements: 0,
      };
    });
    threads.close();
    // process.exit() joins the threads, and a worker blocked in the kernel would never end: wake it with an order to.
    process.on('exit', () => this.command(COMMAND_STOP));
  }

  #spawn(wakeFd: number): Worker {
    const { engine, slots, bufferBytes, bufferCount } = this.#options;
    const thread = this.#threads.take(wakeFd !== NO_EVENTFD);
    const data = { engine, slots, wakeFd, bufferBytes, bufferCount };
    thread.postMessage({ type: 'open', data } satisfies WorkerCommand);
    return thread;
  }

  /** Hands the workers their memory and, unless `held`, lets them accept; resolves when all of them run. */
  async start(
    common: CommonMemory,
    optionsOf: (workerIndex: number) => WorkerOptions,
    held = false,
  ): Promise<void> {
    this.#common = common;
    if (held) this.#command = COMMAND_HOLD;
    this.#clients = openClientTable(common.clients, CONTROL_OWNER_ID);
    await Promise.all(
      this.#members.map((member, index) => {
        member.memory = {
          ...common,
          control: createControlBlock(this.#command),
          stats: createWorkerStats(),
          sessions: new SharedArrayBuffer(sharedSessionsBytes(this.#options.slots)),
          records: this.#options.recordsSessions ? createRecordBuffer() : null,
        };
        member.options = optionsOf(index);
        return this.#launch(member);
      }),
    );
  }

  async #launch(member: Member): Promise<void> {
    const { thread, memory, options } = member;
    if (memory === null || options === null)
      throw new Error('A worker was launched without memory');
    member.startedAt = monotonicMs();
    member.exited = false;
    this.#running++;
    let failure: unknown = null;
    thread.on('error', (error) => {
      failure = error;
    });
    thread.once('exit', () => this.#ended(member, failure));
    thread.postMessage({ type: 'start', memory, options } satisfies WorkerCommand);
    const [report] = (await Promise.race([once(thread, 'message'), once(thread, 'exit')])) as [
      WorkerReport | number,
    ];
    if (typeof report === 'number') throw new ProxyError('ERR_WORKER', 'A worker ended at start');
    if (report.type === 'refused') {
      throw new ProxyError('ERR_ENGINE', `Cannot start: ${report.reason}`);
    }
    if (report.type === 'running') this.#noteRunning(member, report);
    thread.on('message', (message: WorkerReport) => {
      if (message.type === 'breaker') this.#options.onBreaker(message.backend, message.change);
    });
  }

  #noteRunning(member: Member, report: Extract<WorkerReport, { type: 'running' }>): void {
    const { logger } = this.#options;
    member.engine = report.engine;
    // One line for all workers that say the same.
    if (report.refusal !== '' && !this.#refusals.has(report.refusal)) {
      this.#refusals.add(report.refusal);
      const fields = { event: 'engine_fallback', engine: report.engine };
      logger.warn(`Running on ${report.engine}: ${report.refusal}`, fields);
    }
    if (report.slowNatives.length === 0) return;
    logger.warn('Native calls are slow on this Node.js', {
      functions: report.slowNatives.join(', '),
    });
  }

  #ended(member: Member, failure: unknown): void {
    this.#running--;
    member.exited = true;
    if (this.#isStopping()) {
      if (failure !== null) this.#bury(member, failure, null);
      if (this.#running === 0) this.#stopped();
      return;
    }
    if (monotonicMs() - member.startedAt > HEALTHY_MS) member.restartDelayMs = 0;
    const delay = member.restartDelayMs;
    member.restartDelayMs = Math.min(
      RESTART_DELAY_MS_MAX,
      Math.max(RESTART_DELAY_MS_MIN, delay * 2),
    );
    this.#bury(member, failure, delay);
    member.restart = setTimeout(() => this.#replace(member), delay);
  }

  /** Reports a dead worker and gives back what it held. `restartInMs` null: nobody takes its place. */
  #bury(member: Member, failure: unknown, restartInMs: number | null): void {
    const { memory } = member;
    if (memory === null || this.#clients === null) return;
    const clientNowMs = Math.floor(monotonicMs() - (member.options?.epochMs ?? 0));
    const sessionsLost = reclaimWorker(
      memory,
      member.id,
      member.wakeFd !== NO_EVENTFD,
      this.#clients,
      clientNowMs,
    );
    const reason = failure === null ? 'it ended without an order' : errorMessage(failure);
    const what = restartInMs === null ? 'A worker died' : 'A worker died and is replaced';
    this.#options.logger.error(what, {
      event: 'worker_died',
      worker: member.id,
      reason,
      sessionsLost,
      restartInMs: restartInMs ?? undefined,
      ...(failure instanceof Error ? { stack: failure.stack } : {}),
    });
  }

  #isStopping(): boolean {
    return this.#command !== COMMAND_RUN && this.#command !== COMMAND_HOLD;
  }

  #replace(member: Member): void {
    if (this.#isStopping() || this.#common === null || member.memory === null) return;
    // Publications may have gone to the dead thread: the new one starts from the latest of each.
    const control = createControlBlock(this.#command);
    member.memory = { ...member.memory, ...this.#common, control };
    member.thread = this.#spawn(member.wakeFd);
    member.replacements++;
    const { logger } = this.#options;
    const worker = member.id;
    this.#launch(member).then(
      () => logger.info('A worker was replaced', { event: 'worker_replaced', worker }),
      // Its engine worked before: what is short now may be there again later, and the others go on. Its end tries again.
      (error: unknown) => {
        const fields = { event: 'worker_failed', worker, reason: errorMessage(error) };
        logger.error('A worker cannot start', fields);
      },
    );
  }

  /** Gives every worker a new snapshot, geo table or access list; each takes it between two batches. */
  publish(kind: 'routing' | 'geo' | 'access', buffer: SharedArrayBuffer): void {
    if (this.#common === null) return;
    this.#common = { ...this.#common, [kind]: buffer };
    this.#post({ type: kind, buffer });
  }

  /** Has every worker end what is granted to be ended of draining backends. */
  endDrained(): void {
    this.#post({ type: 'end-drained' });
  }

  #post(command: WorkerCommand): void {
    for (const member of this.#members) {
      if (member.memory === null) continue;
      member.thread.postMessage(command);
      // After posting: a worker that sees the count finds the message.
      Atomics.add(new Int32Array(member.memory.control), CONTROL_PUBLICATIONS, 1);
      wake(member);
    }
  }

  /** A command for all. A worker never launched waits for its first message: it is ended. */
  command(command: number): void {
    this.#command = command;
    for (const member of this.#members) {
      if (member.memory === null) {
        void member.thread.terminate();
        continue;
      }
      Atomics.store(new Int32Array(member.memory.control), CONTROL_COMMAND, command);
      wake(member);
    }
    if (!this.#isStopping()) return;
    for (const { restart } of this.#members) clearTimeout(restart);
    // All are dead, and none will come back to say that it has stopped.
    if (this.#common !== null && this.#running === 0) setImmediate(() => this.#stopped());
  }

  #stopped(): void {
    if (this.#hasStopped) return;
    this.#hasStopped = true;
    this.#options.onStopped();
  }

  /** Resolves once a worker uses its listening sockets no more, after it was told to drain, hand over or stop. */
  async acceptingStopped(index: number): Promise<void> {
    const uses = ({ memory, exited }: Member): boolean =>
      !exited && memory !== null && new Int32Array(memory.control)[CONTROL_PHASE] < PHASE_DRAINING;
    while (uses(this.#members[index] as Member)) await setTimeoutPromise(PHASE_POLL_MS);
  }

  /** Makes one worker throw, as a bug would: fault injection. */
  crash(index: number): void {
    const member = this.#members[index];
    if (!member?.memory) return;
    Atomics.store(new Int32Array(member.memory.control), CONTROL_COMMAND, COMMAND_CRASH);
    wake(member);
  }

  /** The engines in use; one, unless a replaced worker could not get the same again. */
  engines(): string[] {
    return [...new Set(this.#members.map(({ engine }) => engine))];
  }

  /** Every worker that has its memory. */
  views(): WorkerView[] {
    return this.#members.flatMap((member) => {
      const { id, engine, replacements, memory } = member;
      if (memory === null) return [];
      const { stats, sessions } = memory;
      return [{ id, engine, phase: phaseOf(member), replacements, stats, sessions }];
    });
  }

  /** Accepted connections that wait for EDGEPROXY_MAX_CONNECTIONS. */
  get parked(): number {
    return this.#members.reduce((sum, { memory }) => {
      return memory === null ? sum : sum + new Int32Array(memory.control)[CONTROL_PARKED_COUNT];
    }, 0);
  }

  /** What all workers share, the routing snapshot and geo table in use among it; null before the start. */
  get common(): CommonMemory | null {
    return this.#common;
  }

  /** Each worker's records (proxy/session-records.ts), none when the session log is off; they survive its replacement. */
  records(): SharedArrayBuffer[] {
    return this.#members.flatMap(({ memory }) => memory?.records ?? []);
  }

  /** Each worker's counters (proxy/stats.ts); they survive its replacement. */
  stats(): SharedArrayBuffer[] {
    return this.#members.flatMap(({ memory }) => (memory === null ? [] : [memory.stats]));
  }
}
