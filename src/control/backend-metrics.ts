// The metrics with a label for the backend. Up to EDGEPROXY_METRICS_BACKENDS_MAX backends have series of their own, those
// with the lowest index, so that a backend keeps its series; the rest are summed up as backend="other". A backend that left
// routing.db keeps its series until its last session has ended.

import type { Config } from '../config.ts';
import {
  BACKEND_BYTES,
  BACKEND_CONNECT_BUCKETS,
  BACKEND_CONNECT_MS_SUM,
  BACKEND_CONNECTIONS,
  BACKEND_FAILURES,
  CONNECT_MS_BUCKETS,
} from '../proxy/stats.ts';
import { type BackendState, GATE_DRAIN } from '../route/backend-state.ts';
import { isBreakerOpen } from '../route/breaker.ts';
import type { Counters } from './counters.ts';
import { type Family, histogramLines, labelText, sampleLine } from './exposition.ts';
import type { BackendHealth, HealthChecker } from './health.ts';
import type { Publisher } from './publish.ts';

/** An id may be `other` too: the second label tells them apart. */
const REST_LABELS = 'backend="other",summed="true"';
/** Backends summed up between two looks at the other work of the main thread. */
const REST_SLICE = 4096;

export interface BackendSources {
  readonly counters: Counters;
  readonly publisher: Publisher;
  readonly backendState: BackendState;
  /** null: health checks are off. */
  readonly health: HealthChecker | null;
  readonly config: Pick<Config, 'metricsBackendsMax'>;
}

/** The backends of one scrape. */
interface Shown {
  /** Label text by index, of those with series of their own. */
  readonly own: ReadonlyMap<number, string>;
  readonly rest: readonly number[];
}

function shownBackends({ publisher, config }: BackendSources): Shown {
  const { metricsBackendsMax: most } = config;
  const live = publisher.liveBackends();
  const own = live.slice(0, most);
  return {
    own: new Map(own.map(({ id, index }) => [index, labelText('backend', id)])),
    rest: live.slice(most).map(({ index }) => index),
  };
}

/** A line for each backend that has its own, then one for the rest; a backend `read` knows nothing of has none. */
function* perBackend(
  { own, rest }: Shown,
  name: string,
  read: (index: number) => number | undefined,
  labels = '',
): Generator<string> {
  for (const [index, backend] of own) {
    const value = read(index);
    if (value !== undefined) yield sampleLine(name, backend + labels, value);
  }
  if (rest.length === 0) return;
  let sum = 0;
  for (let at = 0; at < rest.length; at++) {
    sum += read(rest[at] as number) ?? 0;
    if (at % REST_SLICE === 0) yield '';
  }
  yield sampleLine(name, REST_LABELS + labels, sum);
}

function* latencies({ own, rest }: Shown, name: string, counters: Counters): Generator<string> {
  const buckets = CONNECT_MS_BUCKETS.length + 1;
  const lines = (labels: string, counts: (bucket: number) => number, sum: number): string =>
    histogramLines(name, labels, CONNECT_MS_BUCKETS, counts, sum);
  for (const [index, labels] of own) {
    const counts = (bucket: number): number =>
      counters.backend(index, BACKEND_CONNECT_BUCKETS + bucket);
    yield lines(labels, counts, counters.backend(index, BACKEND_CONNECT_MS_SUM));
  }
  if (rest.length === 0) return;
  const sums = new Float64Array(buckets);
  let ms = 0;
  for (let at = 0; at < rest.length; at++) {
    const index = rest[at] as number;
    for (let bucket = 0; bucket < buckets; bucket++) {
      sums[bucket] += counters.backend(index, BACKEND_CONNECT_BUCKETS + bucket);
    }
    ms += counters.backend(index, BACKEND_CONNECT_MS_SUM);
    if (at % REST_SLICE === 0) yield '';
  }
  yield lines(REST_LABELS, (bucket) => sums[bucket], ms);
}

