import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as v from 'valibot';
import { isValid, type JsonSchema } from '../../testing/json-schema.ts';
import { EVENT_TYPES } from '../events.ts';
import { describeApi } from './openapi.ts';
import { PROBLEMS } from './problem.ts';
import * as responses from './response-schemas.ts';
import { ROUTES } from './routes.ts';

interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: Record<string, JsonSchema> };
}

interface Operation {
  readonly operationId: string;
  readonly parameters: {
    readonly name: string;
    readonly in: string;
    readonly schema: JsonSchema;
  }[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: JsonSchema }> };
  readonly responses: Record<string, unknown>;
}

const DOCUMENT = describeApi(ROUTES, '1.2.3') as unknown as Document;
const REFERENCE = readFileSync(
  new URL('../../../docs/reference/admin-api.md', import.meta.url),
  'utf8',
);

function operation(method: string, path: string): Operation {
  const found = DOCUMENT.paths[path]?.[method];
  assert.ok(found, `${method} ${path} is described`);
  return found;
}

test('describeApi() describes every route once, with parameters, body and answers', () => {
  assert.equal(DOCUMENT.openapi, '3.1.0');
  const operations = Object.values(DOCUMENT.paths).flatMap((methods) => Object.values(methods));
  assert.equal(operations.length, ROUTES.length);
  assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, ROUTES.length);
  for (const route of ROUTES) {
    const {
      parameters,
      requestBody,
      responses: answers,
    } = operation(route.method.toLowerCase(), route.path);
    const names = parameters
      .filter((parameter) => parameter.in === 'query')
      .map(({ name }) => name);
    assert.deepEqual(names, Object.keys(route.query.entries));
    assert.equal(requestBody === undefined, route.body === null);
    assert.deepEqual(Object.keys(answers), [...Object.keys(route.answers), 'default']);
  }
});

test('describeApi() refers only to schemas that are there', () => {
  const text = JSON.stringify(DOCUMENT);
  const names = [...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names) assert.ok(DOCUMENT.components.schemas[name as string], name);
});

const BACKEND = { id: 'a', address: '10.0.0.1', port: 80, region: 'sa' };
const BODIES: readonly unknown[] = [
  BACKEND,
  { ...BACKEND, address: 'fd00::1', app: 'web', country: 'br', weight: 0.5, soft_limit: 0 },
  {
    ...BACKEND,
    check_type: 'http',
    check_port: 81,
    check_path: '/up',
    check_expect: '200-299,404',
  },
  { ...BACKEND, id: 'ü 😀' },
  {},
  [],
  null,
  'text',
  { ...BACKEND, id: '' },
  { ...BACKEND, id: ' a' },
  { ...BACKEND, id: 'a\n' },
  { ...BACKEND, id: 7 },
  { ...BACKEND, id: 'x'.repeat(129) },
  { ...BACKEND, address: '10.0.0' },
  { ...BACKEND, address: 'example.test' },
  { ...BACKEND, port: 0 },
  { ...BACKEND, port: 65_536 },
  { ...BACKEND, port: 1.5 },
  { ...BACKEND, port: '80' },
  { ...BACKEND, region: 'South America' },
  { ...BACKEND, app: '*' },
  { ...BACKEND, app: 'a,b' },
  { ...BACKEND, country: 'BRA' },
  { ...BACKEND, weight: -1 },
  { ...BACKEND, hard_limit: 2 ** 31 },
  { ...BACKEND, check_type: 'ping' },
  { ...BACKEND, check_path: 'up' },
  { ...BACKEND, check_expect: '99' },
  { ...BACKEND, wg_ip: '10.0.0.1' },
];

