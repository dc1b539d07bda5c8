// Which backend a client at an address would get, and why each other one would not: country, tier, score and order of every
// candidate from the data plane's own selection code. `edgeproxy explain` asks with the rows of routing.db and no load, the
// admin API with what the workers use.

import { ProxyError } from '../base/errors.ts';
import { nearestNames } from '../base/nearest.ts';
import { type Candidate, explainSelection } from '../route/candidates.ts';
import { type GeoTable, lookupIPv4, lookupIPv6 } from '../route/geo-table.ts';
import { countryCode, REGION_NONE, type RegionMap } from '../route/regions.ts';
import type { Selector } from '../route/select.ts';
import { formatAddress, isMapped, type SocketAddress } from '../sys/sockaddr.ts';
import { type AccessVerdict, jsonAccess } from './access-verdict.ts';
import { noCountryReason } from './address-facts.ts';
import { candidateReason, choiceReason } from './explain-reasons.ts';
import { type BackendPath, pathJson } from './path-view.ts';
import type { Publisher } from './publish.ts';
import type { RawBackend } from './routing-rows.ts';

/** A candidate with the row it stands for and why it is where it is. */
export interface ExplainedCandidate {
  readonly candidate: Candidate;
  readonly backend: RawBackend;
  /** Country index. */
  readonly country: number;
  readonly active: number;
  /** null: no peer of the mesh leads to it, or nobody knows. */
  readonly path: BackendPath | null;
  readonly reason: string;
}

export interface Explanation {
  readonly ip: string;
  /** Country index, 0 for none; `noCountry` says why. */
  readonly country: number;
  readonly noCountry: string | null;
  readonly region: string | null;
  readonly pop: { readonly region: string; readonly country: string | null };
  readonly app: string;
  readonly access: AccessVerdict;
  /** Denied clients are only counted. */
  readonly accessDryRun: boolean;
  readonly choice: string | null;
  readonly reason: string;
  readonly candidates: readonly ExplainedCandidate[];
}

export interface ExplainSources {
  /** With the snapshot to explain. */
  readonly selector: Selector;
  readonly publisher: Publisher;
  readonly backends: readonly RawBackend[];
  readonly geo: GeoTable;
  readonly pop: Explanation['pop'];
  /** What the access list says; `words`: IPv4 as IPv4-mapped. */
  readonly access: (words: readonly number[], country: number) => AccessVerdict;
  readonly accessDryRun: boolean;
  /** Of a running proxy: the path to a backend. */
  readonly paths?: (id: string) => BackendPath | null;
}

type Address = Pick<SocketAddress, 'family' | 'words'>;

function isIPv4Client({ family, words: [w0, w1, w2] }: Address): boolean {
  return family === 4 || isMapped(w0, w1, w2);
}

function countryOf(geo: GeoTable, address: Address): number {
  const [w0, w1, w2, w3] = address.words;
  return isIPv4Client(address) ? lookupIPv4(geo, w3) : lookupIPv6(geo, w0, w1, w2, w3);
}

/** A name nobody serves is more likely a slip than a plan. */
function checkApp(app: string, backends: readonly RawBackend[]): void {
  const known = new Set(backends.map((backend) => backend.app));
  if (app === '*' || known.has(app)) return;
  const near = nearestNames(app, known);
  const hint = near.length > 0 ? `similar apps are ${near.join(', ')}` : 'no app is similar';
  throw new ProxyError('ERR_APP_UNKNOWN', `No backend serves app "${app}": ${hint}`);
}

function explainCandidates(
  { selector, publisher, backends, paths }: ExplainSources,
  app: string,
  country: number,
): ExplainedCandidate[] {
  const { snapshot, state } = selector;
  const byId = new Map(backends.map((backend) => [backend.id, backend]));
  const candidates = explainSelection(selector, publisher.appIndex(app), country);
  const best = candidates.find((candidate) => candidate.order === 0) ?? null;
  const bestId = best && (publisher.backendId(best.index) as string);
  return candidates.flatMap((candidate) => {
    const backend = byId.get(publisher.backendId(candidate.index) as string);
    if (backend === undefined || snapshot === null) return [];
    const path = paths?.(backend.id) ?? null;
    return {
      candidate,
      backend,
      country: snapshot.country[candidate.index] as number,
      active: Atomics.load(state.active, candidate.index),
      path,
      reason: candidateReason(candidate, backend, best, bestId, path?.reason ?? ''),
    };
  });
}

function clientRegion(map: RegionMap, country: number): string | null {
  const region = map.countryRegion[country];
  return region === undefined || region === REGION_NONE ? null : (map.names[region] ?? null);
}

/** Throws a ProxyError ERR_APP_UNKNOWN; app `*` is any. */
export function explainAddress(
  sources: ExplainSources,
  address: Address,
  app: string,
): Explanation {
  checkApp(app, sources.backends);
  const isV4 = isIPv4Client(address);
  const country = countryOf(sources.geo, address);
  const candidates = explainCandidates(sources, app, country);
  const best = candidates.find(({ candidate }) => candidate.order === 0);
  const w3 = address.words[3];
  const access = sources.access(isV4 ? [0, 0, 0xffff, w3] : address.words, country);
  const isTurnedAway = !access.allowed && !sources.accessDryRun;
  const reason = choiceReason(candidates, app);
  return {
    ip: formatAddress(isV4 ? 4 : 6, isV4 ? [0, 0, 0, w3] : address.words),
    country,
    noCountry: country === 0 ? noCountryReason(isV4, address.words) : null,
    region: clientRegion(sources.publisher.regionMap, country),
    pop: sources.pop,
    app,
    access,
    accessDryRun: sources.accessDryRun,
    choice: isTurnedAway ? null : (best?.backend.id ?? null),
    reason: isTurnedAway ? 'the access list denies the client, before any backend counts' : reason,
    candidates,
  };
}

/** As `explain --json` and the admin API show it. */
export function explanationJson(explanation: Explanation, note: string) {
  const { ip, country, noCountry, region, pop, app, access, choice, reason, candidates } =
    explanation;
  return {
    ip,
    country: country === 0 ? null : countryCode(country),
    country_reason: noCountry,
    region,
    pop,
    app,
    access: {
      allowed: access.allowed,
      dry_run: explanation.accessDryRun,
      row: access.row && jsonAccess(access.row),
      reason: access.reason,
    },
    choice,
    reason,
    note,
    candidates: candidates.map(candidateJson),
  };
}

function candidateJson({ candidate, backend, country, active, path, reason }: ExplainedCandidate) {
  const { tier, score, distanceKm, excluded } = candidate;
  return {
    id: backend.id,
    app: backend.app,
    region: backend.region,
    country: country === 0 ? null : countryCode(country),
    tier,
    // JSON has no Infinity: a score at weight 0 and an unknown distance are null.
    score: Number.isFinite(score) ? score : null,
    distance_km: distanceKm !== null && Number.isFinite(distanceKm) ? distanceKm : null,
    active,
    soft_limit: backend.softLimit,
    hard_limit: backend.hardLimit,
    weight: backend.weight,
    excluded: excluded === '' ? null : excluded,
    path: pathJson(path),
    reason,
  };
}
