// Failures of a request as problem details (RFC 9457): thrown anywhere in the API, answered in one place. The last part of
// `type` is stable and may be matched by programs; `errors` names each wrong field with its value and what is allowed.

import type * as v from 'valibot';

/** Stable names with their status and title. */
export const PROBLEMS = {
  'bad-request': [400, 'The request cannot be understood'],
  'invalid-query': [400, 'A query parameter is wrong'],
  unauthorized: [401, 'A valid bearer token is needed'],
  forbidden: [403, 'The request may come from a web page of another site'],
  'not-found': [404, 'There is nothing at this path'],
  'backend-unknown': [404, 'There is no such backend'],
  'app-unknown': [404, 'There is no such app'],
  'method-not-allowed': [405, 'The path does not know this method'],
  'backend-exists': [409, 'The id is taken'],
  'routing-read-only': [409, 'routing.db is read-only for this process'],
  'content-too-large': [413, 'The body is too large'],
  'unsupported-media-type': [415, 'The body is not JSON'],
  'invalid-body': [422, 'A field of the body is wrong'],
  internal: [500, 'The request failed inside edgeproxy'],
  'routing-unusable': [500, 'routing.db cannot be written'],
  'routing-locked': [503, 'routing.db is locked by another process'],
  'too-many-subscribers': [503, 'Too many event streams are open'],
} as const;
export type ProblemName = keyof typeof PROBLEMS;

/** One wrong field. */
export interface FieldError {
  /** Path of the field, parts joined by a dot; empty for the whole. */
  readonly field: string;
  /** What was given, shortened; null when it is missing. */
  readonly value: unknown;
  readonly allowed: string;
}

interface ProblemExtras {
  readonly errors?: readonly FieldError[];
  readonly headers?: Readonly<Record<string, string>>;
}

export class ApiProblem extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, unknown>>;

  constructor(problem: ProblemName, detail: string, extras: ProblemExtras = {}) {
    super(detail);
    const [status, title] = PROBLEMS[problem];
    this.status = status;
    this.headers = extras.headers ?? {};
    const { errors } = extras;
    this.body = {
      type: `urn:edgeproxy:problem:${problem}`,
      title,
      status,
      detail,
      ...(errors === undefined ? {} : { errors }),
    };
  }
}

const VALUE_TEXT_MAX = 200;

/** A value as it came, unless it is too long to repeat. */
function shownValue(value: unknown): unknown {
  if (value === undefined) return null;
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= VALUE_TEXT_MAX ? value : `${text.slice(0, VALUE_TEXT_MAX)}…`;
}

/** What valibot found, one entry per wrong field. `fields` are the names that exist. */
export function fieldErrors(
  issues: readonly v.BaseIssue<unknown>[],
  fields: readonly string[],
): FieldError[] {
  return issues.map((issue) => {
    const path = issue.path?.map(({ key }) => String(key)) ?? [];
    const last = path.at(-1) ?? '';
    const isUnknown = issue.type === 'strict_object' && !fields.includes(last) && last !== '';
    return {
      field: path.join('.'),
      value: shownValue(isUnknown ? issue.path?.at(-1)?.value : issue.input),
      allowed: isUnknown ? `only ${fields.join(', ')}` : issue.message,
    };
  });
}

/** One sentence for people, the details being in `errors`. */
export function errorsText(errors: readonly FieldError[]): string {
  return errors
    .map(({ field, value, allowed }) => {
      const given = value === null ? 'missing' : JSON.stringify(value);
      return `${field === '' ? 'the body' : field} is ${given}, allowed: ${allowed}`;
    })
    .join('; ');
}
