// Every setting, once: name, environment variable, default, unit, what is allowed, help. Parsing, `--help` and
// docs/reference/settings.md all come from this table (config.ts), so they cannot disagree.

import { availableParallelism } from 'node:os';
import * as v from 'valibot';
import { LOG_LEVELS, type LogLevel } from './base/log.ts';
import * as value from './config-values.ts';
import { BACKENDS_MAX } from './limits.ts';
import type { Prefix } from './sys/prefix.ts';

/** What a health check does unless a backend's row says otherwise. */
const HEALTH_CHECK_TYPES = ['tcp', 'http'] as const;
const SESSION_LOGS = ['off', 'sample', 'all'] as const;
const PROXY_OUT = ['off', 'v1', 'v2'] as const;
const PROXY_IN = ['off', 'v1', 'v2', 'any'] as const;
const ENGINES = ['auto', 'uring', 'epoll', 'portable'] as const;

/**
 * One setting. `initial` is used when nobody set it; `shown` is that default in words where it is
 * not a constant.
 */
export interface Setting<Value> {
  readonly env: string;
  readonly schema: v.GenericSchema<unknown, Value>;
  readonly initial: Value | (() => Value);
  readonly shown?: string;
  readonly unit?: string;
  readonly allowed: string;
  readonly help: string;
  /** Never repeated in a message. */
  readonly secret?: true;
}

/** Only ties the default's type to the schema's. */
const setting = <Value>(row: Setting<Value>): Setting<Value> => row;

const YEAR_SECS = 31_536_000;
const DAY_SECS = 86_400;

