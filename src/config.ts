// Reads the settings (settings.ts is the table of them). Precedence: flag, environment, TOML file,
// default. An empty environment variable counts as not set. `loadConfig`
// reports every problem at once; nothing else in the program reads the environment for settings.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as v from 'valibot';
import { errorMessage, ProxyError } from './base/errors.ts';
import { nearestNames } from './base/nearest.ts';
import type { Setting } from './setting.ts';
import { SETTINGS } from './settings.ts';

export type { ListenAddress } from './config-values.ts';
export { SETTINGS } from './settings.ts';

const PREFIX = 'EDGEPROXY_';
/**
 * Where the TOML file is; it is not a row of the table because the table is what the file may hold.
 */
const CONFIG_ENV = `${PREFIX}CONFIG`;
/** `1` lets SIGUSR2 crash a worker: for tests of its replacement, not a setting. */
export const FAULT_INJECTION_ENV = 'EDGEPROXY_FAULT_INJECTION';

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

const TRUSTED_MISSING =
  'EDGEPROXY_TRUSTED_PROXIES is none, allowed while EDGEPROXY_PROXY_PROTOCOL_IN is not off: ' +
  'one address or prefix at least';

/** PROXY headers are to be accepted, but from nobody. */
function isProxyUntrusted(values: Readonly<Record<string, unknown>>): boolean {
  const { proxyProtocolIn, trustedProxies } = values as Partial<Config>;
  return (proxyProtocolIn ?? 'off') !== 'off' && trustedProxies?.length === 0;
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
    const { env: name, schema, initial, allowed, secret } = SETTINGS[key] as Setting<unknown>;
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
    const shown = secret ? 'not usable' : quote(raw);
    problems.push(`${where} is ${shown}, allowed: ${result.issues[0].message}`);
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
  if (isProxyUntrusted(values)) problems.push(TRUSTED_MISSING);
  if (problems.length > 0) throw new ConfigError(problems);
  values.warnings = Object.freeze(unknownVariables(env));
  return Object.freeze(values) as Pick<Config, Exclude<Key, 'debug'> | 'warnings'>;
}
