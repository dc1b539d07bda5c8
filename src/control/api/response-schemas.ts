// What answers hold, field by field: the types that handlers must return, what openapi.ts describes, and what the tests
// hold real answers to. Names are stable; fields may be added.

import * as v from 'valibot';

const count = v.number();
const perSecond = v.number();
const milliseconds = v.nullable(v.number());
const name = v.nullable(v.string());
const time = v.string();
const degrees = v.nullable(v.number());
const counts = v.record(v.string(), count);

/** The path of the mesh that leads to a backend; null: none does. */
const path = v.nullable(
  v.object({
    peer: v.string(),
    state: v.picklist(['ok', 'degraded', 'dead']),
    reason: v.string(),
    rtt_ms: milliseconds,
    loss: v.nullable(v.number()),
  }),
);

const lastError = v.nullable(v.object({ time, message: v.string() }));

const rowProblem = v.object({
  id: v.string(),
  column: v.string(),
  value: v.string(),
  reason: v.string(),
  /** The row is served, only its check columns are not used. */
  served: v.boolean(),
});

const connect = v.object({
  p50_ms: milliseconds,
  p99_ms: milliseconds,
  count,
  window_seconds: v.number(),
});

export const pop = v.object({
  region: v.string(),
  country: name,
  latitude: degrees,
  longitude: degrees,
});

export const status = v.object({
  version: v.string(),
  node: v.string(),
  pid: count,
  state: v.picklist(['running', 'draining']),
  started_at: time,
  uptime_seconds: count,
  time,
  pop,
  workers: v.array(
    v.object({
      id: count,
      engine: v.string(),
      phase: v.picklist(['starting', 'running', 'draining', 'drained', 'dead']),
      replacements: count,
      sessions: count,
      connections: count,
      buffers_in_use: count,
    }),
  ),
  listeners: v.array(v.object({ app: v.string(), address: v.string() })),
  sessions: v.object({ current: count, max: count }),
  connections: v.object({ total: count, per_second: perSecond }),
  bytes: v.object({
    up: count,
    down: count,
    up_per_second: perSecond,
    down_per_second: perSecond,
  }),
  connect,
  rejected: counts,
  rejected_per_second: perSecond,
  ended: counts,
  retries: count,
  accept_errors: counts,
  buffers: v.object({ in_use: count, waits: count, bulk_flows: count }),
  bindings: v.object({ current: count, client_rows: count, client_rows_max: count }),
  limits: v.object({
    dry_run: count,
    access_dry_run: count,
    fail_open: count,
    unbound_sessions: count,
  }),
  routing: v.object({
    version: count,
    path: v.string(),
    backends: count,
    loaded_at: time,
    errors: count,
    last_error: lastError,
    problems_total: count,
    problems: v.array(rowProblem),
  }),
  access: v.object({ rows: count, dry_run: v.boolean(), loaded_at: time, last_error: lastError }),
  geo: v.object({
    source: v.string(),
    description: v.string(),
    built_at: time,
    loaded_at: time,
    last_error: lastError,
  }),
  health: v.object({ enabled: v.boolean(), checked: count, unhealthy: count }),
  breakers: v.object({ enabled: v.boolean(), open: count }),
  drains: v.object({ backends: count, sessions: count }),
  paths: v.object({ enabled: v.boolean(), degraded: count, dead: count }),
  drain: v.nullable(v.object({ cause: v.string(), since: time, deadline: time, sessions: count })),
  window_seconds: v.number(),
});

export const backend = v.object({
  id: v.string(),
  app: v.string(),
  region: v.string(),
  country: name,
  address: v.string(),
  port: count,
  enabled: v.boolean(),
  removed: v.boolean(),
  weight: v.number(),
  soft_limit: count,
  hard_limit: count,
  check_type: name,
  check_port: v.nullable(count),
  check_path: name,
  check_expect: name,
  drain: v.nullable(v.object({ close_at: v.nullable(time), close_rate: v.nullable(v.number()) })),
  located_in: name,
  latitude: degrees,
  longitude: degrees,
  excluded: v.nullable(
    v.picklist([
      'removed',
      'disabled',
      'draining',
      'weight 0',
      'health',
      'breaker',
      'path',
      'hard limit',
      'no index',
    ]),
  ),
  reason: v.string(),
  active: count,
  load: v.number(),
  effective_weight: v.number(),
  health: v.nullable(
    v.object({
      healthy: v.boolean(),
      reason: v.string(),
      success: count,
      failure: count,
      inconclusive: count,
    }),
  ),
  breaker: v.object({ open: v.boolean(), ejections: count }),
  path,
  connections: v.object({
    total: count,
    failed: count,
    per_second: perSecond,
    failed_per_second: perSecond,
  }),
  connect,
});

