// One row of routing.db, checked: from whatever SQLite stored (any type can be in any column) to a
// backend, or to the reasons why not. Tolerant where the meaning is plain (text "8080" in a number
// column, NULL where there is a default), strict where a guess could send clients to the wrong
// place. Used for reading and before writing.

import {
  APP_PATTERN,
  BACKEND_ID_PATTERN,
  HTTP_PATH_PATTERN,
  REGION_PATTERN,
} from '../base/names.ts';
import { countryIndex } from '../route/regions.ts';
import { formatAddress, isMapped, parseAddress } from '../sys/sockaddr.ts';
import { CHECK_TYPES, type CheckType, parseExpect, type RowCheck } from './health-spec.ts';

/** How a drain goes on: the columns `drain_…`. */
export interface RowDrain {
  /** Unix seconds from which sessions that are still open are ended; null = never. */
  readonly closeAt: number | null;
  /** How many of them are ended per second, by each proxy; null = all at once. */
  readonly closeRate: number | null;
}
/** By the version number that stands for each. */
export const PROXY_PROTOCOLS = ['off', 'v1', 'v2'] as const;
export type ProxyProtocol = (typeof PROXY_PROTOCOLS)[number];

/**
 * A backend as routing.db has it. `words` are host order with IPv4 in word 3; `country` null: its
 * region's.
 */
export interface RawBackend {
  readonly id: string;
  readonly app: string;
  readonly region: string;
  readonly country: string | null;
  readonly family: 4 | 6;
  readonly words: readonly [number, number, number, number];
  readonly port: number;
  readonly healthy: boolean;
  readonly weight: number;
  readonly softLimit: number;
  readonly hardLimit: number;
  readonly deleted: boolean;
  /** null: nothing is set, or something set is wrong; then the backend is checked by default. */
  readonly check: RowCheck | null;
  /** null: it is not draining. */
  readonly drain: RowDrain | null;
  /** The PROXY header it gets; null: what the setting says. */
  readonly proxyProtocol: ProxyProtocol | null;
}

/**
 * Why a row is not served or, with `served`, what of it is not used. `value` is what the column
 * holds, as short text. A row of the table `access` has no id: then it is what the row matches.
 */
export interface RowProblem {
  readonly table?: 'access' | 'peers';
  readonly id: string;
  readonly column: string;
  readonly value: string;
  readonly reason: string;
  readonly served?: true;
}

interface Column {
  readonly name: string;
  /** Stands for an absent column. */
  readonly missing: number | null;
  readonly required: boolean;
  /** How SQLite is to keep it, where `missing` does not tell. */
  readonly type?: 'NUMERIC';
}

/** The columns in the order in which a row's values are given to `parseRow`. */
export const COLUMNS: readonly Column[] = [
  { name: 'id', missing: null, required: true },
  { name: 'app', missing: null, required: true },
  { name: 'region', missing: null, required: true },
  { name: 'country', missing: null, required: false },
  { name: 'wg_ip', missing: null, required: true },
  { name: 'port', missing: null, required: true },
  { name: 'healthy', missing: 1, required: false },
  { name: 'weight', missing: 1, required: false },
  { name: 'soft_limit', missing: 100, required: false },
  { name: 'hard_limit', missing: 0, required: false },
  { name: 'deleted', missing: 0, required: false },
  { name: 'check_type', missing: null, required: false },
  { name: 'check_port', missing: null, required: false },
  { name: 'check_path', missing: null, required: false },
  { name: 'check_expect', missing: null, required: false },
  { name: 'draining', missing: 0, required: false },
  { name: 'drain_close_at', missing: null, required: false, type: 'NUMERIC' },
  { name: 'drain_close_rate', missing: null, required: false, type: 'NUMERIC' },
  { name: 'proxy_protocol', missing: null, required: false },
];

/** Counts are compared with 32-bit atomics. */
const LIMIT_MAX = 2_147_483_647;
const VALUE_TEXT_MAX = 60;

export function valueText(value: unknown): string {
  if (value === null || value === undefined) return 'NULL';
  if (value instanceof Uint8Array) return `BLOB of ${value.length} bytes`;
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > VALUE_TEXT_MAX ? `${text.slice(0, VALUE_TEXT_MAX - 3)}...` : text;
}