test('describeApi() and the server judge bodies alike', () => {
  const judged = { yes: 0, no: 0 };
  for (const [method, path, bodies] of [
    ['post', '/api/backends', BODIES],
    [
      'patch',
      '/api/backends/{id}',
      [
        ...[{ enabled: true }, { removed: false, weight: 2 }, { soft_limit: 1, hard_limit: 0 }],
        ...[{ enabled: 1 }, { weight: '2' }, { soft_limit: null }, { healthy: true }, [], {}],
      ],
    ],
    [
      'put',
      '/api/backends/{id}/drain',
      [
        ...[{}, { timeout_seconds: 0 }, { timeout_seconds: 1.5, rate: 0.1 }],
        ...[{ rate: 0, timeout_seconds: 1 }, { timeout_seconds: -1 }, { timeout: 1 }, null],
      ],
    ],
  ] as const) {
    const schema = operation(method, path).requestBody?.content['application/json']?.schema;
    const route = ROUTES.find((row) => row.path === path && row.method.toLowerCase() === method);
    assert.ok(schema && route?.body);
    for (const body of bodies) {
      const success: boolean = v.safeParse(route.body, body).success;
      assert.equal(isValid(schema, body), success, `${method} ${JSON.stringify(body)}`);
      judged[success ? 'yes' : 'no']++;
    }
  }
  assert.ok(judged.yes >= 7 && judged.no >= 25, JSON.stringify(judged));
});

test('describeApi() and the server judge parameters alike', () => {
  const cases: Record<string, readonly string[]> = {
    limit: ['1', '1000', '0', '1001', '-1', '1.5', 'x', ''],
    offset: ['0', '9999', '10000', '65535', '65536'],
    order: ['bytes', 'age', 'size'],
    country: ['BR', 'br', 'none', 'BRA', ''],
    app: ['web', '*', 'a b', ''],
    backend: ['a', ' a', ''],
    excluded: ['true', 'false', 'yes'],
    status: ['true', 'false', '1'],
    recent: ['0', '1000', '1001'],
    purge: ['true', 'TRUE'],
    ip: ['8.8.8.8', '::1', '8.8.8', 'x'],
    match: ['x', '', 'x'.repeat(128), 'x'.repeat(129)],
    region: ['sa', 'SA', ''],
  };
  let checked = 0;
  for (const route of ROUTES) {
    for (const { name, in: where, schema } of operation(route.method.toLowerCase(), route.path)
      .parameters) {
      if (where !== 'query') continue;
      const texts = cases[name];
      assert.ok(texts, `a case for ${name}`);
      const entry = (route.query.entries as Record<string, v.GenericSchema>)[name];
      for (const text of texts) {
        // How a client of the description writes numbers and booleans.
        const isNumber = schema.type === 'integer' && /^-?\d+(\.\d+)?$/.test(text);
        const isBoolean = schema.type === 'boolean' && /^(true|false)$/.test(text);
        const value = isNumber || isBoolean ? JSON.parse(text) : text;
        const { success } = v.safeParse(entry as v.GenericSchema, text);
        assert.equal(isValid(schema, value), success, `${route.path} ${name}=${text}`);
        checked++;
      }
    }
  }
  assert.ok(checked > 60, String(checked));
});

/** Names of all fields of a schema, those of nested ones too. */
function fieldNames(schema: unknown): string[] {
  const { entries, item, wrapped } = schema as {
    entries?: Record<string, unknown>;
    item?: unknown;
    wrapped?: unknown;
  };
  const own = Object.entries(entries ?? {}).flatMap(([name, each]) => [name, ...fieldNames(each)]);
  return [...own, ...[item, wrapped].flatMap((inner) => (inner ? fieldNames(inner) : []))];
}

test('docs/reference/admin-api.md names every path, parameter, field, event and problem', () => {
  const missing: string[] = [];
  const want = (name: string): void => {
    if (!REFERENCE.includes(`\`${name}\``)) missing.push(name);
  };
  for (const { path, query, body } of ROUTES) {
    if (!REFERENCE.includes(path)) missing.push(path);
    for (const name of Object.keys(query.entries)) {
      if (!REFERENCE.includes(`\`${name}\``) && !REFERENCE.includes(`?${name}=`))
        missing.push(name);
    }
    for (const name of Object.keys(body?.entries ?? {})) want(name);
  }
  for (const schema of Object.values(responses)) for (const name of fieldNames(schema)) want(name);
  for (const name of [...Object.keys(EVENT_TYPES), ...Object.keys(PROBLEMS)]) want(name);
  assert.deepEqual(missing, []);
});