function* healthChecks(shown: Shown, name: string, health: HealthByIndex): Generator<string> {
  for (const result of ['success', 'failure', 'inconclusive'] as const) {
    const label = `,${labelText('result', result)}`;
    yield* perBackend(shown, name, (index) => health.get(index)?.[result], label);
  }
}

type HealthByIndex = ReadonlyMap<number, BackendHealth>;

function healthFamilies(shown: Shown, health: HealthByIndex): Family[] {
  const checks = 'edge_health_checks_total';
  const healthy = 'edge_backend_healthy';
  const isHealthy = (index: number): number | undefined => {
    const backend = health.get(index);
    return backend && Number(backend.healthy);
  };
  return [
    {
      type: 'gauge',
      name: healthy,
      help: '1 unless health checks keep new sessions away',
      lines: () => perBackend(shown, healthy, isHealthy),
    },
    {
      type: 'counter',
      name: checks,
      help: 'Health checks of the backend, by result',
      lines: () => healthChecks(shown, checks, health),
    },
  ];
}

/** The numbers of backends, whatever the maximum of series. */
function countFamilies(
  sources: BackendSources,
  indexes: readonly number[],
  health: HealthByIndex,
): Family[] {
  const { backendState, publisher } = sources;
  const one = (name: string, help: string, value: () => number): Family => ({
    type: 'gauge',
    name,
    help,
    lines: () => [sampleLine(name, '', value())],
  });
  return [
    one(
      'edge_backends_current',
      'Backends of the routing snapshot in use',
      () => publisher.currentBackends().length,
    ),
    one(
      'edge_backends_ejected',
      'Backends that the passive breaker keeps out',
      () => indexes.filter((index) => isBreakerOpen(backendState, index)).length,
    ),
    one(
      'edge_backends_unhealthy',
      'Backends that health checks keep out',
      () => [...health.values()].filter(({ healthy }) => !healthy).length,
    ),
  ];
}

/** The families of one scrape. */
export function backendFamilies(sources: BackendSources): Family[] {
  const { counters, backendState } = sources;
  const shown = shownBackends(sources);
  const health = new Map<number, BackendHealth>();
  for (const backend of sources.health?.backends() ?? []) health.set(backend.index, backend);
  const family = (
    type: Family['type'],
    name: string,
    help: string,
    read: (index: number) => number,
  ): Family => ({ type, name, help, lines: () => perBackend(shown, name, read) });
  const latency = 'edge_backend_latency_ms';
  const bytes = 'edge_backend_bytes_total';
  return [
    ...countFamilies(sources, [...shown.own.keys(), ...shown.rest], health),
    family('gauge', 'edge_backend_connections_current', 'Sessions at the backend now', (index) =>
      Atomics.load(backendState.active, index),
    ),
    family(
      'counter',
      'edge_backend_connections_total',
      'Connections opened to the backend',
      (index) => counters.backend(index, BACKEND_CONNECTIONS),
    ),
    family(
      'counter',
      'edge_backend_connect_failures_total',
      'Failed connects to the backend',
      (index) => counters.backend(index, BACKEND_FAILURES),
    ),
    {
      type: 'histogram',
      name: latency,
      help: 'Time to connect to the backend, in milliseconds',
      lines: () => latencies(shown, latency, counters),
    },
    {
      type: 'counter',
      name: bytes,
      help: 'Bytes received for (up) and from (down) the backend',
      *lines() {
        for (const [side, direction] of ['up', 'down'].entries()) {
          const read = (index: number): number => counters.backend(index, BACKEND_BYTES + side);
          yield* perBackend(shown, bytes, read, `,${labelText('direction', direction)}`);
        }
      },
    },
    family('gauge', 'edge_backend_draining', 'Whether the backend is draining, 0 or 1', (index) =>
      Number((Atomics.load(backendState.gate, index) & GATE_DRAIN) !== 0),
    ),
    family(
      'gauge',
      'edge_backend_ejected',
      'Whether the passive breaker keeps the backend out, 0 or 1',
      (index) => Number(isBreakerOpen(backendState, index)),
    ),
    ...(sources.health === null ? [] : healthFamilies(shown, health)),
  ];
}
