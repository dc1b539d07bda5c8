// As much of JSON Schema 2020-12 as the API's description uses, for tests that hold it to what the server does. A keyword it
// does not know is an error: nothing is taken for valid because it was not understood.

import { isIPv4, isIPv6 } from 'node:net';

export type JsonSchema = Readonly<Record<string, unknown>>;

const FORMATS: Readonly<Record<string, (text: string) => boolean>> = { ipv4: isIPv4, ipv6: isIPv6 };

const TYPES: Readonly<Record<string, (value: unknown) => boolean>> = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  integer: (value) => Number.isInteger(value),
  boolean: (value) => typeof value === 'boolean',
  null: (value) => value === null,
  array: Array.isArray,
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
};

type Check = (limit: never, value: never, schema: JsonSchema) => boolean;

/** By keyword: whether the value, being of the type the keyword is for, keeps it. */
const CHECKS: Readonly<Record<string, Check>> = {
  type: (type: string, value) => TYPES[type]?.(value) ?? false,
  const: (constant, value) => value === constant,
  enum: (list: unknown[], value) => list.includes(value),
  minimum: (limit: number, value) => typeof value !== 'number' || value >= limit,
  exclusiveMinimum: (limit: number, value) => typeof value !== 'number' || value > limit,
  maximum: (limit: number, value) => typeof value !== 'number' || value <= limit,
  minLength: (limit: number, value) =>
    typeof value !== 'string' || (value as string).length >= limit,
  maxLength: (limit: number, value) =>
    typeof value !== 'string' || (value as string).length <= limit,
  pattern: (text: string, value) => typeof value !== 'string' || new RegExp(text).test(value),
  format: (name: string, value) => typeof value !== 'string' || (FORMATS[name]?.(value) ?? false),
  anyOf: (schemas: JsonSchema[], value) => schemas.some((schema) => isValid(schema, value)),
  items: (schema: JsonSchema, value) =>
    !Array.isArray(value) || (value as unknown[]).every((item) => isValid(schema, item)),
  required: (names: string[], value) =>
    !isObject(value) || names.every((name) => Object.hasOwn(value, name)),
  properties: (schemas: Record<string, JsonSchema>, value) =>
    !isObject(value) ||
    Object.entries(schemas).every(
      ([name, schema]) => !Object.hasOwn(value, name) || isValid(schema, value[name]),
    ),
  additionalProperties: (rule: boolean | JsonSchema, value, { properties = {} }) =>
    !isObject(value) ||
    Object.entries(value as object)
      .filter(([name]) => !Object.hasOwn(properties as object, name))
      .every(([, other]) => (typeof rule === 'boolean' ? rule : isValid(rule, other))),
  propertyNames: (schema: JsonSchema, value) =>
    !isObject(value) || Object.keys(value as object).every((name) => isValid(schema, name)),
  minProperties: (limit: number, value) => !isObject(value) || Object.keys(value).length >= limit,
  default: () => true,
};

function isObject(value: unknown): value is Record<string, unknown> {
  return TYPES.object?.(value) ?? false;
}

export function isValid(schema: JsonSchema, value: unknown): boolean {
  return Object.entries(schema).every(([keyword, limit]) => {
    const check = CHECKS[keyword];
    if (check === undefined) throw new Error(`Unknown keyword ${keyword}`);
    return check(limit as never, value as never, schema);
  });
}
