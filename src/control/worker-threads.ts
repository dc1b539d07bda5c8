// The threads of workers before they are workers: proxy/worker-main.ts loaded, waiting for what to open. `run` starts them as
// soon as it has read its settings, so that they load while the rest of the program does, on the other cores.

import { Worker } from 'node:worker_threads';
import type { Config } from '../config.ts';

/** The data plane allocates nothing per session; a small heap keeps a worker near 10 MB. */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 };

/** `hasSmallHeap`: for an engine that keeps no objects. */
export function startThread(hasSmallHeap: boolean): Worker {
  return new Worker(new URL('../proxy/worker-main.ts', import.meta.url), {
    ...(hasSmallHeap ? { resourceLimits: RESOURCE_LIMITS } : {}),
    name: 'edgeproxy worker',
  });
}

/** Threads that nobody has taken yet do not keep the process from ending, when its start fails. */
export class EarlyThreads {
  readonly #threads: Worker[] = [];

  /**
   * As many as the settings say; a pool may take fewer. With EDGEPROXY_USER none is started: NO_NEW_PRIVS holds for a thread
   * only when the one that starts it has it.
   */
  constructor({ engine, user, workers }: Config) {
    if (process.platform !== 'linux' || engine === 'portable' || user !== null) return;
    this.#threads = Array.from({ length: workers }, () => startThread(true));
    for (const thread of this.#threads) thread.unref();
  }

  /** A thread as startThread() makes it; an early one while there are any. */
  take(hasSmallHeap: boolean): Worker {
    const thread = hasSmallHeap ? this.#threads.pop() : undefined;
    thread?.ref();
    return thread ?? startThread(hasSmallHeap);
  }

  /** Ends those that nobody took. */
  close(): void {
    for (const thread of this.#threads.splice(0)) void thread.terminate();
  }
}
