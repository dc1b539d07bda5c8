// POST, PATCH and DELETE of backends: what the commands `edgeproxy backend …` do, through the same code. Each is one commit
// to routing.db, which the proxy then follows as it follows any other writer; the answer waits for that. Nothing here waits
// for a lock inside SQLite: that would stop the control plane.

import { setTimeout as delay } from 'node:timers/promises';
import type * as v from 'valibot';
import { ProxyError } from '../../base/errors.ts';
import { closeRoutingDb, openRoutingDb, type RoutingDb } from '../routing-db.ts';
import {
  addBackend,
  type BackendChanges,
  changeBackend,
  deleteBackend,
  drainBackend,
  undrainBackend,
} from '../routing-edit.ts';
import type { RawBackend } from '../routing-rows.ts';
import { viewBackend, viewContext } from './backend-view.ts';
import { ApiProblem } from './problem.ts';
import type { backendChanges, deleteQuery, drainPlan, newBackend } from './request-schemas.ts';
import type { Answer, ApiRequest } from './router.ts';
import type { Api } from './server.ts';

type NewBackendBody = v.InferOutput<typeof newBackend>;
type ChangesBody = v.InferOutput<typeof backendChanges>;

/** Another writer's commit takes milliseconds. */
const LOCK_RETRY_MS = 10;
const LOCK_WAIT_MS = 2000;
/** The watch sees a commit within 100 ms; more when it has to poll. */
const APPLIED_POLL_MS = 5;
const APPLIED_WAIT_MS = 1000;
/** Primary SQLite result codes, sqlite.org/rescode.html. */
const SQLITE_READONLY = 8;
const SQLITE_CANTOPEN = 14;

function sqliteCode(error: ProxyError): number {
  return ((error.cause as { errcode?: number } | undefined)?.errcode ?? 0) & 0xff;
}

/** A failure of the database as the client may know it. */
function problemOf(error: unknown): unknown {
  if (!(error instanceof ProxyError)) return error;
  switch (error.code) {
    case 'ERR_BACKEND_UNKNOWN':
      return new ApiProblem('backend-unknown', error.message);
    case 'ERR_BACKEND_EXISTS':
      return new ApiProblem('backend-exists', error.message);
    case 'ERR_BACKEND_INVALID':
      return new ApiProblem('invalid-body', error.message, {
        errors: invalidFields(error.message),
      });
    case 'ERR_ROUTING_DB_LOCKED':
      return new ApiProblem('routing-locked', error.message, { headers: { 'retry-after': '1' } });
    default: {
      const code = sqliteCode(error);
      // A file that may not be written, or a directory in which SQLite cannot make its journal.
      const isReadOnly = code === SQLITE_READONLY || code === SQLITE_CANTOPEN;
      return new ApiProblem(isReadOnly ? 'routing-read-only' : 'routing-unusable', error.message);
    }
  }
}

/** Columns by the names that the API has for them. */
const FIELD_NAMES: Readonly<Record<string, string>> = { wg_ip: 'address' };

/** `column is value, reason; …` as addBackend() says it. */
function invalidFields(message: string) {
  const list = message.slice(message.indexOf('": ') + 3).split('; ');
  return list.map((line) => {
    const [, column = '', value = '', allowed = line] =
      /^(\w+) is (.*), (must .*)$/.exec(line) ?? [];
    return {
      field: FIELD_NAMES[column] ?? column,
      value,
      allowed: allowed.replace(/^must be /, ''),
    };
  });
}

/** Runs `work` on the database, again and again while another process holds it. */
async function edit(api: Api, work: (db: RoutingDb) => void): Promise<void> {
  const { dbPath } = api.sources.config;
  const deadline = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      const db = openRoutingDb(dbPath, { writable: true, busyTimeoutMs: 0 });
      try {
        work(db);
      } finally {
        closeRoutingDb(db);
      }
      return;
    } catch (error) {
      const isLocked = error instanceof ProxyError && error.code === 'ERR_ROUTING_DB_LOCKED';
      if (!isLocked || performance.now() > deadline) throw problemOf(error);
    }
    await delay(LOCK_RETRY_MS);
  }
}

function rowOf(api: Api, id: string): RawBackend | undefined {
  return api.sources.publisher.rows.find((row) => row.id === id);
}

/** Waits until the rows in use are as written: what new connections from now on meet. */
async function applied(isThere: () => boolean): Promise<boolean> {
  const deadline = performance.now() + APPLIED_WAIT_MS;
  while (!isThere()) {
    if (performance.now() > deadline) return false;
    await delay(APPLIED_POLL_MS);
  }
  return true;
}

