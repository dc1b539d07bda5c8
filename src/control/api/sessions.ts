// GET /api/sessions: pages of the open sessions, those with the most bytes or the oldest first.

import type * as v from 'valibot';
import { countryCode, countryIndex } from '../../route/regions.ts';
import { tierOf } from '../../route/tier-plan.ts';
import { monotonicMs } from '../../sys/clock.ts';
import { formatAddress, isMapped } from '../../sys/sockaddr.ts';
import { type OpenSession, type SessionFilter, scanSessions } from '../session-scan.ts';
import { unknownBackend } from './backends.ts';
import { ApiProblem } from './problem.ts';
import { SESSIONS_END_MAX, type sessionsQuery } from './request-schemas.ts';
import type * as schemas from './response-schemas.ts';
import type { Answer, ApiRequest } from './router.ts';
import type { Api } from './server.ts';

type Query = v.InferOutput<typeof sessionsQuery>;
type SessionView = v.InferOutput<typeof schemas.sessionList>['sessions'][number];

function backendFilter({ sources: { publisher } }: Api, id: string): number {
  const index = publisher.backendIndex(id);
  if (index !== undefined) return index;
  throw unknownBackend(
    id,
    publisher.rows.map((row) => row.id),
  );
}

function appFilter({ sources: { publisher } }: Api, name: string): number {
  // Not appIndex(), which gives an index to any name.
  for (let index = 0; ; index++) {
    const known = publisher.appName(index);
    if (known === name) return index;
    if (known === undefined) {
      throw new ApiProblem('app-unknown', `Neither a listener nor a backend names app "${name}"`);
    }
  }
}

function countryFilter(code: string): number {
  const index = code === 'none' ? 0 : countryIndex(code);
  if (index !== 0 || code === 'none') return index;
  const allowed = 'an ISO 3166-1 alpha-2 country code, or none';
  const errors = [{ field: 'country', value: code, allowed }];
  throw new ApiProblem('invalid-query', `No country has the code "${code}"`, { errors });
}

function filterOf(api: Api, { backend, app, country }: Query): SessionFilter {
  return {
    backend: backend === undefined ? undefined : backendFilter(api, backend),
    app: app === undefined ? undefined : appFilter(api, app),
    country: country === undefined ? undefined : countryFilter(country),
  };
}

function clientAddress([w0, w1, w2, w3]: OpenSession['words']): string {
  const words = [w0 >>> 0, w1 >>> 0, w2 >>> 0, w3 >>> 0];
  return formatAddress(isMapped(w0, w1, w2) ? 4 : 6, words);
}

/** The tier that the backend is in for this client by the routing data of now. */
function tierNow({ snapshot }: Api, { backend, country }: OpenSession): number | null {
  if (snapshot === null || backend < 0 || backend >= snapshot.backendEnd) return null;
  const region = snapshot.region[backend] as number;
  return tierOf(snapshot, region, snapshot.country[backend] as number, country);
}

function seconds(ms: number): number {
  return Math.max(0, Math.round(ms)) / 1000;
}

function viewSession(api: Api, session: OpenSession, nowMs: number): SessionView {
  const { publisher } = api.sources;
  const accepted = new Date(Date.now() - (nowMs - session.acceptedAt));
  return {
    // No other session of this run has it.
    id: `${session.worker}-${session.slot}-${Math.floor(session.acceptedAt).toString(36)}`,
    worker: session.worker,
    client: { address: clientAddress(session.words), port: session.port },
    country: countryCode(session.country) || null,
    app: publisher.appName(session.app) ?? '*',
    backend: session.backend < 0 ? null : (publisher.backendId(session.backend) ?? null),
    tier: tierNow(api, session),
    state: session.isConnecting ? 'connecting' : 'relaying',
    accepted_at: accepted.toISOString(),
    age_seconds: seconds(nowMs - session.acceptedAt),
    idle_seconds: seconds(nowMs - session.activityAt),
    bytes_up: session.bytesUp,
    bytes_down: session.bytesDown,
  };
}

export async function listSessions({ api, query }: ApiRequest<Query, undefined>): Promise<Answer> {
  const { limit, offset, order } = query;
  if (offset + limit > SESSIONS_END_MAX) {
    const allowed = `offset + limit up to ${SESSIONS_END_MAX}`;
    const errors = [{ field: 'offset', value: offset, allowed }];
    throw new ApiProblem('invalid-query', `offset is ${offset}, allowed: ${allowed}`, { errors });
  }
  const found = await scanSessions(api.sources.pool, filterOf(api, query), order, offset + limit);
  const nowMs = monotonicMs();
  const sessions = found.sessions.slice(offset).map((session) => viewSession(api, session, nowMs));
  return { status: 200, body: { total: found.total, limit, offset, sessions } };
}
