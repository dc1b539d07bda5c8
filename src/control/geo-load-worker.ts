// Reads and compiles one country database on a thread of its own, so that a hot swap of even a
// large city database does not hold up the main thread. Started by geo-load.ts, ends after one
// answer.

import { parentPort, workerData } from 'node:worker_threads';
import { ProxyError } from '../base/errors.ts';
import { type GeoLoadAnswer, loadGeoTable } from './geo-load.ts';

function answer(path: string): GeoLoadAnswer {
  try {
    return { loaded: loadGeoTable(path) };
  } catch (error) {
    // Only what a file can cause; anything else is a defect and ends this thread with its stack.
    if (!(error instanceof ProxyError)) throw error;
    return { failed: { code: error.code, message: error.message } };
  }
}

parentPort?.postMessage(answer(workerData as string));
