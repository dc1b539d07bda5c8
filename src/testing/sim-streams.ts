// What the proxy may write to a socket: the bytes of the session's other peer, in order, and FIN only after all of them.

import type { SimNetwork } from './sim-network.ts';
import { fail } from './sim-trace.ts';

/** Every byte goes where it belongs, in order, none twice and none left out. Called after `bytes` were written to `end`. */
export function checkOrder(
  network: SimNetwork,
  worker: number,
  endpoint: number,
  end: number,
  origin: number,
  start: number,
  bytes: number,
): void {
  if (origin !== (network.pair[end] ^ 1)) {
    fail(`Another session's bytes were sent (endpoint ${endpoint})`, worker, endpoint >> 1);
  }
  if (network.owed[end] === 1) {
    fail(`Bytes before the PROXY header (endpoint ${endpoint})`, worker, endpoint >> 1);
  }
  const next = network.positionOf(end, network.wrote[end] - bytes);
  if (start === next) return;
  const where = `Bytes from ${start} were sent where ${next} is next (endpoint ${endpoint})`;
  fail(where, worker, endpoint >> 1);
}

/** A FIN says "that was all": so the other peer must have said so, and all must have been passed on. */
export function checkFin(network: SimNetwork, worker: number, endpoint: number, end: number): void {
  const slot = endpoint >> 1;
  const other = network.pair[end];
  if (other < 0) fail(`A FIN without a peer that ended (endpoint ${endpoint})`, worker, slot);
  // Nobody hears it on a connection that is over.
  if (network.over[end] === 1) return;
  if (network.sawEnd[other] === 0) {
    fail(`A FIN though the peer sent none (endpoint ${endpoint})`, worker, slot);
  }
  if (network.owed[end] === 1) fail(`A FIN before the PROXY header (${endpoint})`, worker, slot);
  const all = network.wrote[other ^ 1];
  const passed = network.positionOf(end, network.wrote[end]);
  if (passed === all) return;
  fail(`A FIN after ${passed} of ${all} bytes (endpoint ${endpoint})`, worker, slot);
}
