// Every setting, once: name, flag, default, unit, what is allowed, help. Parsing, `--help` and
// docs/reference/settings.md all come from this table, so they cannot disagree. Precedence: flag,
// environment, TOML file, default. An empty environment variable counts as not set. `loadConfig`
// reports every problem at once; nothing else in the program reads the environment for settings.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import * as v from 'valibot';
import { errorMessage, ProxyError } from './base/errors.ts';
import { LOG_LEVELS, type LogLevel } from './base/log.ts';
import { nearestNames } from './base/nearest.ts';
import * as value from './config-values.ts';

export type { ListenAddress } from './config-values.ts';

const PREFIX = 'EDGEPROXY_';
/**
 * Where the TOML file is; it is not a row of the table because the table is what the file may hold.
 */
const CONFIG_ENV = `${PREFIX}CONFIG`;
/** `1` lets SIGUSR2 crash a worker: for tests of its replacement, not a setting. */
export const FAULT_INJECTION_ENV = 'EDGEPROXY_FAULT_INJECTION';

/** What a health check does unless a backend's row says otherwise. */
const HEALTH_CHECK_TYPES = ['tcp', 'http'] as const;
const ENGINES = ['auto', 'uring', 'epoll', 'portable'] as const;

/**
 * One setting. `initial` is used when nobody set it; `shown` is that default in words where it is
 * not a constant.
 */
interface Setting<Value> {
  readonly env: string;
  readonly schema: v.GenericSchema<unknown, Value>;
  readonly initial: Value | (() => Value);
  readonly shown?: string;
  readonly unit?: string;
  readonly allowed: string;
  readonly help: string;
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
    help: 'Unacknowledged bytes, or a peer that does not read, end a connection after this (TCP_USER_TIMEOUT)',
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
    help: 'Address of /metrics and the health and readiness pages',
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
  debug: setting<boolean>({
    env: 'DEBUG',
    schema: value.presence,
    initial: false,
    shown: 'not set',
    allowed: 'anything; 0, false, no and off leave it off',
    help: 'Same as log level debug, unless --log is given',
  }),
};

type Settings = typeof SETTINGS;
export type SettingKey = keyof Settings;
type Values = {
  readonly [Key in SettingKey]: Settings[Key] extends Setting<infer Value> ? Value : never;
};

/** The settings in use, frozen. `warnings` are lines for the log: they stop nothing. */
export type Config = Omit<Values, 'debug'> & { readonly warnings: readonly string[] };

/**
 * Flags by their camel-case name (`--db-path` is `dbPath`), as the command line said them, and
 * `config`.
 */
export type ConfigFlags = Readonly<Record<string, string | boolean | undefined>>;
export type Environment = Readonly<Record<string, string | undefined>>;

export const SETTING_KEYS = Object.keys(SETTINGS) as SettingKey[];

/** `EDGEPROXY_DB_PATH` is `--db-path`; the same with `_` is the key in a TOML file. */
export function flagName(key: SettingKey): string {
  return SETTINGS[key].env.replace(PREFIX, '').toLowerCase().replaceAll('_', '-');
}

export function tomlKey(key: SettingKey): string {
  return flagName(key).replaceAll('-', '_');
}

/** Commander's spelling of a flag in its options object. */
export function flagAttribute(key: SettingKey): string {
  return flagName(key).replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** A switch may stand alone on the command line (`--debug`); every other flag takes a value. */
export function isSwitch(key: SettingKey): boolean {
  return typeof SETTINGS[key].initial === 'boolean';
}

/** The default as a user would write it. */
export function defaultText(key: SettingKey): string {
  const { shown, initial } = SETTINGS[key] as Setting<unknown>;
  return shown ?? String(initial);
}

/**
 * All that is wrong with the settings, one line each; the command line answers it with exit code 2.
 */
export class ConfigError extends ProxyError {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super('ERR_CONFIG', problems.join('\n'), { source: 'usage' });
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

function hint(names: readonly string[]): string {
  return names.length === 0 ? '' : `, the nearest known is ${names[0]}`;
}

/** A value as the user gave it, short enough for one line. */
function quote(raw: unknown): string {
  const text = JSON.stringify(raw) ?? String(raw);
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}

function readToml(file: string, problems: string[]): Record<string, unknown> {
  let table: Record<string, unknown>;
  try {
    const text = readFileSync(file, 'utf8');
    // Loaded only here: most starts have no file, and the parser costs 4 ms.
    const toml = createRequire(import.meta.url)('smol-toml') as typeof import('smol-toml');
    table = toml.parse(text);
  } catch (error) {
    const reason = errorMessage(error).split('\n', 1)[0];
    problems.push(`Cannot read config file ${quote(file)}: ${reason}`);
    return {};
  }
  const known = SETTING_KEYS.map(tomlKey);
  for (const key of Object.keys(table)) {
    if (known.includes(key)) continue;
    problems.push(`Unknown key ${quote(key)} in ${file}${hint(nearestNames(key, known, 1))}`);
  }
  return table;
}

function unknownVariables(env: Environment): string[] {
  const known = [...SETTING_KEYS.map((key) => SETTINGS[key].env), CONFIG_ENV, FAULT_INJECTION_ENV];
  return Object.keys(env)
    .filter((name) => name.startsWith(PREFIX) && !known.includes(name))
    .sort()
    .map(
      (name) =>
        `Unknown environment variable ${name} is ignored${hint(nearestNames(name, known, 1))}`,
    );
}

/**
 * Reads the settings named in `only` (all by default) from flags, environment and file. Throws a
 * ConfigError that holds every problem. A command that needs one setting must not fail on another,
 * hence `only`.
 */
export function loadConfig<Key extends SettingKey = SettingKey>(
  flags: ConfigFlags,
  env: Environment,
  only: readonly Key[] = SETTING_KEYS as Key[],
): Pick<Config, Exclude<Key, 'debug'> | 'warnings'> {
  const problems: string[] = [];
  const file = flags.config ?? (env[CONFIG_ENV] || undefined);
  const table = typeof file === 'string' ? readToml(file, problems) : {};

  const resolve = (key: Key): { value: unknown; byFlag: boolean } => {
    const { env: name, schema, initial, allowed } = SETTINGS[key] as Setting<unknown>;
    const flag = flags[flagAttribute(key)];
    const [raw, where] =
      flag !== undefined
        ? [flag, `--${flagName(key)}`]
        : env[name]
          ? [env[name], name]
          : [table[tomlKey(key)], `${tomlKey(key)} in ${file}`];
    if (raw === undefined) {
      return { value: typeof initial === 'function' ? initial() : initial, byFlag: false };
    }
    const result = v.safeParse(schema, raw, { message: allowed, abortEarly: true });
    if (result.success) return { value: result.output, byFlag: flag !== undefined };
    problems.push(`${where} is ${quote(raw)}, allowed: ${result.issues[0].message}`);
    return { value: undefined, byFlag: false };
  };

  const values: Record<string, unknown> = {};
  for (const key of only) {
    const resolved = resolve(key);
    values[key] = resolved.value;
    if (key === 'log' && !resolved.byFlag && resolve('debug' as Key).value === true) {
      values[key] = 'debug';
    }
  }
  delete values.debug;
  if (problems.length > 0) throw new ConfigError(problems);
  values.warnings = Object.freeze(unknownVariables(env));
  return Object.freeze(values) as Pick<Config, Exclude<Key, 'debug'> | 'warnings'>;
}
