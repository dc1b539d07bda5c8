// What requests may say: the schemas that check them and that openapi.ts describes. A message is what is allowed. Columns
// of a backend are checked once more, with the same words, by the code that reads routing.db.

import * as v from 'valibot';
import {
  APP_PATTERN,
  BACKEND_ID_PATTERN,
  HTTP_PATH_PATTERN,
  REGION_PATTERN,
} from '../../base/names.ts';
import { CHECK_TYPES } from '../health-spec.ts';

const LIMIT_MAX = 2_147_483_647;
/** Deeper pages would need as many sessions kept in order. */
export const SESSIONS_END_MAX = 10_000;

const text = (allowed: string) => v.string(allowed);

const whole = (min: number, max: number) => {
  const allowed = `a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number(allowed),
    v.integer(allowed),
    v.minValue(min, allowed),
    v.maxValue(max, allowed),
  );
};

/** A whole number of a query: text on the way, a number behind it and in the description. */
const wholeText = (min: number, max: number, initial: number) => {
  const allowed = `a whole number from ${min} to ${max}`;
  return v.pipe(
    v.optional(v.string(allowed), String(initial)),
    v.regex(/^\d{1,10}$/, allowed),
    v.transform(Number),
    v.number(),
    v.integer(),
    v.minValue(min, allowed),
    v.maxValue(max, allowed),
    v.metadata({ default: initial }),
  );
};

const booleanText = (initial: boolean) => {
  const allowed = 'true or false';
  return v.pipe(
    v.optional(v.picklist(['true', 'false'], allowed), initial ? 'true' : 'false'),
    v.transform((word) => word === 'true'),
    v.boolean(),
    v.metadata({ default: initial }),
  );
};

const matching = (pattern: RegExp, allowed: string) =>
  v.pipe(text(allowed), v.regex(pattern, allowed));

const app = matching(APP_PATTERN, '1 to 64 characters without blanks, commas and @');
const region = matching(REGION_PATTERN, '1 to 16 of a-z, 0-9 and -');
const country = matching(/^[A-Za-z]{2}$/, 'an ISO 3166-1 alpha-2 country code');
const id = matching(BACKEND_ID_PATTERN, '1 to 128 printable characters');
/** 0 to 2^31 - 1: counts are compared with 32-bit atomics. */
const limit = whole(0, LIMIT_MAX);
const weight = v.pipe(
  v.number('a number, 0 or more'),
  v.finite('a number, 0 or more'),
  v.minValue(0, 'a number, 0 or more'),
);
const flag = v.boolean('true or false');

/** No parameter at all. */
export const noQuery = v.strictObject({});

export const listQuery = v.strictObject({
  app: v.optional(app),
  region: v.optional(region),
  country: v.optional(country),
  excluded: v.optional(
    v.pipe(
      v.picklist(['true', 'false'], 'true or false'),
      v.transform((word) => word === 'true'),
      v.boolean(),
    ),
  ),
  match: v.optional(
    v.pipe(text('1 to 128 characters'), v.minLength(1, '1 to 128 characters'), v.maxLength(128)),
  ),
  limit: wholeText(1, 1000, 100),
  offset: wholeText(0, 65_535, 0),
});

export const newBackend = v.strictObject({
  id,
  address: v.union(
    [v.pipe(v.string(), v.ipv4()), v.pipe(v.string(), v.ipv6())],
    'an IPv4 or IPv6 address',
  ),
  port: whole(1, 65_535),
  region,
  app: v.optional(app, 'default'),
  country: v.optional(country),
  weight: v.optional(weight),
  soft_limit: v.optional(limit),
  hard_limit: v.optional(limit),
  check_type: v.optional(v.picklist(CHECK_TYPES, `one of ${CHECK_TYPES.join(', ')}`)),
  check_port: v.optional(whole(1, 65_535)),
  check_path: v.optional(matching(HTTP_PATH_PATTERN, 'a path that starts with /, without blanks')),
  check_expect: v.optional(
    matching(
      /^[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*$/,
      'status codes as in 200, 200-299 or a comma list of these',
    ),
  ),
});

/** What may be changed; all together in one commit. */
export const backendChanges = v.pipe(
  v.strictObject({
    enabled: v.optional(flag),
    removed: v.optional(flag),
    weight: v.optional(weight),
    soft_limit: v.optional(limit),
    hard_limit: v.optional(limit),
  }),
  v.minEntries(1, 'at least one of enabled, removed, weight, soft_limit, hard_limit'),
);

const YEAR_SECONDS = 31_536_000;
const RATE_MAX = 1e9;

/** Absent: open sessions are never ended; without a rate, all of them at once. */
export const drainPlan = v.strictObject({
  timeout_seconds: v.optional(
    v.pipe(
      v.number(`a number from 0 to ${YEAR_SECONDS}`),
      v.minValue(0, `a number from 0 to ${YEAR_SECONDS}`),
      v.maxValue(YEAR_SECONDS, `a number from 0 to ${YEAR_SECONDS}`),
    ),
  ),
  rate: v.optional(
    v.pipe(
      v.number('a number of sessions per second, above 0'),
      v.gtValue(0, 'a number of sessions per second, above 0'),
      v.maxValue(RATE_MAX, `a number up to ${RATE_MAX}`),
    ),
  ),
});

export const deleteQuery = v.strictObject({ purge: booleanText(false) });

export const explainQuery = v.strictObject({
  ip: v.union(
    [v.pipe(v.string(), v.ipv4()), v.pipe(v.string(), v.ipv6())],
    'an IPv4 or IPv6 address',
  ),
  app: v.optional(v.union([v.literal('*'), app], '* or the name of an app'), '*'),
  limit: wholeText(1, 1000, 100),
});

export const sessionsQuery = v.strictObject({
  backend: v.optional(id),
  app: v.optional(v.union([v.literal('*'), app], '* or the name of an app')),
  country: v.optional(v.union([v.literal('none'), country], 'a country code, or none')),
  order: v.optional(v.picklist(['bytes', 'age'], 'bytes or age'), 'bytes'),
  limit: wholeText(1, 1000, 100),
  offset: wholeText(0, SESSIONS_END_MAX - 1, 0),
});

export const eventsQuery = v.strictObject({
  status: booleanText(true),
  recent: wholeText(0, 1000, 0),
});