/** Text, with a number accepted as its digits: SQLite keeps 7 in an untyped column as a number. */
function asText(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'bigint' ? String(value) : '';
}

const NUMERAL = /^[+-]?\d+(\.\d+)?$/;

/**
 * A number, with numeric text accepted; NaN for anything else. A BigInt is beyond every range here.
 */
function asNumber(value: unknown): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'bigint') return Number(value);
  return typeof value === 'string' && NUMERAL.test(value) ? Number(value) : Number.NaN;
}

type Address = Pick<RawBackend, 'family' | 'words'>;

/**
 * An address one can connect to: a literal, not "any address", not a group. A mapped IPv4 address
 * is IPv4.
 */
function parseBackendAddress(text: string): Address | string {
  const parsed = parseAddress(text.trim());
  if (parsed === null) return 'must be an IPv4 or IPv6 address, host names are not resolved';
  const [w0, w1, w2, w3] = parsed.words;
  const isV4 = parsed.family === 4 || isMapped(w0, w1, w2);
  if ((w0 | w1 | w3) === 0 && (isV4 || w2 === 0)) return 'must not be the unspecified address';
  if (isV4 ? w3 >>> 28 >= 14 : w0 >>> 24 === 0xff) return 'must be a unicast address';
  return isV4 ? { family: 4, words: [0, 0, 0, w3] } : { family: 6, words: parsed.words };
}

/** A setting of the check column `column`: null when empty, and `wrong` called when it is no such. */
function checkValue<Value>(
  row: readonly unknown[],
  column: number,
  parse: (text: string) => Value | null,
  wrong: (column: number) => void,
): Value | null {
  const text = asText(row[column]).trim();
  if (text === '' && (row[column] ?? '') === '') return null;
  const value = parse(text);
  if (value === null) wrong(column);
  return value;
}

const CHECK_ALLOWED = {
  11: `one of ${CHECK_TYPES.join(', ')}`,
  12: 'a whole number from 1 to 65535',
  13: 'a path that starts with /, without blanks',
  14: 'status codes as in 200, 200-299 or a comma list of these',
} as const;

/**
 * The check columns. One that is wrong makes none of them count: half of a check could take a good
 * backend out, and the row itself is good.
 */
function parseRowCheck(row: readonly unknown[], problems: RowProblem[]): RowCheck | null {
  const before = problems.length;
  const wrong = (column: number): void => {
    const { name } = COLUMNS[column] as Column;
    const reason = `must be ${CHECK_ALLOWED[column as keyof typeof CHECK_ALLOWED]}`;
    const value = valueText(row[column]);
    problems.push({ id: asText(row[0]), column: name, value, reason, served: true });
  };
  const isType = (text: string): text is CheckType =>
    (CHECK_TYPES as readonly string[]).includes(text);
  const check: RowCheck = {
    type: checkValue(
      row,
      11,
      (text) => (isType(text.toLowerCase()) ? (text.toLowerCase() as CheckType) : null),
      wrong,
    ),
    port: checkValue(
      row,
      12,
      (text) => (/^\d{1,5}(\.0+)?$/.test(text) && +text >= 1 && +text <= 65_535 ? +text : null),
      wrong,
    ),
    path: checkValue(row, 13, (text) => (HTTP_PATH_PATTERN.test(text) ? text : null), wrong),
    expect: checkValue(row, 14, (text) => (parseExpect(text) === null ? null : text), wrong),
  };
  const { type, port, path, expect } = check;
  if (problems.length > before || (type ?? port ?? path ?? expect) === null) return null;
  return check;
}

/** The year 5138: a time in milliseconds, taken for seconds, lies beyond. */
const CLOSE_AT_MAX = 1e11;
const CLOSE_RATE_MAX = 1e9;

/**
 * The drain columns of a draining backend. One that is wrong makes neither count: a drain that ends
 * no session does less harm than one that ends them at the wrong time.
 */
