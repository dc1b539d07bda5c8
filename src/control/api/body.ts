// Reads the JSON body of a request, bounded, and checks it and the query against a schema.

import type { IncomingMessage } from 'node:http';
import * as v from 'valibot';
import { errorMessage } from '../../base/errors.ts';
import { ApiProblem, errorsText, fieldErrors } from './problem.ts';

/** A backend takes below 2 KB. */
const BODY_BYTES_MAX = 65_536;

type FieldsSchema = v.GenericSchema<unknown, unknown> & { readonly entries: object };

function checkMediaType({ headers }: IncomingMessage): void {
  const type = (headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase();
  const encoding = headers['content-encoding'];
  if (type === 'application/json' && (encoding ?? 'identity') === 'identity') return;
  const given =
    type === 'application/json'
      ? `Content-Encoding is ${JSON.stringify(encoding)}, allowed: none`
      : `Content-Type is ${JSON.stringify(headers['content-type'] ?? null)}, allowed: application/json`;
  throw new ApiProblem('unsupported-media-type', given);
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) {
      throw new ApiProblem('content-too-large', `A body may have ${BODY_BYTES_MAX} bytes`, {
        // What is left of it is not read.
        headers: { connection: 'close' },
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The checked body. Throws an ApiProblem. */
export async function readBody<Schema extends FieldsSchema>(
  request: IncomingMessage,
  schema: Schema,
): Promise<v.InferOutput<Schema>> {
  checkMediaType(request);
  const text = await readText(request);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiProblem('bad-request', `The body is not JSON: ${errorMessage(error)}`);
  }
  if (Array.isArray(value)) {
    // valibot takes one for an object without fields.
    const errors = [{ field: '', value, allowed: 'an object' }];
    throw new ApiProblem('invalid-body', errorsText(errors), { errors });
  }
  return check('invalid-body', schema, value);
}

/** The checked query. A parameter given twice is a mistake, not a list. */
export function readQuery<Schema extends FieldsSchema>(
  query: URLSearchParams,
  schema: Schema,
): v.InferOutput<Schema> {
  const values: Record<string, unknown> = {};
  for (const name of new Set(query.keys())) {
    const given = query.getAll(name);
    values[name] = given.length === 1 ? given[0] : given;
  }
  return check('invalid-query', schema, values);
}

function check<Schema extends FieldsSchema>(
  problem: 'invalid-query' | 'invalid-body',
  schema: Schema,
  value: unknown,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const names = Object.keys(schema.entries);
  const errors = fieldErrors(result.issues as v.BaseIssue<unknown>[], names);
  throw new ApiProblem(problem, errorsText(errors), { errors });
}