export const SETTINGS = {
  listen: setting<readonly value.ListenAddress[]>({
    env: 'EDGEPROXY_LISTEN_ADDR',
    schema: value.listenList,
    initial: Object.freeze([
      Object.freeze({ app: '*', host: '0.0.0.0', port: 8080, family: 4 } as const),
    ]),
    shown: '0.0.0.0:8080',
    allowed: '[app@]host:port, comma separated; IPv6 as [::]:8080; port 0 takes any free port',
    help: 'Addresses to accept clients on; without app@ a listener serves any app',
  }),
  dbPath: setting({
    env: 'EDGEPROXY_DB_PATH',
    schema: value.path,
    initial: 'routing.db',
    allowed: 'a file path',
    help: 'The routing database; opened read-only by run',
  }),
  region: setting({
    env: 'EDGEPROXY_REGION',
    schema: value.region,
    initial: 'sa',
    allowed: 'a region name: 1 to 16 of a-z, 0-9 and -',
    help: 'The region of this POP',
  }),
  country: setting<string | null>({
    env: 'EDGEPROXY_COUNTRY',
    schema: value.country,
    initial: null,
    shown: 'none',
    allowed: 'an ISO 3166-1 alpha-2 country code',
    help: 'The country of this POP',
  }),
  dbReloadSecs: setting({
    env: 'EDGEPROXY_DB_RELOAD_SECS',
    schema: value.decimal(0.05, DAY_SECS),
    initial: 5,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 86400',
    help: 'Safety-net poll of the routing database, on top of watching the file',
  }),
  bindingTtlSecs: setting({
    env: 'EDGEPROXY_BINDING_TTL_SECS',
    schema: value.decimal(0.05, YEAR_SECS),
    initial: 600,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 31536000',
    help: 'How long a client keeps its backend after it was last seen',
  }),
  bindingGcIntervalSecs: setting({
    env: 'EDGEPROXY_BINDING_GC_INTERVAL_SECS',
    schema: value.decimal(0.05, DAY_SECS),
    initial: 60,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 86400',
    help: 'How often expired bindings are swept',
  }),
  clientTableSize: setting({
    env: 'EDGEPROXY_CLIENT_TABLE_SIZE',
    schema: value.integer(16, 16_777_216),
    initial: 1_000_000,
    unit: 'clients',
    allowed: 'a whole number from 16 to 16777216',
    help: 'Clients remembered at once, up to 64 bytes each, touched when used',
  }),
  geoipPath: setting<string | null>({
    env: 'EDGEPROXY_GEOIP_PATH',
    schema: value.path,
    initial: null,
    shown: 'embedded',
    allowed: 'a file path',
    help: 'A MaxMind-format country or city database; reloaded when it changes',
  }),
  regionMapPath: setting<string | null>({
    env: 'EDGEPROXY_REGION_MAP_PATH',
    schema: value.path,
    initial: null,
    shown: 'built in',
    allowed: 'a file path',
    help: 'A TOML file that puts countries into other regions',
  }),
  workers: setting<number>({
    env: 'EDGEPROXY_WORKERS',
    schema: v.pipe(
      value.integerOrAuto(1, 256),
      v.transform((count) => count ?? availableParallelism()),
    ),
    initial: availableParallelism,
    shown: 'auto (one per core)',
    unit: 'threads',
    allowed: 'a whole number from 1 to 256, or auto',
    help: 'Data-plane worker threads',
  }),
  engine: setting<(typeof ENGINES)[number]>({
    env: 'EDGEPROXY_ENGINE',
    schema: value.choice(ENGINES),
    initial: 'auto',
    allowed: `one of ${ENGINES.join(', ')}`,
    help: 'What performs the socket operations',
  }),
  maxConnections: setting<number | null>({
    env: 'EDGEPROXY_MAX_CONNECTIONS',
    schema: value.integerOrAuto(1, 10_000_000),
    initial: null,
    shown: 'auto (from the descriptor limit)',
    unit: 'sessions',
    allowed: 'a whole number from 1 to 10000000, or auto',
    help: 'Open sessions in all; above it accepting pauses',
  }),
  connectTimeoutMs: setting({
    env: 'EDGEPROXY_CONNECT_TIMEOUT_MS',
    schema: value.integer(1, 600_000),
    initial: 3000,
    unit: 'ms',
    allowed: 'a whole number from 1 to 600000',
    help: 'One attempt to connect to a backend',
  }),
  connectTotalTimeoutMs: setting({
    env: 'EDGEPROXY_CONNECT_TOTAL_TIMEOUT_MS',
    schema: value.integer(1, 600_000),
    initial: 8000,
    unit: 'ms',
    allowed: 'a whole number from 1 to 600000',
    help: 'All attempts of one session together',
  }),
  connectRetries: setting({
    env: 'EDGEPROXY_CONNECT_RETRIES',
    schema: value.integer(0, 15),
    initial: 2,
    unit: 'backends',
    allowed: 'a whole number from 0 to 15',
    help: 'Further backends tried after a failed connect',
  }),
  idleTimeoutSecs: setting({
    env: 'EDGEPROXY_IDLE_TIMEOUT_SECS',
    schema: value.decimal(0, YEAR_SECS),
    initial: 3600,
    unit: 'seconds',
    allowed: 'a number from 0 to 31536000; 0 is never',
    help: 'A session without bytes in either direction ends after this',
  }),
  halfClosedTimeoutSecs: setting({
    env: 'EDGEPROXY_HALF_CLOSED_TIMEOUT_SECS',
    schema: value.decimal(0.05, YEAR_SECS),
    initial: 30,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 31536000',
    help: 'A half-closed session without bytes ends after this',
  }),
  keepaliveSecs: setting({
    env: 'EDGEPROXY_KEEPALIVE_SECS',
    schema: value.integer(0, 32_767),
    initial: 60,
    unit: 'seconds',
    allowed: 'a whole number from 0 to 32767; 0 is off',
    help: 'TCP keepalive after this much silence, on both legs',
  }),
  userTimeoutSecs: setting({
    env: 'EDGEPROXY_USER_TIMEOUT_SECS',
    schema: value.integer(0, DAY_SECS),
    // Off: the kernel counts a peer whose window stays closed too, so it would cut a download that is paused.
    initial: 0,
    unit: 'seconds',
    allowed: "a whole number from 0 to 86400; 0 is the kernel's own, about 15 minutes",
    help: 'Unacknowledged bytes, or a peer that does not read, end a connection after this (TCP_USER_TIMEOUT; not with node:net)',
  }),
  maxConnectionsPerClient: setting({
    env: 'EDGEPROXY_MAX_CONNECTIONS_PER_CLIENT',
    schema: value.integer(0, 65_535),
    initial: 0,
    unit: 'sessions',
    allowed: 'a whole number from 0 to 65535; 0 is off',
    help: 'Sessions one client address (IPv6: its /64) may have at once',
  }),
  rateLimitEnabled: setting<boolean>({
    env: 'EDGEPROXY_RATE_LIMIT_ENABLED',
    schema: value.boolean,
    initial: false,
    allowed: 'true or false',
    help: 'Limit the rate of new connections per client address (IPv6: its /64)',
  }),
  rateLimitMaxRequests: setting({
    env: 'EDGEPROXY_RATE_LIMIT_MAX_REQUESTS',
    schema: value.integer(1, 1_000_000),
    initial: 100,
    unit: 'connections',
    allowed: 'a whole number from 1 to 1000000',
    help: 'New connections a client address may open per window',
  }),
  rateLimitWindowSecs: setting({
    env: 'EDGEPROXY_RATE_LIMIT_WINDOW_SECS',
    schema: value.decimal(0.001, DAY_SECS),
    initial: 1,
    unit: 'seconds',
    allowed: 'a number from 0.001 to 86400',
    help: 'Window of the rate limit',
  }),
  rateLimitBurst: setting({
    env: 'EDGEPROXY_RATE_LIMIT_BURST',
    schema: value.integer(0, 1_000_000),
    initial: 10,
    unit: 'connections',
    allowed: 'a whole number from 0 to 1000000',
    help: 'New connections allowed at once on top of a window',
  }),
  rateLimitDryRun: setting<boolean>({
    env: 'EDGEPROXY_RATE_LIMIT_DRY_RUN',
    schema: value.boolean,
    initial: false,
    allowed: 'true or false',
    help: 'Only count what the limits of a client address would turn away',
  }),
  accessDryRun: setting<boolean>({
    env: 'EDGEPROXY_ACCESS_DRY_RUN',
    schema: value.boolean,
    initial: false,
    allowed: 'true or false',
    help: 'Only count whom the access list would turn away',
  }),
  circuitFailureThreshold: setting({
    env: 'EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD',
    schema: value.integer(0, 1000),
    initial: 5,
    unit: 'failures',
    allowed: 'a whole number from 0 to 1000; 0 is off',
    help: 'Failed connects, or resets before the first byte, in a row that eject a backend',
  }),
  circuitSuccessThreshold: setting({
    env: 'EDGEPROXY_CIRCUIT_SUCCESS_THRESHOLD',
    schema: value.integer(1, 1000),
    initial: 3,
    unit: 'successes',
    allowed: 'a whole number from 1 to 1000',
    help: 'Successful trials that take an ejected backend back',
  }),
  circuitTimeoutSecs: setting({
    env: 'EDGEPROXY_CIRCUIT_TIMEOUT_SECS',
    schema: value.decimal(0.1, DAY_SECS),
    initial: 10,
    unit: 'seconds',
    allowed: 'a number from 0.1 to 86400',
    help: 'First ejection, and what each further one adds, up to 300 seconds',
  }),
  circuitFailOpen: setting<boolean>({
    env: 'EDGEPROXY_CIRCUIT_FAIL_OPEN',
    schema: value.boolean,
    initial: true,
    allowed: 'true or false',
    help: 'Use ejected backends when ejections leave an app no other',
  }),
  slowStartSecs: setting({
    env: 'EDGEPROXY_SLOW_START_SECS',
    schema: value.decimal(0, DAY_SECS),
    initial: 0,
    unit: 'seconds',
    allowed: 'a number from 0 to 86400; 0 is off',
    help: 'Time over which a recovered backend grows from a tenth of its weight to all of it',
  }),
  healthCheckEnabled: setting<boolean>({
    env: 'EDGEPROXY_HEALTH_CHECK_ENABLED',
    schema: value.boolean,
    initial: true,
    allowed: 'true or false',
    help: 'Check backends regularly and keep new sessions from those that fail',
  }),
  healthCheckIntervalSecs: setting({
    env: 'EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS',
    schema: value.decimal(0.05, DAY_SECS),
    initial: 5,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 86400',
    help: 'From one check of a backend to the next; a fifth of it while its state is changing',
  }),
  healthCheckTimeoutSecs: setting({
    env: 'EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS',
    schema: value.decimal(0.05, 3600),
    initial: 2,
    unit: 'seconds',
    allowed: 'a number from 0.05 to 3600',
    help: 'A check that has no answer after this has failed',
  }),
  healthCheckType: setting<(typeof HEALTH_CHECK_TYPES)[number]>({
    env: 'EDGEPROXY_HEALTH_CHECK_TYPE',
    schema: value.choice(HEALTH_CHECK_TYPES),
    initial: 'tcp',
    allowed: `one of ${HEALTH_CHECK_TYPES.join(', ')}`,
    help: 'Connect only, or HTTP GET; the column check_type overrides it',
  }),
  healthCheckPath: setting({
    env: 'EDGEPROXY_HEALTH_CHECK_PATH',
    schema: value.httpPath,
    initial: '/health',
    allowed: 'a path that starts with /, without blanks, up to 1024 characters',
    help: 'What an HTTP check asks for; the column check_path overrides it',
  }),
  healthHealthyThreshold: setting({
    env: 'EDGEPROXY_HEALTH_HEALTHY_THRESHOLD',
    schema: value.integer(1, 1000),
    initial: 2,
    unit: 'checks',
    allowed: 'a whole number from 1 to 1000',
    help: 'Successful checks in a row that bring a backend back',
  }),
  healthUnhealthyThreshold: setting({
    env: 'EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD',
    schema: value.integer(1, 1000),
    initial: 3,
    unit: 'checks',
    allowed: 'a whole number from 1 to 1000',
    help: 'Failed checks in a row that take a backend out',
  }),
  proxyProtocolIn: setting<(typeof PROXY_IN)[number]>({
    env: 'EDGEPROXY_PROXY_PROTOCOL_IN',
    schema: value.choice(PROXY_IN),
    initial: 'off',
    allowed: `one of ${PROXY_IN.join(', ')}`,
    help: 'PROXY header with which connections from trusted proxies must begin',
  }),
  trustedProxies: setting<readonly Prefix[]>({
    env: 'EDGEPROXY_TRUSTED_PROXIES',
    schema: value.prefixList,
    initial: Object.freeze([]),
    shown: 'none',
    allowed: 'addresses and prefixes as in 10.0.0.0/8 or 2001:db8::/32, comma separated, or none',
    help: 'Who may say by a PROXY header who the client is; needed when headers are accepted',
  }),
  proxyHeaderTimeoutMs: setting({
    env: 'EDGEPROXY_PROXY_HEADER_TIMEOUT_MS',
    schema: value.integer(1, 600_000),
    initial: 5000,
    unit: 'ms',
    allowed: 'a whole number from 1 to 600000',
    help: 'How long a trusted proxy may take to send its PROXY header',
  }),
  proxyProtocolOut: setting<(typeof PROXY_OUT)[number]>({
    env: 'EDGEPROXY_PROXY_PROTOCOL_OUT',
    schema: value.choice(PROXY_OUT),
    initial: 'off',
    allowed: `one of ${PROXY_OUT.join(', ')}`,
    help: 'PROXY header that backends get first; the column proxy_protocol overrides it',
  }),
  tcpFastOpen: setting<boolean>({
    env: 'EDGEPROXY_TCP_FAST_OPEN',
    schema: value.boolean,
    initial: true,
    allowed: 'true or false',
    help: 'TCP Fast Open on listeners, where the kernel has it',
  }),
  bufferMemoryMb: setting({
    env: 'EDGEPROXY_BUFFER_MEMORY_MB',
    schema: value.integer(1, 16_384),
    initial: 256,
    unit: 'MB per worker',
    allowed: 'a whole number from 1 to 16384',
    help: 'Cap on the buffers that hold bytes on their way',
  }),
  metricsListen: setting<Omit<value.ListenAddress, 'app'> | null>({
    env: 'EDGEPROXY_METRICS_LISTEN_ADDR',
    schema: value.hostPortOrOff,
    initial: Object.freeze({ host: '127.0.0.1', port: 9090, family: 4 } as const),
    shown: '127.0.0.1:9090',
    allowed: 'host:port, or off',
    help: 'Address of the admin API, /metrics and the health pages; off loopback it needs a token',
  }),
  metricsPublic: setting<boolean>({
    env: 'EDGEPROXY_METRICS_PUBLIC',
    schema: value.boolean,
    initial: false,
    allowed: 'true or false',
    help: 'Serve /metrics without the admin token',
  }),
  adminToken: setting<string | null>({
    env: 'EDGEPROXY_ADMIN_TOKEN',
    schema: value.token,
    initial: null,
    shown: 'none',
    allowed: '16 to 512 printable ASCII characters without blanks',
    help: 'Bearer token of the admin API; the environment or the file hides it better than the flag',
    secret: true,
  }),
  adminTokenFile: setting<string | null>({
    env: 'EDGEPROXY_ADMIN_TOKEN_FILE',
    schema: value.path,
    initial: null,
    shown: 'none',
    allowed: 'a file path; the file not writable by its group, closed to others',
    help: 'File that holds the bearer token of the admin API, instead of the setting',
  }),
  user: setting<string | null>({
    env: 'EDGEPROXY_USER',
    schema: value.account,
    initial: null,
    shown: 'none',
    allowed: 'NAME or NAME:GROUP, by name or number',
    help: 'The user that run becomes once it listens, when it is started by root',
  }),
  takeover: setting<boolean>({
    env: 'EDGEPROXY_TAKEOVER',
    schema: value.boolean,
    initial: true,
    allowed: 'true or false',
    help: 'Take the listeners of a running proxy of the same user over, and offer them to the next one',
  }),
  metricsBackendsMax: setting({
    env: 'EDGEPROXY_METRICS_BACKENDS_MAX',
    schema: value.integer(0, BACKENDS_MAX),
    initial: 1000,
    unit: 'backends',
    allowed: 'a whole number from 0 to 65535',
    help: 'Backends with metrics of their own; those of further ones are summed up',
  }),
  shutdownTimeoutSecs: setting({
    env: 'EDGEPROXY_SHUTDOWN_TIMEOUT_SECS',
    schema: value.decimal(0, DAY_SECS),
    initial: 30,
    unit: 'seconds',
    allowed: 'a number from 0 to 86400',
    help: 'How long open sessions may finish after a stop was asked for',
  }),
  log: setting<LogLevel>({
    env: 'EDGEPROXY_LOG',
    schema: value.choice(LOG_LEVELS),
    initial: 'info',
    allowed: `one of ${LOG_LEVELS.join(', ')}`,
    help: 'Lowest level that is logged',
  }),
  sessionLog: setting<(typeof SESSION_LOGS)[number]>({
    env: 'EDGEPROXY_SESSION_LOG',
    schema: value.choice(SESSION_LOGS),
    initial: 'off',
    allowed: `one of ${SESSION_LOGS.join(', ')}`,
    help: 'A line on standard output for each session: none, those that end badly and a sample, or all',
  }),
  sessionLogSample: setting({
    env: 'EDGEPROXY_SESSION_LOG_SAMPLE',
    schema: value.decimal(0, 1),
    initial: 0.01,
    unit: 'of the sessions',
    allowed: 'a number from 0 to 1',
    help: 'Share of the sessions that EDGEPROXY_SESSION_LOG=sample logs however they end',
  }),
  sessionLogIntervalSecs: setting({
    env: 'EDGEPROXY_SESSION_LOG_INTERVAL_SECS',
    schema: value.decimal(0, DAY_SECS),
    initial: 0,
    unit: 'seconds',
    allowed: 'a number from 0 to 86400; 0 is off',
    help: 'A session that lasts gets a line this often, too',
  }),
  debug: setting<boolean>({
    env: 'DEBUG',
    schema: value.presence,
    initial: false,
    shown: 'not set',
    allowed: 'anything; 0, false, no and off leave it off',
    help: 'Same as log level debug, unless --log is given',
  }),
};
