// GET /api/openapi.json: the description of the API (OpenAPI 3.1), made from the routes and from the schemas that check
// requests, so it cannot say anything else than the program does.

import { toJsonSchema } from '@valibot/to-json-schema';
import type * as v from 'valibot';
import { BACKEND_ID_PATTERN } from '../../base/names.ts';
import { EVENT_TYPES } from '../events.ts';
import { PROBLEMS } from './problem.ts';
import * as responses from './response-schemas.ts';
import type { Route } from './router.ts';

type Json = Readonly<Record<string, unknown>>;
type Schema = v.GenericSchema<unknown, unknown>;

/** OpenAPI 3.1 schemas are JSON Schema 2020-12; the document says so once. */
function jsonSchema(schema: Schema, typeMode: 'input' | 'output'): Json {
  const { $schema, ...json } = toJsonSchema(schema as v.GenericSchema, {
    target: 'draft-2020-12',
    typeMode,
    errorMode: 'throw',
    // Checked by code only; what is allowed is in the problem that it answers.
    ignoreActions: ['check', 'finite'],
  });
  return json;
}

const PROBLEM = {
  description: 'Problem details (RFC 9457)',
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/problem' } } },
};

/** A parameter's schema as the value it means: text on the way, a number behind it. */
function queryParameters({ query }: Route): Json[] {
  const entries = query.entries as Readonly<Record<string, Schema>>;
  const described = jsonSchema(query, 'output');
  const properties = described.properties as Readonly<Record<string, Json>>;
  return Object.entries(entries).map(([name, entry]) => ({
    name,
    in: 'query',
    required: entry.type !== 'optional',
    schema: properties[name],
  }));
}

function pathParameters({ path }: Route): Json[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string', pattern: BACKEND_ID_PATTERN.source },
  }));
}

function answersOf({ answers }: Route): Json {
  const described = Object.entries(answers).map(([status, name]) => {
    const isStream = name === 'text/event-stream';
    const schema = { $ref: `#/components/schemas/${name}` };
    const content = isStream
      ? { 'text/event-stream': { schema: { type: 'string' } } }
      : { 'application/json': { schema } };
    return [status, { description: name, content }];
  });
  return { ...Object.fromEntries(described), default: PROBLEM };
}

function operationOf(route: Route): Json {
  const { body, summary, path, method } = route;
  const words = path.replace(/^\/api\//, '').replaceAll(/[{}]/g, '');
  return {
    operationId: `${method.toLowerCase()}-${words.replaceAll(/[/.]/g, '-')}`,
    summary,
    parameters: [...pathParameters(route), ...queryParameters(route)],
    ...(body === null
      ? {}
      : {
          requestBody: {
            required: true,
            content: { 'application/json': { schema: jsonSchema(body, 'input') } },
          },
        }),
    responses: answersOf(route),
  };
}

/** The whole document. */
export function describeApi(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) {
    paths[route.path] ??= {};
    (paths[route.path] as Record<string, Json>)[route.method.toLowerCase()] = operationOf(route);
  }
  const schemas = Object.fromEntries(
    Object.entries(responses).map(([name, schema]) => [name, jsonSchema(schema, 'output')]),
  );
  return {
    openapi: '3.1.0',
    info: {
      title: 'edgeproxy admin API',
      version,
      description: 'Reference with examples: docs/reference/admin-api.md',
    },
    security: [{}, { bearer: [] }],
    paths,
    components: { schemas, securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    'x-event-types': EVENT_TYPES,
    'x-problems': Object.fromEntries(
      Object.entries(PROBLEMS).map(([name, [status, title]]) => [name, { status, title }]),
    ),
  };
}
