// Finds the route of a request and answers it: 404 and 405, the checked query and body, JSON, HEAD, ETags, and everything
// thrown as problem details.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type * as v from 'valibot';
import { errorMessage } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { readBody, readQuery } from './body.ts';
import { ApiProblem } from './problem.ts';
import type { Api } from './server.ts';

type Fields = v.GenericSchema<unknown, unknown> & { readonly entries: Record<string, unknown> };

export interface ApiRequest<Query, Body> {
  readonly api: Api;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Decoded variable parts of the path. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly body: Body;
}

export interface Answer {
  readonly status: number;
  /** Absent: no content. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** The same until the program is updated: it gets an ETag. */
  readonly isStatic?: true;
}

/** null: the handler writes the response itself. */
type Handler<Query, Body> = (
  input: ApiRequest<Query, Body>,
) => Answer | null | Promise<Answer | null>;

/** One method of one path; openapi.ts describes it from the same object. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** `/api/backends/{id}` */
  readonly path: string;
  readonly summary: string;
  readonly query: Fields;
  readonly body: Fields | null;
  /** Names of response schemas by status; null: no content. */
  readonly answers: Readonly<Record<number, string | null>>;
  readonly handle: Handler<unknown, unknown>;
}

/** Ties the handler's query and body to their schemas. */
export function route<Query extends Fields, Body extends Fields | null>(row: {
  readonly method: Route['method'];
  readonly path: string;
  readonly summary: string;
  readonly query: Query;
  readonly body: Body;
  readonly answers: Route['answers'];
  readonly handle: Handler<
    v.InferOutput<Query>,
    Body extends Fields ? v.InferOutput<Body> : undefined
  >;
}): Route {
  return row as unknown as Route;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new ApiProblem('bad-request', `"${part}" is not percent-encoded UTF-8`);
  }
}

/** The variable parts of `path` if it is of the form `template`, else null. */
function matchPath(template: string, path: string): Record<string, string> | null {
  const wanted = template.split('/');
  const given = path.split('/');
  if (wanted.length !== given.length) return null;
  const params: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    if (name === undefined) {
      if (part !== given[at]) return null;
    } else if (given[at] === '') return null;
    else params[name] = decoded(given[at] as string);
  }
  return params;
}

function findRoute(
  routes: readonly Route[],
  method: string,
  path: string,
): { route: Route; params: Record<string, string> } {
  const allowed: string[] = [];
  for (const candidate of routes) {
    const params = matchPath(candidate.path, path);
    if (params === null) continue;
    if (candidate.method === method || (candidate.method === 'GET' && method === 'HEAD')) {
      return { route: candidate, params };
    }
    allowed.push(...(candidate.method === 'GET' ? ['GET', 'HEAD'] : [candidate.method]));
  }
  if (allowed.length === 0) {
    throw new ApiProblem('not-found', `No path "${path}"; /api/openapi.json lists them all`);
  }
  const list = allowed.join(', ');
  throw new ApiProblem('method-not-allowed', `${method} ${path}; allowed: ${list}`, {
    headers: { allow: list },
  });
}

function send(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  const { status, body, isStatic } = answer;
  const headers: Record<string, string> = {
    'x-content-type-options': 'nosniff',
    'cache-control': isStatic ? 'no-cache' : 'no-store',
    ...answer.headers,
  };
  if (body === undefined) {
    response.writeHead(status, headers).end();
    return;
  }
  const text = `${JSON.stringify(body)}\n`;
  if (isStatic) {
    const { createHash } = process.getBuiltinModule('node:crypto');
    headers.etag = `"${createHash('sha1').update(text).digest('base64url')}"`;
    if (request.headers['if-none-match']?.includes(headers.etag)) {
      response.writeHead(304, headers).end();
      return;
    }
  }
  headers['content-type'] ??= 'application/json; charset=utf-8';
  headers['content-length'] = String(Buffer.byteLength(text));
  // Node leaves the body of an answer to HEAD out.
  response.writeHead(status, headers).end(text);
}

/** Answers with problem details. */
export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: ApiProblem,
): void {
  const type = { 'content-type': 'application/problem+json; charset=utf-8' };
  send(request, response, { status, body, headers: { ...headers, ...type } });
}

function failed(
  request: IncomingMessage,
  response: ServerResponse,
  error: unknown,
  logger: Logger,
): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  if (error instanceof ApiProblem) {
    sendProblem(request, response, error);
    return;
  }
  const stack = error instanceof Error ? error.stack : undefined;
  const reason = errorMessage(error);
  logger.error('A request to the admin API failed', { path: request.url, reason, stack });
  sendProblem(request, response, new ApiProblem('internal', 'The log says more'));
}

/** Answers one request, whatever happens. */
export async function answerRequest(
  api: Api,
  routes: readonly Route[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const [path = '/', search = ''] = (request.url ?? '/').split('?', 2);
    const { route: found, params } = findRoute(routes, request.method ?? 'GET', path);
    const query = readQuery(new URLSearchParams(search), found.query);
    const body = found.body === null ? undefined : await readBody(request, found.body);
    const answer = await found.handle({ api, request, response, params, query, body });
    if (answer !== null) send(request, response, answer);
  } catch (error) {
    failed(request, response, error, api.sources.logger);
  }
}
