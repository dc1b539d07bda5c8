// Who gets a receive buffer when they run short. A direction may have fewer waiting the fuller the pool is, so that peers
// that do not read cannot hold it all; directions that find none wait their turn, first come first served; and when turns
// stop because everything is held for peers that take nothing, the sessions that have waited longest for theirs end.

import { REASON_BUFFERS_EXHAUSTED } from './close-reason.ts';
import { endSession } from './end.ts';
import { RECEIVE_ARMED, RECEIVE_STARVED, STATE_HEADER, STATE_RELAYING } from './sessions.ts';
import { STAT_BUFFER_WAITS } from './stats.ts';
import { TICK_MS, type WorkerState } from './worker-state.ts';

/** Buffers one direction may have waiting before its receive stops: with half of them free, and with less. */
const QUEUE_MAX = 8;
const QUEUE_MAX_SHORT = 2;
/** A direction has waited for its turn for this long: too much is held. */
const LONG_WAIT_MS = 1000;
/** Only a send that has made no progress for this long gives way. */
const STUCK_SEND_MS = 5000;
/** Sends that got stuck within this time of each other are equally long stuck. */
const STUCK_TOGETHER_MS = 1000;

/** Buffers one direction may have waiting behind the one being sent, now. */
export function queueMax({ engine }: WorkerState): number {
  if (engine.isScarce()) return 0;
  return engine.buffersInUse() * 2 <= engine.bufferCount ? QUEUE_MAX : QUEUE_MAX_SHORT;
}

/** Whether a direction with `queued` buffers waiting behind the one being sent (`isSending`) has room for another. */
export function mayReceive(worker: WorkerState, isSending: boolean, queued: number): boolean {
  if (!isSending) return true;
  const most = queueMax(worker);
  return most > 0 && queued * 2 < most;
}

/** Starts receiving at `endpoint`. */
export function armReceive(worker: WorkerState, endpoint: number): void {
  const { sessions, engine } = worker;
  const slot = endpoint >> 1;
  sessions.receiving[endpoint] = RECEIVE_ARMED;
  sessions.pending[slot]++;
  engine.receive(endpoint, sessions.generation[slot], sessions.sockets[endpoint] - 1);
}

/** No buffer is free: the direction takes its turn in feedStarved(). */
export function waitForBuffer(worker: WorkerState, endpoint: number): void {
  const { sessions, starved } = worker;
  sessions.receiving[endpoint] = RECEIVE_STARVED;
  worker.stats.totals[STAT_BUFFER_WAITS]++;
  if (worker.starvedListed[endpoint] === 1) return;
  worker.starvedListed[endpoint] = 1;
  worker.starvedAt[endpoint] = worker.clock[0];
  starved[(worker.starvedHead + worker.starvedCount) % starved.length] = endpoint;
  worker.starvedCount++;
}

/** Directions that waited for a buffer take their turn. Called while there are any. */
export function feedStarved(worker: WorkerState): void {
  const { sessions, starved, engine } = worker;
  // One start per waiting direction and call: a start may find the buffer gone again.
  for (let turns = worker.starvedCount; turns > 0 && engine.hasBuffer(); turns--) {
    const endpoint = starved[worker.starvedHead];
    worker.starvedHead = (worker.starvedHead + 1) % starved.length;
    worker.starvedCount--;
    worker.starvedListed[endpoint] = 0;
    const state = sessions.state[endpoint >> 1];
    if (state !== STATE_RELAYING && state !== STATE_HEADER) continue;
    if (sessions.receiving[endpoint] === RECEIVE_STARVED) armReceive(worker, endpoint);
  }
  if (worker.starvedCount === 0 || worker.clock[0] < worker.relieveAt[0]) return;
  if (worker.clock[0] - worker.starvedAt[starved[worker.starvedHead]] < LONG_WAIT_MS) return;
  endLongestStuck(worker);
  // Looking through all sessions once a tick is enough.
  worker.relieveAt[0] = worker.clock[0] + TICK_MS;
}

/** Ends the sessions whose peers have taken nothing for longest, if that is long enough: one for each that waits, at most. */
function endLongestStuck(worker: WorkerState): void {
  const { sessions } = worker;
  const endpoints = sessions.slots.fresh * 2;
  let longest = -1;
  for (let endpoint = 0; endpoint < endpoints; endpoint++) {
    if (!isSending(worker, endpoint)) continue;
    if (longest < 0 || sessions.sentAt[endpoint] < sessions.sentAt[longest]) longest = endpoint;
  }
  if (longest < 0 || worker.clock[0] - sessions.sentAt[longest] < STUCK_SEND_MS) return;
  const { sentAt } = sessions;
  let toEnd = worker.starvedCount;
  for (let endpoint = longest; endpoint < endpoints && toEnd > 0; endpoint++) {
    if (!isSending(worker, endpoint)) continue;
    if (sentAt[endpoint] - sentAt[longest] > STUCK_TOGETHER_MS) continue;
    endSession(worker, endpoint >> 1, REASON_BUFFERS_EXHAUSTED);
    toEnd--;
  }
}

function isSending({ sessions }: WorkerState, endpoint: number): boolean {
  return sessions.sending[endpoint] !== 0 && sessions.state[endpoint >> 1] === STATE_RELAYING;
}
