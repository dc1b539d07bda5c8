// GET /api/status: the whole proxy on one page, from counters that are there anyway. Also sent once a second to those who
// follow the events.

import type * as v from 'valibot';
import { CLOSE_REASONS, REASON_NONE, REJECT_REASONS } from '../../proxy/close-reason.ts';
import {
  CONNECT_MS_BUCKETS,
  openWorkerStats,
  STAT_ACCEPT_ERRORS,
  STAT_ACCESS_DRY_RUN,
  STAT_BUFFER_WAITS,
  STAT_BUFFERS_IN_USE,
  STAT_BYTES,
  STAT_CONNECT_BUCKETS,
  STAT_CONNECTIONS,
  STAT_CURRENT,
  STAT_END,
  STAT_FAIL_OPEN,
  STAT_LIMIT_DRY_RUN,
  STAT_PUMPS,
  STAT_REJECTED,
  STAT_RETRIES,
  STAT_UNBOUND_SESSIONS,
} from '../../proxy/stats.ts';
import { GATE_BREAKER, GATE_DRAIN, GATE_HEALTH } from '../../route/backend-state.ts';
import { clientTableCounts } from '../../route/client-table.ts';
import { countryIndex, regionIndex } from '../../route/regions.ts';
import { monotonicMs } from '../../sys/clock.ts';
import { errnoName } from '../../sys/errno.ts';
import type { EventType } from '../events.ts';
import { placeOf } from './places.ts';
import { connectCount, type Delta, percentileMs, perSecond, rounded, sumTotals } from './rates.ts';
import type * as schemas from './response-schemas.ts';
import type { Answer } from './router.ts';
import type { Api } from './server.ts';

type Status = v.InferOutput<typeof schemas.status>;

/** Further ones are in the log; `problems_total` counts them. */
const PROBLEMS_SHOWN_MAX = 100;
const ERRNO_END = 256;

/** Connect times of a window. */
export function connectTimes({ values, ms }: Delta): Status['connect'] {
  return {
    p50_ms: percentileMs(values, 0.5),
    p99_ms: percentileMs(values, 0.99),
    count: connectCount(values),
    window_seconds: rounded(ms / 1000),
  };
}

/** This POP's names and place. */
export function popOf({ sources: { config, publisher } }: Api): Status['pop'] {
  const map = publisher.regionMap;
  const country = config.country === null ? 0 : countryIndex(config.country);
  return {
    region: config.region,
    country: config.country,
    ...placeOf(map, country, regionIndex(map, config.region)),
  };
}

function workersOf({ sources: { pool } }: Api): Status['workers'] {
  return pool.views().map(({ id, engine, phase, replacements, stats }) => {
    const { totals } = openWorkerStats(stats);
    return {
      id,
      engine,
      phase,
      replacements,
      sessions: totals[STAT_CURRENT] as number,
      connections: totals[STAT_CONNECTIONS] as number,
      buffers_in_use: totals[STAT_BUFFERS_IN_USE] as number,
    };
  });
}

function lastError({ sources: { events } }: Api, type: EventType): Status['routing']['last_error'] {
  const event = events.latest(type);
  return event && { time: event.time, message: String(event.fields.reason) };
}

function routingOf(api: Api): Status['routing'] {
  const { publisher, config, events, reloadErrors } = api.sources;
  const { problems } = publisher;
  return {
    version: publisher.version,
    path: config.dbPath,
    backends: publisher.rows.length,
    loaded_at: events.latest('routing_reloaded')?.time ?? api.startedAt.toISOString(),
    errors: reloadErrors(),
    last_error: lastError(api, 'routing_unreadable'),
    problems_total: problems.length,
    problems: problems
      .slice(0, PROBLEMS_SHOWN_MAX)
      .map(({ served, ...problem }) => ({ ...problem, served: served ?? false })),
  };
}

function accessOf(api: Api): Status['access'] {
  const { accessRows, config, events } = api.sources;
  return {
    rows: accessRows(),
    dry_run: config.accessDryRun,
    loaded_at: events.latest('access_reloaded')?.time ?? api.startedAt.toISOString(),
    last_error: lastError(api, 'access_unreadable'),
  };
}

function geoOf(api: Api): Status['geo'] {
  const { geo, events } = api.sources;
  const { source, description, buildEpoch } = geo();
  return {
    source,
    description,
    built_at: new Date(buildEpoch * 1000).toISOString(),
    loaded_at: events.latest('geo_reloaded')?.time ?? api.startedAt.toISOString(),
    last_error: lastError(api, 'geo_unreadable'),
  };
}

