// A thread that wakes an engine blocked in `wait` by its eventfd, as the control plane does, and tells when that is lost.

import { isMainThread, workerData } from 'node:worker_threads';
import { signalEventfd } from '../sys/eventfd.ts';

/** Words of the shared block: rounds asked for, signalled and seen; wake-ups that nobody saw. */
export const WAKE_ASKED = 0;
export const WAKE_SIGNALLED = 1;
export const WAKE_SEEN = 2;
export const WAKE_LOST = 3;

export interface WakeJob {
  readonly wakeFd: number;
  readonly rounds: number;
  readonly shared: SharedArrayBuffer;
}

/** Long enough for the engine's thread to be blocked in most rounds; the round is right in either order. */
const HEAD_START_MS = 3;
const LOST_MS = 2000;

function wakeInRounds({ wakeFd, rounds, shared }: WakeJob): void {
  const words = new Int32Array(shared);
  for (let round = 1; round <= rounds; round++) {
    // Pairs with the engine thread's store: its request is there before the wake-up that answers it.
    while (Atomics.load(words, WAKE_ASKED) < round) Atomics.wait(words, WAKE_ASKED, round - 1);
    if (round % 2 === 1) Atomics.wait(words, WAKE_LOST, 0, HEAD_START_MS);
    // Before the signal: who wakes by it sees the round. The notification serves who asks for a signal made before.
    Atomics.store(words, WAKE_SIGNALLED, round);
    signalEventfd(wakeFd);
    Atomics.notify(words, WAKE_SIGNALLED);
    const seen = Atomics.wait(words, WAKE_SEEN, round - 1, LOST_MS);
    if (seen === 'timed-out') Atomics.add(words, WAKE_LOST, 1);
  }
}

if (!isMainThread) wakeInRounds(workerData as WakeJob);