function parseRowDrain(row: readonly unknown[], problems: RowProblem[]): RowDrain {
  const before = problems.length;
  const above0 = (column: number, max: number, allowed: string): number | null => {
    if ((row[column] ?? '') === '') return null;
    const value = asNumber(row[column]);
    if (value > 0 && value <= max) return value;
    const { name } = COLUMNS[column] as Column;
    const shown = valueText(row[column]);
    const reason = `must be ${allowed}`;
    problems.push({ id: asText(row[0]), column: name, value: shown, reason, served: true });
    return null;
  };
  const closeAt = above0(16, CLOSE_AT_MAX, 'a time in Unix seconds');
  const closeRate = above0(17, CLOSE_RATE_MAX, 'a number of sessions per second, above 0');
  return problems.length > before ? { closeAt: null, closeRate: null } : { closeAt, closeRate };
}

/** The backend a row describes, or null with a line in `problems` for each wrong column. */
export function parseRow(row: readonly unknown[], problems: RowProblem[]): RawBackend | null {
  const before = problems.length;
  const id = asText(row[0]);
  const refuse = (column: number, reason: string): void => {
    const { name } = COLUMNS[column] as Column;
    const shownId = id === '' ? valueText(row[0]) : id.slice(0, 128);
    problems.push({ id: shownId, column: name, value: valueText(row[column]), reason });
  };
  const inRange = (column: number, min: number, max: number, allowed: string): number => {
    const stored = row[column] ?? null;
    const value = stored === null ? (COLUMNS[column]?.missing ?? Number.NaN) : asNumber(stored);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    refuse(column, `must be ${allowed}`);
    return min;
  };

  if (!BACKEND_ID_PATTERN.test(id)) refuse(0, 'must be 1 to 128 printable characters');
  const app = asText(row[1]);
  if (!APP_PATTERN.test(app)) refuse(1, 'must be 1 to 64 characters without spaces, commas and @');
  const region = asText(row[2]).toLowerCase();
  if (!REGION_PATTERN.test(region)) refuse(2, 'must be 1 to 16 of a-z, 0-9 and -');
  const country = row[3] === null || row[3] === '' ? null : asText(row[3]).toUpperCase();
  if (country !== null && countryIndex(country) === 0) {
    refuse(3, 'must be an ISO 3166-1 alpha-2 country code');
  }
  const address = parseBackendAddress(asText(row[4]));
  if (typeof address === 'string') refuse(4, address);
  const port = inRange(5, 1, 65_535, 'a whole number from 1 to 65535');
  const healthy = inRange(6, 0, 1, '0 or 1') === 1;
  const weight = row[7] === null ? 1 : asNumber(row[7]);
  if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) refuse(7, 'must be a number, 0 or more');
  const softLimit = inRange(8, 0, LIMIT_MAX, 'a whole number, 0 or more');
  const hardLimit = inRange(9, 0, LIMIT_MAX, 'a whole number, 0 or more');
  const deleted = inRange(10, 0, 1, '0 or 1') === 1;
  const draining = inRange(15, 0, 1, '0 or 1') === 1;
  const proxyText = asText(row[18]).trim().toLowerCase();
  const proxyProtocol = PROXY_PROTOCOLS.find((name) => name === proxyText) ?? null;
  // Served with a header it does not expect, or without one it does, a backend would take no client.
  if (proxyProtocol === null && (row[18] ?? '') !== '') {
    refuse(18, `must be one of ${PROXY_PROTOCOLS.join(', ')}`);
  }

  if (problems.length > before || typeof address === 'string') return null;
  const { family, words } = address;
  return {
    id,
    app,
    region,
    country,
    family,
    words,
    port,
    healthy,
    weight,
    softLimit,
    hardLimit,
    deleted,
    check: parseRowCheck(row, problems),
    drain: draining ? parseRowDrain(row, problems) : null,
    proxyProtocol,
  };
}

/** What a problem means for its backend, as it reads after the id. */
export function problemEffect({ column, served }: RowProblem): string {
  if (!served) return 'is skipped';
  return column.startsWith('drain') ? 'is drained to no end' : 'is checked by default';
}

/** Version of the PROXY header that a backend gets; `setting` is that of backends whose row says nothing. */
export function proxyVersion({ proxyProtocol }: RawBackend, setting: number): number {
  return proxyProtocol === null ? setting : PROXY_PROTOCOLS.indexOf(proxyProtocol);
}

/** `10.0.0.7` or `fd00::7`, as it is written back and shown. */
export function addressText(backend: Address): string {
  return formatAddress(backend.family, backend.words);
}
