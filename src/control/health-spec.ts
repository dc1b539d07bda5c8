// What a health check of one backend is: the columns of its row over the settings. Pure: text and
// numbers in, a check out. `routing-rows.ts` reads the columns, `health.ts` resolves and compares.

export const CHECK_TYPES = ['tcp', 'http', 'none'] as const;
export type CheckType = (typeof CHECK_TYPES)[number];

/** The columns `check_type`, `check_port`, `check_path` and `check_expect`; null is not set. */
export interface RowCheck {
  readonly type: CheckType | null;
  readonly port: number | null;
  readonly path: string | null;
  /** As `parseExpect` takes it. */
  readonly expect: string | null;
}

/** Status codes from `first` to `last`, both included. */
interface StatusRange {
  readonly first: number;
  readonly last: number;
}

/** The check of a backend, everything decided. `path` and `expect` are for HTTP only. */
export interface HealthCheck {
  readonly type: 'tcp' | 'http';
  readonly port: number;
  readonly path: string;
  readonly expect: readonly StatusRange[];
  /** Version of the PROXY header that it begins with, 0 = none. */
  readonly proxyProtocol: number;
}

/** What the settings say for backends whose row says nothing. */
export interface CheckDefaults {
  readonly type: 'tcp' | 'http';
  readonly path: string;
}

/** Enough for every list that means something, and a bound for what a row can make us compare. */
const STATUS_RANGES_MAX = 32;
const STATUS_RANGE = /^\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?$/;
const EXPECT_DEFAULT: readonly StatusRange[] = [{ first: 200, last: 399 }];

/** `200`, `200-299` or a comma list of these; null when it is something else. */
export function parseExpect(text: string): readonly StatusRange[] | null {
  const ranges: StatusRange[] = [];
  for (const part of text.split(',', STATUS_RANGES_MAX + 1)) {
    const match = STATUS_RANGE.exec(part);
    if (match === null) return null;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first || ranges.length === STATUS_RANGES_MAX) return null;
    ranges.push({ first, last });
  }
  return ranges;
}

/**
 * The check of a backend that serves at `port` with PROXY header version `proxyProtocol`; null when it is not to be
 * checked. What listens at a port of its own for checks is not what expects the header.
 */
export function resolveCheck(
  row: RowCheck | null,
  port: number,
  defaults: CheckDefaults,
  proxyProtocol = 0,
): HealthCheck | null {
  // A path or a status says HTTP by itself.
  const implied = row?.path != null || row?.expect != null ? 'http' : defaults.type;
  const type = row?.type ?? implied;
  if (type === 'none') return null;
  return {
    type,
    port: row?.port ?? port,
    proxyProtocol: (row?.port ?? port) === port ? proxyProtocol : 0,
    path: row?.path ?? defaults.path,
    expect: (row?.expect != null && parseExpect(row.expect)) || EXPECT_DEFAULT,
  };
}

export function sameRowCheck(one: RowCheck | null, two: RowCheck | null): boolean {
  if (one === null || two === null) return one === two;
  return (
    one.type === two.type &&
    one.port === two.port &&
    one.path === two.path &&
    one.expect === two.expect
  );
}
