// A backend as the API shows it: the columns of its row, and how it fares now.

import type * as v from 'valibot';
import { BACKEND_CONNECTIONS, BACKEND_FAILURES, type WorkerStats } from '../../proxy/stats.ts';
import { backendTick } from '../../route/backend-state.ts';
import { breakerEjections, isBreakerOpen } from '../../route/breaker.ts';
import { exclusionOf } from '../../route/candidates.ts';
import { countryCode, countryIndex, regionIndex } from '../../route/regions.ts';
import { rampFactor } from '../../route/slow-start.ts';
import { monotonicMs } from '../../sys/clock.ts';
import { exclusionText } from '../explain-reasons.ts';
import { type BackendPath, pathJson } from '../path-view.ts';
import { addressText, type RawBackend } from '../routing-rows.ts';
import { placeOf } from './places.ts';
import { perSecond, rounded, sumBackend } from './rates.ts';
import type * as schemas from './response-schemas.ts';
import type { Api } from './server.ts';
import { connectTimes } from './status.ts';

export type BackendView = v.InferOutput<typeof schemas.backend>;

/** What is the same for all backends of an answer. */
interface ViewContext {
  readonly api: Api;
  readonly workers: readonly WorkerStats[];
  readonly tick: number;
  readonly rampTicks: number;
}

export function viewContext(api: Api): ViewContext {
  const { epochMs, config } = api.sources;
  return {
    api,
    workers: api.rates.workers(),
    tick: backendTick(Math.floor(monotonicMs() - epochMs)),
    rampTicks: backendTick(config.slowStartSecs * 1000 + 99),
  };
}

/** Why no new client goes there; null when it may. */
export function exclusion(api: Api, row: RawBackend): BackendView['excluded'] {
  const { publisher, backendState } = api.sources;
  const { snapshot } = api;
  const index = publisher.backendIndex(row.id);
  if (row.deleted) return 'removed';
  if (index === undefined || snapshot === null || index >= snapshot.backendEnd) return 'no index';
  const active = Atomics.load(backendState.active, index);
  const gate = Atomics.load(backendState.gate, index);
  return exclusionOf(snapshot, index, active, gate) || null;
}

function reasonText(
  row: RawBackend,
  excluded: BackendView['excluded'],
  checked: string,
  path: BackendPath | null,
): string {
  if (excluded === null && path?.state === 'degraded') {
    return `takes new clients one tier further back, its path is degraded: ${path.reason}`;
  }
  if (excluded === null) return 'takes new clients';
  if (excluded === 'no index') return 'does not fit: too many backends, apps or regions';
  const text = exclusionText(excluded === 'removed' ? 'disabled' : excluded, row);
  if (excluded === 'path' && path !== null && path.reason !== '') return `${text}: ${path.reason}`;
  return excluded === 'health' && checked !== '' ? `${text}: ${checked}` : text;
}

function isoTime(seconds: number | null): string | null {
  return seconds === null ? null : new Date(seconds * 1000).toISOString();
}

/** The columns of its row. */
function columnsOf(row: RawBackend) {
  return {
    id: row.id,
    app: row.app,
    region: row.region,
    country: row.country,
    address: addressText(row),
    port: row.port,
    enabled: row.healthy,
    removed: row.deleted,
    weight: row.weight,
    soft_limit: row.softLimit,
    hard_limit: row.hardLimit,
    check_type: row.check?.type ?? null,
    check_port: row.check?.port ?? null,
    check_path: row.check?.path ?? null,
    check_expect: row.check?.expect ?? null,
    drain: row.drain && { close_at: isoTime(row.drain.closeAt), close_rate: row.drain.closeRate },
  };
}

/** Without a country of its own a backend is in its region's home country, if that has one. */
function locationOf(api: Api, row: RawBackend) {
  const map = api.sources.publisher.regionMap;
  const region = regionIndex(map, row.region);
  const country = row.country === null ? (map.homeCountry[region] ?? 0) : countryIndex(row.country);
  return { located_in: countryCode(country) || null, ...placeOf(map, country, region) };
}

const NO_CONNECTIONS = { total: 0, failed: 0, per_second: 0, failed_per_second: 0 };
const NO_CONNECTS = { p50_ms: null, p99_ms: null, count: 0, window_seconds: 0 };

/** What only a backend with an index has. */
function liveOf({ api, workers, tick, rampTicks }: ViewContext, row: RawBackend, index: number) {
  const { backendState } = api.sources;
  const recent = api.rates.backend(workers, index);
  const connect = connectTimes(recent);
  const rampEnd = Atomics.load(backendState.rampEnd, index);
  const factor = rampEnd === 0 ? 1 : rampFactor(rampEnd, tick, rampTicks);
  const active = Atomics.load(backendState.active, index);
  return {
    active,
    load: rounded(active / Math.max(1, row.softLimit)),
    effective_weight: rounded(row.weight * factor),
    breaker: {
      open: isBreakerOpen(backendState, index),
      ejections: breakerEjections(backendState, index),
    },
    connections: {
      total: sumBackend(workers, index, BACKEND_CONNECTIONS),
      failed: sumBackend(workers, index, BACKEND_FAILURES),
      per_second: perSecond(connect.count, recent.ms),
      failed_per_second: perSecond(recent.failed, recent.ms),
    },
    connect,
  };
}

export function viewBackend(context: ViewContext, row: RawBackend): BackendView {
  const { api } = context;
  const { publisher, health, paths } = api.sources;
  const index = publisher.backendIndex(row.id);
  const checked = health?.backend(row.id) ?? null;
  const excluded = exclusion(api, row);
  const path = paths?.backend(row.id) ?? null;
  const live =
    index === undefined
      ? {
          active: 0,
          load: 0,
          effective_weight: row.weight,
          breaker: { open: false, ejections: 0 },
          connections: NO_CONNECTIONS,
          connect: NO_CONNECTS,
        }
      : liveOf(context, row, index);
  return {
    ...columnsOf(row),
    ...locationOf(api, row),
    excluded,
    reason: reasonText(row, excluded, checked?.reason ?? '', path),
    path: pathJson(path),
    ...live,
    health: checked && {
      healthy: checked.healthy,
      reason: checked.reason,
      success: checked.success,
      failure: checked.failure,
      inconclusive: checked.inconclusive,
    },
  };
}
