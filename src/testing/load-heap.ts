// Preloaded into edgeproxy (NODE_OPTIONS=--import) to look into its workers' heaps from outside: a worker never returns to
// its event loop, but V8 can be asked from the main thread while the worker runs. Answers the message 'heaps'.
// The figure that matters is what V8 allocated since the start: garbage collections do not lower it.

import { once } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { isMainThread, Worker } from 'node:worker_threads';

export interface WorkerHeap {
  readonly allocatedBytes: number;
  readonly usedBytes: number;
}

/** What Node 26 reports beyond its published types. */
interface HeapStatistics {
  readonly total_allocated_bytes: number;
  readonly used_heap_size: number;
}

if (isMainThread && process.send) {
  const threads: Worker[] = [];
  /** A thread has no heap to ask for before it runs. */
  const online = new WeakMap<Worker, Promise<unknown>>();
  class WatchedWorker extends Worker {
    constructor(...parameters: ConstructorParameters<typeof Worker>) {
      super(...parameters);
      threads.push(this);
      online.set(this, once(this, 'online'));
      this.once('exit', () => threads.splice(threads.indexOf(this), 1));
    }
  }
  const module = process.getBuiltinModule('node:worker_threads');
  Object.assign(module, { Worker: WatchedWorker });
  syncBuiltinESMExports();

  const readHeaps = (): Promise<WorkerHeap[]> =>
    Promise.all(
      threads
        .filter(({ threadName }) => threadName === 'edgeproxy worker')
        .map(async (thread) => {
          await online.get(thread);
          const statistics = (await thread.getHeapStatistics()) as unknown as HeapStatistics;
          const { total_allocated_bytes, used_heap_size } = statistics;
          return { allocatedBytes: total_allocated_bytes, usedBytes: used_heap_size };
        }),
    );
  process.on('message', async (message) => {
    if (message === 'heaps') process.send?.(await readHeaps());
  });
  process.channel?.unref();
}
