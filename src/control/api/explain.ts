// GET /api/explain: what `edgeproxy explain` says, with the load, health and breakers of this moment and the client's
// binding.

import type * as v from 'valibot';
import { ProxyError } from '../../base/errors.ts';
import { openAccessList } from '../../route/access-list.ts';
import { peekBinding } from '../../route/client-table.ts';
import { openGeoTable } from '../../route/geo-table.ts';
import { createSelector, type Selector, setSelectorTime, useSnapshot } from '../../route/select.ts';
import { monotonicMs } from '../../sys/clock.ts';
import { parseAddress, type SocketAddress } from '../../sys/sockaddr.ts';
import { accessVerdict } from '../access-verdict.ts';
import {
  type ExplainSources,
  type Explanation,
  explainAddress,
  explanationJson,
} from '../explain.ts';
import { ApiProblem } from './problem.ts';
import type { explainQuery } from './request-schemas.ts';
import type * as schemas from './response-schemas.ts';
import type { Answer, ApiRequest } from './router.ts';
import type { Api } from './server.ts';

type Body = v.InferOutput<typeof schemas.explanation>;

const NOTE = 'Load is that of this moment; among equals each worker has its own turns';
/** Weight 0 takes no new clients, but keeps those that are bound. */
const BINDING_HOLDS: readonly string[] = ['', 'weight 0'];

/** One for all requests: it takes 3 MB. */
const selectors = new WeakMap<Api, Selector>();

/** With all that the workers' selectors know but their turns. */
function selectorOf(api: Api): Selector {
  const { backendState, config } = api.sources;
  let selector = selectors.get(api);
  selector ??= createSelector(backendState, 1, { rampMs: config.slowStartSecs * 1000 });
  selectors.set(api, selector);
  const { snapshot } = api;
  if (snapshot !== null && selector.snapshot !== snapshot) useSnapshot(selector, snapshot);
  return selector;
}

/** The access list in force says of a client; an app without a listener here has no rows of its own in it. */
function accessOf({ sources }: Api, app: string): ExplainSources['access'] {
  const { pool, publisher, accessTable } = sources;
  const list = openAccessList(pool.common?.access ?? new SharedArrayBuffer(0));
  return (words, country) =>
    accessVerdict(accessTable(), list, publisher.appIndex(app), words, country);
}

/** The backend that the client is bound to at a listener of this app. */
function bindingOf(
  api: Api,
  selector: Selector,
  { words, family }: Pick<SocketAddress, 'family' | 'words'>,
  explanation: Explanation,
  nowMs: number,
): Body['binding'] {
  const { publisher, clients, config } = api.sources;
  const address = family === 4 ? [0, 0, 0xffff, words[3]] : words;
  const key = [...address, publisher.appIndex(explanation.app)];
  const binding = peekBinding(clients, key, nowMs, config.bindingTtlSecs * 1000);
  const index = (binding & 0xffff) - 1;
  const incarnation = binding >>> 16;
  const id = index < 0 ? undefined : publisher.backendId(index);
  if (id === undefined || selector.snapshot?.incarnation[index] !== incarnation) return null;
  const bound = explanation.candidates.find(({ candidate }) => candidate.index === index);
  const usable = bound !== undefined && BINDING_HOLDS.includes(bound.candidate.excluded);
  return { backend: id, usable };
}

export function getExplanation({
  api,
  query,
}: ApiRequest<v.InferOutput<typeof explainQuery>, undefined>): Answer {
  const { publisher, pool, config, epochMs } = api.sources;
  const address = parseAddress(query.ip);
  const geo = pool.common?.geo;
  if (address === null || geo === undefined) {
    const errors = [{ field: 'ip', value: query.ip, allowed: 'an IPv4 or IPv6 address' }];
    throw new ApiProblem('invalid-query', `ip is "${query.ip}", which is no address`, { errors });
  }
  const nowMs = Math.floor(monotonicMs() - epochMs);
  const selector = selectorOf(api);
  setSelectorTime(selector, nowMs);
  const sources = {
    selector,
    publisher,
    backends: publisher.rows,
    geo: openGeoTable(geo),
    pop: { region: config.region, country: config.country },
    access: accessOf(api, query.app),
    accessDryRun: config.accessDryRun,
    paths: (id: string) => api.sources.paths?.backend(id) ?? null,
  };
  let explanation: Explanation;
  try {
    explanation = explainAddress(sources, address, query.app);
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    throw new ApiProblem('app-unknown', error.message);
  }
  const binding = bindingOf(api, selector, address, explanation, nowMs);
  const json = explanationJson(explanation, NOTE);
  // Whom the access list turns away gets no backend, bound or not.
  const turnedAway = !explanation.access.allowed && !config.accessDryRun;
  const bound = binding?.usable && !turnedAway ? binding.backend : null;
  const body: Body = {
    ...json,
    ...(bound === null
      ? {}
      : { choice: bound, reason: `the client is bound to it (without: ${json.choice ?? 'none'})` }),
    binding,
    routing_version: publisher.version,
    total: json.candidates.length,
    candidates: json.candidates.slice(0, query.limit),
  };
  return { status: 200, body };
}
