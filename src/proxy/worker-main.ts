// The thread of one worker: opens its engine, waits for its memory, runs the loop, reports how it ended. Publications
// arrive as messages that the loop takes between batches, because it never returns to the event loop.

import { parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { type EngineChoice, type EngineOpening, openEngine } from '../engine/open.ts';
import { PortableEngine } from '../engine/portable.ts';
import type { EngineOptions } from '../engine/proactor.ts';
import { openAccessList } from '../route/access-list.ts';
import { openGeoTable } from '../route/geo-table.ts';
import { useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { wrappedNatives } from '../sys/native.ts';
import { resumeAccept } from './accept.ts';
import { startEnding } from './drain.ts';
import { CONTROL_ENGINE_FD, CONTROL_PHASE, PHASE_DRAINED, PHASE_RUNNING } from './shared.ts';
import { nextWaitMs, runBatch, runWorker } from './worker.ts';
import {
  createWorkerState,
  type WorkerMemory,
  type WorkerOptions,
  type WorkerState,
} from './worker-state.ts';

/** What a thread opens its engine with. */
interface WorkerData extends EngineOptions {
  readonly engine: EngineChoice;
}

/** Control plane to worker. `open` comes first and `start` next, once each. */
export type WorkerCommand =
  | { readonly type: 'open'; readonly data: WorkerData }
  | { readonly type: 'start'; readonly memory: WorkerMemory; readonly options: WorkerOptions }
  | { readonly type: 'routing'; readonly buffer: SharedArrayBuffer }
  | { readonly type: 'geo'; readonly buffer: SharedArrayBuffer }
  | { readonly type: 'access'; readonly buffer: SharedArrayBuffer }
  /** Sessions of draining backends may be ended (route/end-quota.ts). */
  | { readonly type: 'end-drained' }
  /** Look at the control block: for workers that have no eventfd. */
  | { readonly type: 'wake' };

/** Worker to control plane. */
export type WorkerReport =
  | {
      readonly type: 'running';
      readonly engine: string;
      /** Why not a faster engine; '' when it is the fastest or the one asked for. */
      readonly refusal: string;
      /** Native calls that this Node wraps in JavaScript. */
      readonly slowNatives: readonly string[];
    }
  | { readonly type: 'refused'; readonly reason: string }
  /** A backend's breaker opened or closed: BREAKER_OPENED, BREAKER_CLOSED of route/breaker.ts. */
  | { readonly type: 'breaker'; readonly backend: number; readonly change: number };

function takePublication(worker: WorkerState, command: WorkerCommand): void {
  if (command.type === 'routing') useSnapshot(worker.selector, openSnapshot(command.buffer));
  else if (command.type === 'geo') worker.geo = openGeoTable(command.buffer);
  else if (command.type === 'access') worker.access = openAccessList(command.buffer);
  else if (command.type === 'end-drained') startEnding(worker);
  else return;
  worker.publicationsSeen++;
}

function takePublications(worker: WorkerState): void {
  if (parentPort === null) return;
  for (;;) {
    const received = receiveMessageOnPort(parentPort);
    if (received === undefined) return;
    takePublication(worker, received.message as WorkerCommand);
  }
}

/** A blocking engine: the thread is in the loop until it is done. */
function serveBlocking(worker: WorkerState): void {
  try {
    runWorker(worker, () => takePublications(worker));
  } finally {
    worker.engine.end();
    Atomics.store(worker.control, CONTROL_ENGINE_FD, 0);
  }
  Atomics.store(worker.control, CONTROL_PHASE, PHASE_DRAINED);
}

/** The portable engine: the event loop brings batches, and messages as they come. */
function serveByEvents(worker: WorkerState, engine: PortableEngine): void {
  engine.drive(worker.options.listeners, (events) => {
    if (runBatch(worker, events, () => {})) {
      engine.wait(nextWaitMs(worker));
      return;
    }
    engine.end();
    Atomics.store(worker.control, CONTROL_PHASE, PHASE_DRAINED);
    parentPort?.close();
  });
  parentPort?.on('message', (command: WorkerCommand) => {
    takePublication(worker, command);
    engine.wake();
  });
  resumeAccept(worker);
}

function serve(
  { engine, refusal }: EngineOpening,
  memory: WorkerMemory,
  options: WorkerOptions,
): void {
  if (engine === null) {
    report({ type: 'refused', reason: refusal });
    return;
  }
  const worker = createWorkerState(engine, memory, options);
  worker.onBreaker = (backend, change) => report({ type: 'breaker', backend, change });
  Atomics.store(worker.control, CONTROL_ENGINE_FD, engine.descriptor + 1);
  Atomics.store(worker.control, CONTROL_PHASE, PHASE_RUNNING);
  const slowNatives = engine instanceof PortableEngine ? [] : wrappedNatives();
  const running: WorkerReport = { type: 'running', engine: engine.name, refusal, slowNatives };
  if (engine instanceof PortableEngine) {
    serveByEvents(worker, engine);
    void engine.listening().then(() => report(running));
  } else {
    report(running);
    serveBlocking(worker);
  }
}

function report(message: WorkerReport): void {
  parentPort?.postMessage(message);
}

function startOn(opening: EngineOpening, command: WorkerCommand): void {
  if (command.type !== 'start') throw new Error('A worker was commanded before it was started');
  serve(opening, command.memory, command.options);
}

parentPort?.once('message', (command: WorkerCommand) => {
  if (command.type !== 'open') throw new Error('A worker was commanded before it was opened');
  const opening = openEngine(command.data.engine, command.data);
  parentPort?.once('message', (next: WorkerCommand) => startOn(opening, next));
});
