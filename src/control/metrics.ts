// Which number goes under which name and label of /metrics (DESIGN 4). Everything is read when someone asks, so it costs
// workers nothing; docs/operating/metrics.md says what each one is for, and a test holds that page to this file.

import { statSync } from 'node:fs';
import { CLOSE_REASONS, REASON_NONE, REJECT_REASONS } from '../proxy/close-reason.ts';
import * as stats from '../proxy/stats.ts';
import { type ClientTable, clientTableCounts } from '../route/client-table.ts';
import { COUNTRIES_COUNT, countryCode } from '../route/regions.ts';
import { errnoName } from '../sys/errno.ts';
import { programVersion } from '../version.ts';
import { type BackendSources, backendFamilies } from './backend-metrics.ts';
import { type Family, histogramLines, labelText, sampleLine } from './exposition.ts';
import type { Mesh } from './mesh.ts';
import { meshFamilies } from './mesh-metrics.ts';
import { readTcpCounters } from './netstat.ts';
import { pathFamilies } from './path-metrics.ts';
import type { PathRouting } from './path-routing.ts';
import type { SessionLog } from './session-log.ts';
import type { WorkerPool } from './worker-pool.ts';

export interface MetricsSources extends BackendSources {
  readonly pool: WorkerPool;
  readonly clients: ClientTable;
  readonly maxConnections: number;
  readonly reloadErrors: () => number;
  readonly accessRows: () => number;
  /** null: it is off. */
  readonly sessionLog: SessionLog | null;
  /** null: there is none. */
  readonly mesh: Mesh | null;
  /** null: there is no mesh. */
  readonly paths: PathRouting | null;
  /** False while draining. */
  readonly isReady: () => boolean;
}

type Type = Family['type'];
type Read = () => number | undefined;
/** One of STAT_…, over all workers. */
type Total = (stat: number) => number;

/** Counters of the workers that need no label. */
const COUNTERS: readonly (readonly [name: string, stat: number, help: string])[] = [
  ['edge_connections_total', stats.STAT_CONNECTIONS, 'Client connections accepted'],
  ['edge_retries_total', stats.STAT_RETRIES, 'Connects repeated on the next-best backend'],
  ['edge_bound_sessions_total', stats.STAT_BOUND_SESSIONS, 'Sessions that followed a binding'],
  [
    'edge_unbound_sessions_total',
    stats.STAT_UNBOUND_SESSIONS,
    'Sessions without affinity: the client table had no row to give',
  ],
  [
    'edge_limit_dry_run_total',
    stats.STAT_LIMIT_DRY_RUN,
    'Connections that the client limits would have turned away, were they not a dry run',
  ],
  [
    'edge_access_dry_run_total',
    stats.STAT_ACCESS_DRY_RUN,
    'Connections that the access list would have turned away, were it not a dry run',
  ],
  [
    'edge_fail_open_total',
    stats.STAT_FAIL_OPEN,
    'Connections sent to an ejected backend because the breakers had left no other',
  ],
  ['edge_buffer_waits_total', stats.STAT_BUFFER_WAITS, 'Receives that waited for a free buffer'],
  ['edge_bulk_flows_total', stats.STAT_PUMPS, 'Directions moved to splice as bulk'],
  ['edge_worker_batches_total', stats.STAT_BATCHES, 'Turns of the loops of the workers'],
  ['edge_worker_events_total', stats.STAT_EVENTS, 'Completions handled by the workers'],
  ['edge_stale_events_total', stats.STAT_STALE_EVENTS, 'Completions for a session that had ended'],
];

function single(type: Type, name: string, help: string, read: Read): Family {
  const lines = (): string[] => {
    const value = read();
    return value === undefined ? [] : [sampleLine(name, '', value)];
  };
  return { type, name, help, lines };
}

/** A family with one label; where `read` gives undefined there is no line. */
function labelled(
  [type, name, help]: readonly [Type, string, string],
  label: string,
  values: readonly string[],
  read: (at: number) => number | undefined,
): Family {
  const lines = (): string[] =>
    values.flatMap((value, at) => {
      const sample = read(at);
      return sample === undefined ? [] : [sampleLine(name, labelText(label, value), sample)];
    });
  return { type, name, help, lines };
}