/** How many backends have a gate bit set, and their sessions. */
function gated(api: Api, bit: number): { backends: number; sessions: number } {
  const { gate, active } = api.sources.backendState;
  let backends = 0;
  let sessions = 0;
  const end = api.snapshot?.backendEnd ?? 0;
  for (let index = 0; index < end; index++) {
    if (((gate[index] as number) & bit) === 0) continue;
    backends++;
    sessions += active[index] as number;
  }
  return { backends, sessions };
}

function guardsOf(api: Api): Pick<Status, 'health' | 'breakers' | 'drains' | 'paths'> {
  const { health, config, paths } = api.sources;
  return {
    health: {
      enabled: health !== null,
      checked: health?.checked ?? 0,
      unhealthy: gated(api, GATE_HEALTH).backends,
    },
    breakers: {
      enabled: config.circuitFailureThreshold > 0,
      open: gated(api, GATE_BREAKER).backends,
    },
    drains: gated(api, GATE_DRAIN),
    paths: { enabled: paths !== null, ...(paths?.counts ?? { degraded: 0, dead: 0 }) },
  };
}

function drainOf(api: Api, sessions: number): Status['drain'] {
  const { events, config, isReady } = api.sources;
  const draining = events.latest('draining');
  if (isReady() || draining === null) return null;
  const deadline = new Date(Date.parse(draining.time) + config.shutdownTimeoutSecs * 1000);
  const cause = String(draining.fields.signal);
  return { cause, since: draining.time, deadline: deadline.toISOString(), sessions };
}

function acceptErrors(totals: Float64Array): Record<string, number> {
  const found: Record<string, number> = {};
  for (let errno = 0; errno < ERRNO_END; errno++) {
    const count = totals[STAT_ACCEPT_ERRORS + errno] as number;
    if (count > 0) found[errnoName(errno)] = count;
  }
  return found;
}

/** What is counted by traffic. */
function trafficOf(api: Api, totals: Float64Array) {
  const { values, ms } = api.rates.totals(totals);
  const total = (stat: number): number => totals[stat] as number;
  const rate = (stat: number): number => perSecond(values[stat] as number, ms);
  const buckets = CONNECT_MS_BUCKETS.length + 1;
  const rejections = values.subarray(STAT_REJECTED, STAT_REJECTED + REJECT_REASONS.length);
  const named = (first: number, reasons: readonly { name: string }[]) =>
    Object.fromEntries(reasons.map(({ name }, at) => [name, total(first + at)]));
  const ended = named(STAT_END, CLOSE_REASONS);
  delete ended[CLOSE_REASONS[REASON_NONE]?.name ?? ''];
  return {
    connections: { total: total(STAT_CONNECTIONS), per_second: rate(STAT_CONNECTIONS) },
    bytes: {
      up: total(STAT_BYTES),
      down: total(STAT_BYTES + 1),
      up_per_second: rate(STAT_BYTES),
      down_per_second: rate(STAT_BYTES + 1),
    },
    connect: connectTimes(api.rates.latency(totals, STAT_CONNECT_BUCKETS, buckets)),
    rejected: named(STAT_REJECTED, REJECT_REASONS),
    rejected_per_second: perSecond(connectCount(rejections), ms),
    ended,
    retries: total(STAT_RETRIES),
    accept_errors: acceptErrors(totals),
    buffers: {
      in_use: total(STAT_BUFFERS_IN_USE),
      waits: total(STAT_BUFFER_WAITS),
      bulk_flows: total(STAT_PUMPS),
    },
    limits: {
      dry_run: total(STAT_LIMIT_DRY_RUN),
      access_dry_run: total(STAT_ACCESS_DRY_RUN),
      fail_open: total(STAT_FAIL_OPEN),
      unbound_sessions: total(STAT_UNBOUND_SESSIONS),
    },
    window_seconds: rounded(ms / 1000),
  };
}

export function statusOf(api: Api): Status {
  const { sources } = api;
  const totals = sumTotals(sources.pool);
  const sessions = totals[STAT_CURRENT] as number;
  const { bindings, rows } = clientTableCounts(sources.clients);
  return {
    version: api.version,
    node: process.versions.node,
    pid: process.pid,
    state: sources.isReady() ? 'running' : 'draining',
    started_at: api.startedAt.toISOString(),
    uptime_seconds: Math.floor((monotonicMs() - sources.epochMs) / 1000),
    time: new Date().toISOString(),
    pop: popOf(api),
    workers: workersOf(api),
    listeners: sources.listeners.map(({ app, address }) => ({ app, address })),
    sessions: { current: sessions, max: sources.maxConnections },
    ...trafficOf(api, totals),
    bindings: { current: bindings, client_rows: rows, client_rows_max: sources.clients.rows },
    routing: routingOf(api),
    access: accessOf(api),
    geo: geoOf(api),
    ...guardsOf(api),
    drain: drainOf(api, sessions),
  };
}

export function getStatus({ api }: { readonly api: Api }): Answer {
  return { status: 200, body: statusOf(api) };
}
