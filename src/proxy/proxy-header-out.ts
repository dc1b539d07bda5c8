// The PROXY header that a backend gets before anything else: written when its connection stands, into a buffer that no
// receive can take; where all of those are on their way, the session waits for its turn. relay.ts sends it.

import { countryCode } from '../route/regions.ts';
import { writeProxyHeader } from './proxy-protocol-write.ts';
import {
  HEADER_DESTINATION,
  HEADER_PROXIED,
  HEADER_WORDS,
  loadAddress,
  STATE_RELAYING,
} from './sessions.ts';
import type { WorkerState } from './worker-state.ts';

/** A buffer with the header that the session's backend wants; -1 = none is free now. */
export function writeHeader(worker: WorkerState, slot: number): number {
  const { engine, sessions, peer, destination, extras } = worker;
  const buffer = engine.takeBuffer();
  if (buffer < 0) return -1;
  loadAddress(sessions.clientWords, slot * 4, sessions.clientPort[slot], peer);
  readDestination(worker, slot);
  extras.country = countryCode(sessions.country[slot]);
  worker.bufferBytes[buffer] = writeProxyHeader(
    engine.memory,
    buffer * engine.bufferBytes,
    sessions.headerOut[slot],
    peer,
    destination,
    extras,
  );
  sessions.headerOut[slot] = 0;
  return buffer;
}

/** Where the client connected to: what its proxy said, else this end of its connection. */
function readDestination(worker: WorkerState, slot: number): void {
  const { engine, sessions, destination } = worker;
  if (sessions.headerIn[slot] === HEADER_PROXIED) {
    const at = slot * HEADER_WORDS + HEADER_DESTINATION;
    loadAddress(sessions.headerWords, at, sessions.headerWords[at + 4], destination);
    return;
  }
  if (engine.readLocal(sessions.sockets[slot * 2] - 1, destination) === 0) return;
  // The client is gone and its end is about to be heard; the header is owed all the same.
  destination.family = worker.peer.family;
  destination.w0 = 0;
  destination.w1 = 0;
  destination.w2 = 0;
  destination.w3 = 0;
  destination.port = 0;
}

/** The session waits for a buffer. */
export function holdHeader(worker: WorkerState, slot: number): void {
  if (worker.owedListed[slot] === 1) return;
  worker.owedListed[slot] = 1;
  worker.owed[(worker.owedHead + worker.owedCount) % worker.owed.length] = slot;
  worker.owedCount++;
}

/** The session that waits longest; -1 when it waits no more. */
export function nextHeld(worker: WorkerState): number {
  const { sessions, owed } = worker;
  const slot = owed[worker.owedHead];
  worker.owedHead = (worker.owedHead + 1) % owed.length;
  worker.owedCount--;
  worker.owedListed[slot] = 0;
  return sessions.state[slot] === STATE_RELAYING && sessions.headerOut[slot] !== 0 ? slot : -1;
}
