// What one simulated run is like, drawn from its seed: how many workers, how small the pools and limits are, how the peers
// behave, how hostile the engine is. Extremes are common, because that is where the bugs are.

import type { WorkerOptions } from '../proxy/worker-state.ts';
import type { SimControlOptions } from './sim-control.ts';
import type { SimEngineOptions } from './sim-engine-host.ts';
import { HEADER_BUFFER_BYTES_MIN, type HeaderOptions } from './sim-headers.ts';
import type { PeerOptions } from './sim-peers.ts';
import type { SimRandom } from './sim-random.ts';

export interface SimOptions {
  readonly workers: number;
  readonly slots: number;
  readonly clients: number;
  readonly clientRows: number;
  /** Mean time between clients, ms, and how many come at once at times. */
  readonly gapMs: number;
  readonly burst: number;
  /** Bytes of a socket's buffers at most, and the delay of a link. */
  readonly bufferMax: number;
  readonly delayMsMax: number;
  /** Chance per client that the routing data, a gate, or the access list changes. */
  readonly changeChance: number;
  readonly gateChance: number;
  readonly accessChance: number;
  readonly lostChance: number;
  /** A worker may be away this long after a batch. */
  readonly busyMsMax: number;
  /** Share of the clients after which the worker is told to stop; 1 = it drains when all have come. */
  readonly stopAfter: number;
  readonly drainMs: number;
  /** null: no PROXY headers. */
  readonly headers: HeaderOptions | null;
  readonly control: SimControlOptions;
  readonly peers: PeerOptions;
  readonly engine: Omit<SimEngineOptions, 'worker'>;
  readonly worker: Omit<WorkerOptions, 'workerId' | 'seed' | 'listeners'>;
}

export const LISTENERS = 2;
/** Countries of the simulated clients, by the second byte of 20.x.0.0. */
export const COUNTRIES = ['BR', 'AR', 'US', 'DE', 'JP'];
const BATCH_MAX = 512;

/** Zero in half of the runs, so that each fault is met with and without the others. */
function maybe(random: SimRandom, low: number, high: number): number {
  return random.chance(0.5) ? 0 : random.between(low, high);
}

function drawPeers(random: SimRandom, bufferBytes: number): PeerOptions {
  return {
    bulkShare: random.pick([0, 0.02, 0.1]),
    resetShare: maybe(random, 0.01, 0.3),
    silentShare: maybe(random, 0.005, 0.03),
    slowShare: maybe(random, 0.02, 0.3),
    neverReadShare: maybe(random, 0.01, 0.1),
    abruptShare: maybe(random, 0.02, 0.3),
    smallBytesMax: random.pick([100, 1000, bufferBytes * 3]),
    bulkBytesMax: bufferBytes * random.whole(40, 150),
    paceMsMax: random.spread(2, 100),
    bufferBytes,
  };
}

function drawEngine(
  random: SimRandom,
  slots: number,
  bufferBytes: number,
): Omit<SimEngineOptions, 'worker' | 'writeBuffers'> {
  const few = random.chance(0.3);
  return {
    slots,
    listeners: LISTENERS,
    bufferBytes,
    bufferCount: few ? random.whole(2, 24) : 4096,
    canPump: random.chance(0.9),
    lateMsMax: random.pick([0.01, 1, 1, 30]),
    promptShare: random.between(0, 1),
    batchMax: random.pick([1, 8, BATCH_MAX, BATCH_MAX]),
    shortChance: maybe(random, 0.05, 0.5),
    endChance: maybe(random, 0.01, 0.2),
    raceChance: random.pick([0, 0.3, 0.9]),
    noBuffersChance: maybe(random, 0.005, 0.1),
    pumpRefusedChance: maybe(random, 0.05, 0.5),
    descriptorErrorChance: maybe(random, 0.001, 0.02),
    acceptErrorChance: maybe(random, 0.001, 0.02),
    descriptorsMax: random.chance(0.1) ? random.whole(4, 40) : slots * 2 + 64,
    likeEpoll: random.chance(0.5),
  };
}

export function drawOptions(random: SimRandom, headers: HeaderOptions | null): SimOptions {
  const low = random.chance(0.3);
  const maxConnections = low ? random.whole(2, 30) : 300;
  const slots = maxConnections + random.whole(1, 8) - (random.chance(0.1) ? 2 : 0);
  const bufferBytesMin = headers === null ? 1 : HEADER_BUFFER_BYTES_MIN;
  const bufferBytes = Math.max(bufferBytesMin, random.pick([64, 256, 1024, 4096]));
  const writeBuffers = headers?.writeBuffers ?? 1;
  const engine = { ...drawEngine(random, Math.max(1, slots), bufferBytes), writeBuffers };
  const connectTimeoutMs = random.spread(200, 3000);
  return {
    workers: random.pick([1, 1, 1, 2, 3]),
    slots: Math.max(1, slots),
    clients: random.pick([1, 5, 60, 500]),
    clientRows: random.pick([2, 40, 2000]),
    gapMs: random.spread(5, 400) / 100,
    burst: random.pick([1, 5, 40]),
    bufferMax: bufferBytes * random.pick([1, 16, 64]),
    delayMsMax: random.spread(1, 500) / 10,
    changeChance: maybe(random, 0.005, 0.1),
    gateChance: maybe(random, 0.005, 0.05),
    accessChance: random.chance(0.3) ? random.between(0.005, 0.05) : 0,
    lostChance: maybe(random, 0.005, 0.05),
    // Small batches with long absences are overload, where every deadline is late.
    busyMsMax: engine.batchMax < BATCH_MAX ? 0.01 : random.pick([0.05, 0.5, 20]),
    stopAfter: random.chance(0.2) ? random.between(0.2, 1) : 1,
    drainMs: random.spread(2000, 40_000),
    headers,
    control: {
      backends: random.pick([2, 8, 8, 12, 12, 80, 80, 400]),
      limitedShare: random.pick([0, 0.3, 1]),
      hardLimitMax: random.pick([1, 5, 40]),
      brokenShare: maybe(random, 0.05, 0.4),
      ...(headers === null ? {} : { proxyProtocol: headers.out }),
    },
    peers: drawPeers(random, bufferBytes),
    engine,
    worker: {
      maxConnections,
      connectTimeoutMs,
      connectTotalTimeoutMs: Math.ceil(connectTimeoutMs * random.between(1, 3)),
      connectRetries: random.whole(0, 3),
      // Few places and silent peers for ever would leave nothing to simulate.
      idleTimeoutMs: low ? random.pick([300, 700, 5000]) : random.pick([0, 700, 5000, 60_000]),
      halfClosedTimeoutMs: random.pick([0, 400, 3000, 30_000]),
      bindingTtlMs: random.pick([0, 60, 2000, 600_000]),
      keepaliveSecs: 60,
      userTimeoutSecs: 30,
      epochMs: 0,
      ...(headers === null ? {} : { proxyIn: headers.proxyIn, popRegion: 'sa' }),
    },
  };
}
