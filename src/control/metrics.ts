// The Prometheus metrics of DESIGN 4: the workers' counters are summed when someone asks, so they cost workers nothing.
// Exposition is prom-client's; this file only says which number goes under which name and label.

import { Registry } from 'prom-client';
import { CLOSE_REASONS, REASON_NONE, REJECT_REASONS } from '../proxy/close-reason.ts';
import {
  BACKEND_CONNECT_BUCKETS,
  BACKEND_CONNECT_MS_SUM,
  BACKEND_CONNECTIONS,
  BACKEND_FAILURES,
  BACKEND_STATS,
  CONNECT_MS_BUCKETS,
  openWorkerStats,
  STAT_ACCEPT_ERRORS,
  STAT_ACCESS_DRY_RUN,
  STAT_BUFFER_WAITS,
  STAT_BUFFERS_IN_USE,
  STAT_BYTES,
  STAT_CONNECTIONS,
  STAT_CURRENT,
  STAT_END,
  STAT_FAIL_OPEN,
  STAT_LIMIT_DRY_RUN,
  STAT_PUMPS,
  STAT_REJECTED,
  STAT_RETRIES,
  STAT_UNBOUND_SESSIONS,
  type WorkerStats,
} from '../proxy/stats.ts';
import { type BackendState, GATE_DRAIN } from '../route/backend-state.ts';
import { isBreakerOpen } from '../route/breaker.ts';
import { type ClientTable, clientTableCounts } from '../route/client-table.ts';
import { errnoName } from '../sys/errno.ts';
import type { HealthChecker } from './health.ts';
import type { Publisher } from './publish.ts';
import type { WorkerPool } from './worker-pool.ts';

export interface MetricsSources {
  readonly pool: WorkerPool;
  readonly publisher: Publisher;
  readonly backendState: BackendState;
  readonly clients: ClientTable;
  readonly reloadErrors: () => number;
  readonly accessRows: () => number;
  /** null: health checks are off. */
  readonly health: HealthChecker | null;
}

interface Sample {
  readonly value: number;
  readonly labels: Record<string, string | number>;
  readonly metricName?: string;
}

type MetricType = 'counter' | 'gauge' | 'histogram';
type AddMetric = (type: MetricType, name: string, help: string, read: () => Sample[]) => void;

/** A metric whose samples are read at scrape time: what prom-client's registry asks of its own metrics. */
class ReadMetric {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly aggregator = 'sum';
  readonly #read: () => Sample[];

  constructor(type: MetricType, name: string, help: string, read: () => Sample[]) {
    this.type = type;
    this.name = name;
    this.help = help;
    this.#read = read;
  }

  get(): object {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.#read() };
  }
}

function plain(value: number): Sample[] {
  return [{ value, labels: {} }];
}

/** Makes the registry; `metrics()` of it is the exposition text. */
export function createMetrics(sources: MetricsSources): Registry {
  const registry = new Registry();
  const { pool, publisher, backendState, clients } = sources;
  const workers = (): WorkerStats[] => pool.stats().map(openWorkerStats);
  const total = (stat: number): number =>
    workers().reduce((sum, { totals }) => sum + totals[stat], 0);
  const add: AddMetric = (type, name, help, read) => {
    registry.registerMetric(new ReadMetric(type, name, help, read) as never);
  };
  const counter = (name: string, help: string, stat: number): void =>
    add('counter', name, help, () => plain(total(stat)));
  const gauge = (name: string, help: string, stat: number): void =>
    add('gauge', name, help, () => plain(total(stat)));

  counter('edge_connections_total', 'Client connections accepted', STAT_CONNECTIONS);
  gauge('edge_connections_current', 'Sessions open now', STAT_CURRENT);
  add('counter', 'edge_bytes_total', 'Bytes received, by direction', () => [
    { value: total(STAT_BYTES), labels: { direction: 'up' } },
    { value: total(STAT_BYTES + 1), labels: { direction: 'down' } },
  ]);
  add('counter', 'edge_rejected_total', 'Connections turned away before any backend work', () =>
    REJECT_REASONS.map(({ name }, index) => ({
      value: total(STAT_REJECTED + index),
      labels: { reason: name },
    })),
  );
  add('counter', 'edge_session_end_total', 'Sessions ended, each with one reason', () =>
    CLOSE_REASONS.flatMap(({ name }, index) =>
      index === REASON_NONE ? [] : [{ value: total(STAT_END + index), labels: { reason: name } }],
    ),
  );
  counter('edge_retries_total', 'Connects repeated on the next-best backend', STAT_RETRIES);
  add('counter', 'edge_accept_errors_total', 'Failed accepts, by errno', () =>
    Array.from({ length: 256 }, (_, errno) => errno).flatMap((errno) => {
      const value = total(STAT_ACCEPT_ERRORS + errno);
      return value === 0 ? [] : [{ value, labels: { errno: errnoName(errno) } }];
    }),
  );
  gauge('edge_buffers_in_use', 'Receive buffers that hold bytes now', STAT_BUFFERS_IN_USE);
  counter('edge_buffer_waits_total', 'Receives that waited for a free buffer', STAT_BUFFER_WAITS);
  counter('edge_bulk_flows_total', 'Directions moved to splice as bulk', STAT_PUMPS);
  counter(
    'edge_unbound_sessions_total',
    'Sessions without affinity: the client table had no row to give',
    STAT_UNBOUND_SESSIONS,
  );
  addProtectionMetrics(counter);
  add('gauge', 'edge_bindings_current', 'Clients bound to a backend now', () =>
    plain(clientTableCounts(clients).bindings),
  );
  add('gauge', 'edge_client_rows_current', 'Rows of the client table in use', () =>
    plain(clientTableCounts(clients).rows),
  );
  add('gauge', 'edge_routing_version', 'Version of the routing snapshot in use', () =>
    plain(publisher.version),
  );
  add('gauge', 'edge_access_rows', 'Rows of the access list in force', () =>
    plain(sources.accessRows()),
  );
  add('counter', 'edge_routing_reload_errors_total', 'Times routing.db could not be read', () =>
    plain(sources.reloadErrors()),
  );
  add('gauge', 'edge_engine_info', 'The engine of the data plane, value 1', () =>
    pool.engines().map((engine) => ({ value: 1, labels: { engine } })),
  );
  addBackendMetrics(add, workers, publisher, backendState);
  if (sources.health !== null) addHealthMetrics(add, sources.health);
  return registry;
}

