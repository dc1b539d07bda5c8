// Ends the process when a case of the conformance suite blocks the engine's thread for ever: nothing on that thread could.

import { writeSync } from 'node:fs';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

/** A case takes a second at most. */
const PATIENCE_MS = 40_000;

/** Returns the function that names the case about to run. */
export function startWatchdog(): (name: string) => void {
  const worker = new Worker(new URL(import.meta.url));
  worker.unref();
  return (name) => worker.postMessage(name);
}

if (!isMainThread) {
  let current = '';
  const timer = setTimeout(() => {
    writeSync(2, `"${current}" blocked the engine's thread\n`);
    process.kill(process.pid, 'SIGKILL');
  }, PATIENCE_MS);
  parentPort?.on('message', (name: string) => {
    current = name;
    timer.refresh();
  });
}