const DIRECTIONS = ['up', 'down'];
const TIERS = ['0', '1', '2', '3'];
const REJECTIONS = REJECT_REASONS.map(({ name }) => name);
const ENDS = CLOSE_REASONS.map(({ name }) => name);
const ERRNOS = Array.from({ length: 256 }, (_, errno) => errnoName(errno));
const COUNTRIES = Array.from({ length: COUNTRIES_COUNT + 1 }, (_, index) =>
  index === 0 ? 'none' : countryCode(index),
);

/** Of the many values a label could have, only those that were ever met get a series. */
function met(value: number): number | undefined {
  return value === 0 ? undefined : value;
}

function openInCountry(total: Total, country: number): number | undefined {
  const opened = total(stats.STAT_COUNTRY_OPENED + country);
  return opened === 0 ? undefined : opened - total(stats.STAT_COUNTRY_ENDED + country);
}

function connectionFamilies(total: Total): Family[] {
  const rejected = 'Connections turned away before any backend work';
  const tiers = 'Sessions connected, by tier: how near the backend is to the client';
  return [
    labelled(['counter', 'edge_rejected_total', rejected], 'reason', REJECTIONS, (at) =>
      total(stats.STAT_REJECTED + at),
    ),
    labelled(
      ['counter', 'edge_session_end_total', 'Sessions ended, each with one reason'],
      'reason',
      ENDS,
      (at) => (at === REASON_NONE ? undefined : total(stats.STAT_END + at)),
    ),
    labelled(
      ['counter', 'edge_country_connections_total', 'Sessions opened, by country of the client'],
      'country',
      COUNTRIES,
      (at) => met(total(stats.STAT_COUNTRY_OPENED + at)),
    ),
    labelled(
      ['gauge', 'edge_country_connections_current', 'Sessions open now, by country of the client'],
      'country',
      COUNTRIES,
      (at) => openInCountry(total, at),
    ),
    labelled(['counter', 'edge_tier_connections_total', tiers], 'tier', TIERS, (at) =>
      total(stats.STAT_TIER + at),
    ),
    labelled(
      ['counter', 'edge_bytes_total', 'Bytes received, by direction'],
      'direction',
      DIRECTIONS,
      (at) => total(stats.STAT_BYTES + at),
    ),
    labelled(
      ['counter', 'edge_accept_errors_total', 'Failed accepts, by errno'],
      'errno',
      ERRNOS,
      (at) => met(total(stats.STAT_ACCEPT_ERRORS + at)),
    ),
    durationFamily(total),
  ];
}

function durationFamily(total: Total): Family {
  const name = 'edge_session_duration_seconds';
  const bounds = stats.DURATION_MS_BUCKETS.map((ms) => ms / 1000);
  const inBucket = (bucket: number): number => total(stats.STAT_DURATION_BUCKETS + bucket);
  const lines = (): string[] => {
    const seconds = total(stats.STAT_DURATION_MS_SUM) / 1000;
    return [histogramLines(name, '', bounds, inBucket, seconds)];
  };
  return { type: 'histogram', name, help: 'Time from accept to end, in seconds', lines };
}

