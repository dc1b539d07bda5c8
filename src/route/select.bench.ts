// Nanoseconds per selection, with a hash of what was selected: `node src/route/select.bench.ts`.
// Budgets (DESIGN §5): 1 µs with 100 backends, 2 µs with 10,000; encoding 10,000 in 10 ms.

import { getHeapStatistics } from 'node:v8';
import { largeRoutingData } from '../testing/routing-data.ts';
import { createBackendState, openBackendState } from './backend-state.ts';
import { explainSelection } from './candidates.ts';
import {
  createSelector,
  releaseBackend,
  reserveBackend,
  reserveBound,
  type Selector,
  useSnapshot,
} from './select.ts';
import { encodeSnapshot, openSnapshot } from './snapshot.ts';

const NONE = new Int32Array(0);
const COUNTRIES = 250;

function selectorFor(backends: number, apps: number): Selector {
  const selector = createSelector(openBackendState(createBackendState()), 1);
  useSnapshot(selector, openSnapshot(encodeSnapshot(largeRoutingData(backends, apps))));
  return selector;
}

/** Runs `operation` warm five times over; prints the median, the spread and the result hash. */
function measure(name: string, turns: number, operation: (turn: number) => number): void {
  const results: number[] = [];
  let hash = 0;
  let allocated = 0;
  for (let round = 0; round < 6; round++) {
    const allocatedBefore = getHeapStatistics().total_allocated_bytes;
    const started = process.hrtime.bigint();
    for (let turn = 0; turn < turns; turn++) hash = (Math.imul(hash, 31) + operation(turn)) | 0;
    const ns = Number(process.hrtime.bigint() - started) / turns;
    allocated = (getHeapStatistics().total_allocated_bytes - allocatedBefore) / turns;
    if (round > 0) results.push(ns);
  }
  results.sort((one, two) => one - two);
  const [least, most] = [results[0].toFixed(0), results[4].toFixed(0)];
  const result = (hash >>> 0).toString(16).padStart(8, '0');
  process.stdout.write(
    `${name.padEnd(44)} ${results[2].toFixed(0).padStart(9)} ns  (${least}..${most})` +
      `  ${allocated.toFixed(1)} B  ${result}\n`,
  );
}

function benchReserve(backends: number, apps: number, app: number): void {
  const selector = selectorFor(backends, apps);
  measure(`reserve + release, ${backends} backends, app ${app} of ${apps}`, 300_000, (turn) => {
    const backend = reserveBackend(selector, app, turn % (COUNTRIES + 1), NONE, 0);
    releaseBackend(selector.state, backend);
    return backend;
  });
}

for (const backends of [3, 100, 10_000]) {
  benchReserve(backends, 1, 1);
  benchReserve(backends, 1, 0);
}
benchReserve(10_000, 100, 7);

const bound = selectorFor(10_000, 1);
measure('reserveBound + release, 10000 backends', 300_000, (turn) => {
  const backend = (turn * 7) % 10_000;
  if (!reserveBound(bound, 1, backend, 1)) return -1;
  releaseBackend(bound.state, backend);
  return backend;
});

// Half of all backends full, scattered: some selections need more than one pair, or a lower tier.
const half = selectorFor(10_000, 1);
for (let index = 0; index < 10_000; index++) {
  if (Math.imul(index, 0x9e37_79b1) < 0) half.state.active[index] = 1000;
}
measure('reserve + release, 10000 backends, half full', 300_000, (turn) => {
  const backend = reserveBackend(half, 1, turn % (COUNTRIES + 1), NONE, 0);
  releaseBackend(half.state, backend);
  return backend;
});

// The worst case: a tier is walked whole before the next one is tried.
const full = selectorFor(10_000, 1);
full.state.active.fill(1000);
measure('reserve refused, 10000 backends, all full', 2000, (turn) =>
  reserveBackend(full, 1, turn % (COUNTRIES + 1), NONE, 0),
);

const cold = selectorFor(10_000, 1);
const { snapshot } = cold;
measure('reserve with a plan to compute, 10000 backends', 20_000, (turn) => {
  if (snapshot !== null && turn % COUNTRIES === 0) useSnapshot(cold, snapshot);
  const backend = reserveBackend(cold, 1, 1 + (turn % COUNTRIES), NONE, 0);
  releaseBackend(cold.state, backend);
  return backend;
});

const data = largeRoutingData(10_000, 10);
measure('encodeSnapshot, 10000 backends', 50, () => encodeSnapshot(data).byteLength);
measure('explainSelection, 10000 backends', 10, (turn) => explainSelection(cold, 0, turn)[0].index);