/** The answer to a change of `id`; 202 when it is in the database and not in use yet. */
async function editAnswer(
  api: Api,
  id: string,
  status: number,
  isThere: (row: RawBackend | undefined) => boolean,
): Promise<Answer> {
  const isApplied = await applied(() => isThere(rowOf(api, id)));
  const row = rowOf(api, id);
  return {
    status: isApplied ? status : 202,
    body: {
      applied: isApplied,
      routing_version: api.sources.publisher.version,
      backend: row === undefined ? null : viewBackend(viewContext(api), row),
    },
    headers: { location: `/api/backends/${encodeURIComponent(id)}` },
  };
}

function report(
  { api, request }: ApiRequest<unknown, unknown>,
  action: string,
  backend: string,
  fields: object = {},
): void {
  const from = request.socket.remoteAddress;
  const record = { event: 'backend_edited', action, backend, ...fields, from };
  api.sources.logger.info('The admin API changed a backend', record);
}

export async function postBackend(input: ApiRequest<unknown, NewBackendBody>): Promise<Answer> {
  const { api, body } = input;
  const { id, address, port, app, region, country, weight } = body;
  const check = {
    type: body.check_type,
    port: body.check_port === undefined ? undefined : String(body.check_port),
    path: body.check_path,
    expect: body.check_expect,
  };
  const limits = { softLimit: body.soft_limit, hardLimit: body.hard_limit };
  const backend = { id, address, port, app, region, country, weight, ...limits, check };
  await edit(api, (db) => addBackend(db, backend));
  report(input, 'add', id);
  return editAnswer(api, id, 201, (row) => row !== undefined);
}

/** The columns that a body sets. */
function changeColumns(body: ChangesBody): BackendChanges {
  return {
    ...(body.enabled === undefined ? {} : { healthy: body.enabled }),
    ...(body.removed === undefined ? {} : { deleted: body.removed }),
    ...(body.weight === undefined ? {} : { weight: body.weight }),
    ...(body.soft_limit === undefined ? {} : { softLimit: body.soft_limit }),
    ...(body.hard_limit === undefined ? {} : { hardLimit: body.hard_limit }),
  };
}

export async function patchBackend(input: ApiRequest<unknown, ChangesBody>): Promise<Answer> {
  const { api, body, params } = input;
  const id = params.id as string;
  const changes = changeColumns(body);
  const names = Object.keys(changes) as (keyof BackendChanges)[];
  await edit(api, (db) => changeBackend(db, id, changes));
  report(input, 'change', id, body);
  return editAnswer(api, id, 200, (row) => {
    const isDrained = changes.healthy === true && row?.drain !== null;
    return !isDrained && names.every((name) => row?.[name] === changes[name]);
  });
}

export async function removeBackend(
  input: ApiRequest<v.InferOutput<typeof deleteQuery>, undefined>,
): Promise<Answer> {
  const { api, params, query } = input;
  const id = params.id as string;
  if (query.purge) {
    await edit(api, (db) => deleteBackend(db, id));
    report(input, 'delete', id);
    return editAnswer(api, id, 200, (row) => row === undefined);
  }
  await edit(api, (db) => changeBackend(db, id, { deleted: true }));
  report(input, 'remove', id);
  return editAnswer(api, id, 200, (row) => row?.deleted === true);
}

export async function putDrain(
  input: ApiRequest<unknown, v.InferOutput<typeof drainPlan>>,
): Promise<Answer> {
  const { api, params, body } = input;
  const id = params.id as string;
  const { timeout_seconds: timeout, rate } = body;
  if (rate !== undefined && timeout === undefined) {
    const errors = [
      { field: 'timeout_seconds', value: null, allowed: 'a number, where rate is given' },
    ];
    throw new ApiProblem(
      'invalid-body',
      'rate is the pace after timeout_seconds, which is missing',
      {
        errors,
      },
    );
  }
  const closeAt = timeout === undefined ? null : (Date.now() + Math.round(timeout * 1000)) / 1000;
  const closeRate = rate ?? null;
  await edit(api, (db) => drainBackend(db, id, { closeAt, closeRate }));
  report(input, 'drain', id, body);
  return editAnswer(api, id, 200, (row) => {
    return row?.drain?.closeAt === closeAt && row.drain.closeRate === closeRate;
  });
}

export async function deleteDrain(input: ApiRequest<unknown, undefined>): Promise<Answer> {
  const { api, params } = input;
  const id = params.id as string;
  await edit(api, (db) => undrainBackend(db, id, false));
  report(input, 'undrain', id);
  return editAnswer(api, id, 200, (row) => row !== undefined && row.drain === null);
}
