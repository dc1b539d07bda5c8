// Requests to the API. The token is asked for once, when an answer is 401, and kept for this tab only.

import { askToken } from './dialogs.js';

const TOKEN = 'edgeproxy-token';

/** What the API says is wrong. */
export class Problem extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** One question at a time, whoever meets a 401. @type {Promise<boolean> | null} */
let asking = null;

/** Asks until there is an answer or the person gives up. */
async function newToken() {
  const hadOne = sessionStorage.getItem(TOKEN) !== null;
  const token = await askToken(hadOne);
  if (token === null) return false;
  sessionStorage.setItem(TOKEN, token);
  return true;
}

/** @param {string} path @param {RequestInit} options */
function send(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = new Headers(options.headers);
  if (token !== null) headers.set('authorization', `Bearer ${token}`);
  return fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit' });
}

/** @param {Response} response */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  /** @type {{ field: string, value: unknown, allowed: string }[]} */
  const errors = body.errors ?? [];
  const what = errors.map(({ field, allowed }) => `${field}: ${allowed}`).join('; ');
  const text = [body.title, what || body.detail].filter(Boolean).join(': ');
  return new Problem(response.status, text || `The answer is ${response.status}`);
}

/**
 * A response that is no failure; else it throws a Problem, or what fetch throws.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, options = {}) {
  for (;;) {
    const used = sessionStorage.getItem(TOKEN);
    const response = await send(path, options);
    if (response.ok) return response;
    if (response.status !== 401) throw await problemOf(response);
    // Another request may have got a new token meanwhile.
    if (sessionStorage.getItem(TOKEN) !== used) continue;
    asking ??= newToken().finally(() => {
      asking = null;
    });
    if (!(await asking)) throw new Problem(401, 'A token is needed');
  }
}

/**
 * @template Body
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Body>}
 */
export async function ask(path, options = {}) {
  return (await request(path, options)).json();
}

/**
 * One change of a backend, in use when it resolves.
 * @param {'PATCH' | 'PUT' | 'DELETE'} method
 * @param {string} id
 * @param {string} [below] of the backend: `/drain`
 * @param {Readonly<Record<string, unknown>>} [body]
 * @returns {Promise<{ applied: boolean, backend: Api.Backend | null }>}
 */
export function change(method, id, below = '', body) {
  const json = { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const path = `/api/backends/${encodeURIComponent(id)}${below}`;
  return ask(path, { method, ...(body === undefined ? {} : json) });
}