export const backendList = v.object({
  total: count,
  limit: count,
  offset: count,
  routing_version: count,
  backends: v.array(backend),
});

export const backendEdit = v.object({
  applied: v.boolean(),
  routing_version: count,
  backend: v.nullable(backend),
});

export const explanation = v.object({
  ip: v.string(),
  country: name,
  country_reason: name,
  region: name,
  pop: v.object({ region: v.string(), country: name }),
  app: v.string(),
  access: v.object({
    allowed: v.boolean(),
    dry_run: v.boolean(),
    row: v.nullable(v.object({ app: v.string(), action: name, match: name, note: name })),
    reason: v.string(),
  }),
  choice: name,
  reason: v.string(),
  note: v.string(),
  binding: v.nullable(v.object({ backend: v.string(), usable: v.boolean() })),
  routing_version: count,
  total: count,
  candidates: v.array(
    v.object({
      id: v.string(),
      app: v.string(),
      region: v.string(),
      country: name,
      tier: count,
      score: v.nullable(v.number()),
      distance_km: v.nullable(v.number()),
      active: count,
      soft_limit: count,
      hard_limit: count,
      weight: v.number(),
      excluded: name,
      path,
      reason: v.string(),
    }),
  ),
});

export const sessionList = v.object({
  total: count,
  limit: count,
  offset: count,
  sessions: v.array(
    v.object({
      id: v.string(),
      worker: count,
      client: v.object({ address: v.string(), port: count }),
      country: name,
      app: v.string(),
      backend: name,
      tier: v.nullable(count),
      state: v.picklist(['connecting', 'relaying']),
      accepted_at: time,
      age_seconds: v.number(),
      idle_seconds: v.number(),
      bytes_up: count,
      bytes_down: count,
    }),
  ),
});

export const countries = v.object({
  window_seconds: v.number(),
  countries: v.array(
    v.object({
      country: name,
      region: name,
      latitude: degrees,
      longitude: degrees,
      sessions: count,
      connections: count,
      connections_per_second: perSecond,
    }),
  ),
});

export const regions = v.object({
  pop,
  regions: v.array(
    v.object({
      name: v.string(),
      home_country: name,
      latitude: degrees,
      longitude: degrees,
      countries: v.array(v.string()),
      backends: count,
      sessions: count,
    }),
  ),
});

/** `mesh` null: the settings want none. */
export const mesh = v.object({
  mesh: v.nullable(
    v.object({
      interface: v.string(),
      device: v.nullable(v.picklist(['kernel', 'userspace'])),
      device_reason: name,
      public_key: name,
      addresses: v.array(v.string()),
      listen_port: count,
      mtu: count,
      restarts: count,
      errors: count,
      peers: v.array(
        v.object({
          id: v.string(),
          kind: v.picklist(['pop', 'backend']),
          public_key: v.string(),
          endpoint: name,
          allowed_ips: v.array(v.string()),
          keepalive: count,
          preshared: v.boolean(),
          latest_handshake: v.nullable(time),
          receive_bytes: count,
          transmit_bytes: count,
          state: v.nullable(v.picklist(['ok', 'degraded', 'dead'])),
          state_reason: name,
          rtt_ms: milliseconds,
          rtt_min_ms: milliseconds,
          loss: v.nullable(v.number()),
          mtu: v.nullable(count),
          path_mtu: v.nullable(count),
        }),
      ),
      problems: v.array(rowProblem),
    }),
  ),
});

export type MeshData = v.InferOutput<typeof mesh>;

/** The data of an SSE message of event `event`. */
export const event = v.object({
  time,
  level: v.picklist(['debug', 'info', 'warn', 'error']),
  type: v.string(),
  message: v.string(),
  fields: v.record(v.string(), v.unknown()),
});

export type EventData = v.InferOutput<typeof event>;

export type StatusData = v.InferOutput<typeof status>;
export type BackendListData = v.InferOutput<typeof backendList>;
export type CountriesData = v.InferOutput<typeof countries>;

/** The data of an SSE message of event `gap`: events that are no longer there. */
export const gap = v.object({ missed: v.nullable(count) });

/** An OpenAPI 3.1 document. */
export const document = v.record(v.string(), v.unknown());

export const problem = v.object({
  type: v.string(),
  title: v.string(),
  status: count,
  detail: v.string(),
  errors: v.optional(
    v.array(v.object({ field: v.string(), value: v.unknown(), allowed: v.string() })),
  ),
});