function addProtectionMetrics(counter: (name: string, help: string, stat: number) => void): void {
  counter(
    'edge_limit_dry_run_total',
    'Connections that the client limits would have turned away, were they not a dry run',
    STAT_LIMIT_DRY_RUN,
  );
  counter(
    'edge_access_dry_run_total',
    'Connections that the access list would have turned away, were it not a dry run',
    STAT_ACCESS_DRY_RUN,
  );
  counter(
    'edge_fail_open_total',
    'Connections sent to an ejected backend because the breakers had left no other',
    STAT_FAIL_OPEN,
  );
}

function addBackendMetrics(
  add: AddMetric,
  workers: () => WorkerStats[],
  publisher: Publisher,
  state: BackendState,
): void {
  const { active } = state;
  const perBackend = (read: (index: number, labels: { backend: string }) => Sample[]): Sample[] =>
    publisher.currentBackends().flatMap(({ index, id }) => read(index, { backend: id }));
  const sum = (index: number, stat: number): number =>
    workers().reduce((total, { backends }) => total + backends[index * BACKEND_STATS + stat], 0);

  add(
    'gauge',
    'edge_backend_ejected',
    'Whether the passive breaker keeps the backend out, 0 or 1',
    () => perBackend((index, labels) => [{ value: isBreakerOpen(state, index) ? 1 : 0, labels }]),
  );
  add('gauge', 'edge_backend_draining', 'Whether the backend is draining, 0 or 1', () =>
    perBackend((index, labels) => {
      const draining = (Atomics.load(state.gate, index) & GATE_DRAIN) !== 0;
      return [{ value: draining ? 1 : 0, labels }];
    }),
  );
  add('gauge', 'edge_backend_connections_current', 'Sessions at the backend now', () =>
    perBackend((index, labels) => [{ value: Atomics.load(active, index), labels }]),
  );
  add('counter', 'edge_backend_connections_total', 'Connections opened to the backend', () =>
    perBackend((index, labels) => [{ value: sum(index, BACKEND_CONNECTIONS), labels }]),
  );
  add('counter', 'edge_backend_connect_failures_total', 'Failed connects to the backend', () =>
    perBackend((index, labels) => [{ value: sum(index, BACKEND_FAILURES), labels }]),
  );
  add('histogram', 'edge_backend_latency_ms', 'Time to connect to the backend', () =>
    perBackend((index, labels) => {
      const name = 'edge_backend_latency_ms';
      let count = 0;
      const samples = [...CONNECT_MS_BUCKETS, '+Inf'].map((le, bucket) => {
        count += sum(index, BACKEND_CONNECT_BUCKETS + bucket);
        return { value: count, labels: { ...labels, le }, metricName: `${name}_bucket` };
      });
      return [
        ...samples,
        { value: sum(index, BACKEND_CONNECT_MS_SUM), labels, metricName: `${name}_sum` },
        { value: count, labels, metricName: `${name}_count` },
      ];
    }),
  );
}

function addHealthMetrics(add: AddMetric, health: HealthChecker): void {
  add('gauge', 'edge_backend_healthy', '1 unless health checks keep new sessions away', () =>
    [...health.backends()].map(({ id, healthy }) => ({
      value: Number(healthy),
      labels: { backend: id },
    })),
  );
  add('counter', 'edge_health_checks_total', 'Health checks of the backend, by result', () =>
    [...health.backends()].flatMap(({ id, success, failure, inconclusive }) => [
      { value: success, labels: { backend: id, result: 'success' } },
      { value: failure, labels: { backend: id, result: 'failure' } },
      { value: inconclusive, labels: { backend: id, result: 'inconclusive' } },
    ]),
  );
}
