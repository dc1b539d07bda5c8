// Reads of the admin API for tests: each answer is held to its schema, all declared fields and no others.

import assert from 'node:assert/strict';
import * as v from 'valibot';
import * as schemas from '../control/api/response-schemas.ts';
import { type AdminAnswer, askAdmin } from './admin-client.ts';
import type { ProxyProcess } from './proxy-process.ts';

type Schemas = typeof schemas;
export type SchemaName = Exclude<keyof Schemas, 'EventData'>;
const BY_NAME = new Map<string, v.GenericSchema>(Object.entries(schemas));

/** The body as this schema says it is. */
export function holdTo<Name extends SchemaName>(
  name: Name,
  json: unknown,
): v.InferOutput<Schemas[Name]> {
  const parsed = v.parse(BY_NAME.get(name) as v.GenericSchema, json);
  assert.deepEqual(json, parsed, 'fields that are not declared');
  return parsed as v.InferOutput<Schemas[Name]>;
}

/** The body of an answer with status 200. */
export async function readAdmin<Name extends SchemaName>(
  proxy: ProxyProcess,
  path: string,
  name: Name,
): Promise<v.InferOutput<Schemas[Name]>> {
  const { status, json, text } = await askAdmin(proxy, path);
  assert.equal(status, 200, `${path}: ${text}`);
  return holdTo(name, json);
}

/** Problem details with this status and name; what is wrong, as [field, value, allowed]. */
export function holdToProblem(
  answer: AdminAnswer,
  status: number,
  name: string,
): [string, unknown, string][] {
  assert.equal(answer.status, status, answer.text);
  assert.match(String(answer.headers['content-type']), /^application\/problem\+json/);
  const { type, status: said, errors = [] } = holdTo('problem', answer.json);
  assert.equal(type, `urn:edgeproxy:problem:${name}`);
  assert.equal(said, status);
  return errors.map(({ field, value, allowed }) => [field, value, allowed]);
}