/** Gauges, and counters of the control plane itself. */
function stateFamilies(sources: MetricsSources, total: Total): Family[] {
  const { counters, pool, publisher, clients } = sources;
  const views = pool.views();
  const dead = views.filter(({ phase }) => phase === 'dead');
  const alive = views.filter(({ phase }) => phase === 'running' || phase === 'draining');
  const gauges: readonly (readonly [name: string, help: string, read: Read])[] = [
    ['edge_connections_current', 'Sessions open now', () => total(stats.STAT_CURRENT)],
    ['edge_connections_max', 'Sessions that may be open at once', () => sources.maxConnections],
    ['edge_connections_waiting', 'Connections over the maximum that wait', () => pool.parked],
    [
      'edge_buffers_in_use',
      'Receive buffers that hold bytes now',
      () => total(stats.STAT_BUFFERS_IN_USE),
    ],
    ['edge_buffers_max', 'Receive buffers at most', () => total(stats.STAT_BUFFERS_MAX)],
    [
      'edge_bindings_current',
      'Clients bound to a backend now',
      () => clientTableCounts(clients).bindings,
    ],
    [
      'edge_client_rows_current',
      'Rows of the client table in use',
      () => clientTableCounts(clients).rows,
    ],
    ['edge_client_rows_max', 'Rows of the client table', () => clients.rows],
    ['edge_routing_version', 'Version of the routing snapshot in use', () => publisher.version],
    [
      'edge_routing_rows_skipped',
      'Rows of routing.db that are wrong and not served',
      () => new Set(publisher.problems.filter(({ served }) => !served).map(({ id }) => id)).size,
    ],
    ['edge_access_rows', 'Rows of the access list in force', sources.accessRows],
    ['edge_workers_current', 'Worker threads that serve now', () => alive.length],
    ['edge_draining', '1 from the order to stop on', () => (sources.isReady() ? 0 : 1)],
    ['edge_uptime_seconds', 'Time since the process started', () => process.uptime()],
    // prom-client's own counts the entries one by one: half a second of the main thread at 100,000 sessions.
    ['process_open_fds', 'Number of open file descriptors', openDescriptors],
  ];
  return [
    ...gauges.map(([name, help, read]) => single('gauge', name, help, read)),
    single(
      'counter',
      'edge_routing_reload_errors_total',
      'Times routing.db could not be read',
      sources.reloadErrors,
    ),
    single(
      'counter',
      'edge_worker_deaths_total',
      'Worker threads that died and were replaced',
      () => views.reduce((sum, { replacements }) => sum + replacements, dead.length),
    ),
    labelled(
      ['gauge', 'edge_worker_connections_current', 'Sessions open now, by worker'],
      'worker',
      counters.workers.map((_, at) => String(at + 1)),
      (at) => counters.workers[at]?.totals[stats.STAT_CURRENT],
    ),
  ];
}

function logFamilies(log: SessionLog | null): Family[] {
  const dropped = log?.dropped ?? { ring: 0, limit: 0, output: 0 };
  const causes = ['ring', 'limit', 'output'] as const;
  return [
    single('counter', 'edge_log_lines_total', 'Lines of the session log', () => log?.lines ?? 0),
    labelled(
      ['counter', 'edge_log_dropped_total', 'Records the session log left out, by where'],
      'cause',
      causes,
      (at) => dropped[causes[at]],
    ),
  ];
}

/** Linux tells the number as the size of the directory, from 6.2 on (0 before); nothing is known elsewhere. */
function openDescriptors(): number | undefined {
  try {
    return met(statSync('/proc/self/fd').size);
  } catch {
    return undefined;
  }
}

function infoFamilies(pool: WorkerPool): Family[] {
  const build = `${labelText('version', programVersion())},${labelText('node', process.version)}`;
  const tcp = readTcpCounters();
  return [
    {
      type: 'gauge',
      name: 'edge_build_info',
      help: 'Versions of the program and of Node.js, value 1',
      lines: () => [sampleLine('edge_build_info', build, 1)],
    },
    labelled(
      ['gauge', 'edge_engine_info', 'The engine of the data plane, value 1'],
      'engine',
      pool.engines(),
      () => 1,
    ),
    single(
      'counter',
      'edge_host_listen_overflows_total',
      'Connections that found an accept queue full, of the whole network namespace',
      () => tcp.get('ListenOverflows'),
    ),
    single(
      'counter',
      'edge_host_listen_drops_total',
      'SYNs and connections dropped at listeners, of the whole network namespace',
      () => tcp.get('ListenDrops'),
    ),
  ];
}

/** The families of one scrape. */
export function metricFamilies(sources: MetricsSources): Family[] {
  const totals = sources.counters.totals();
  const total = (stat: number): number => totals[stat] ?? 0;
  return [
    ...infoFamilies(sources.pool),
    ...COUNTERS.map(([name, stat, help]) => single('counter', name, help, () => total(stat))),
    ...connectionFamilies(total),
    ...stateFamilies(sources, total),
    ...logFamilies(sources.sessionLog),
    ...backendFamilies(sources),
    ...meshFamilies(sources.mesh),
    ...pathFamilies(sources.paths),
  ];
}
