// `edgeproxy explain IP`: which backend a client at this address would get, and why each other one
// would not. The tiers, scores and order come from the data plane's own selection code; only the
// load is missing, because this reads routing.db and not a running process.

import { ProxyError } from '../base/errors.ts';
import { nearestNames } from '../base/nearest.ts';
import { type ConfigFlags, loadConfig } from '../config.ts';
import { compileAccess } from '../control/access-rows.ts';
import { loadGeoTable, loadRegionMap } from '../control/geo-load.ts';
import { createPublisher, type Publisher } from '../control/publish.ts';
import { closeRoutingDb, openRoutingDb, readRouting } from '../control/routing-db.ts';
import type { RawBackend, RowProblem } from '../control/routing-rows.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import { lookupIPv4, lookupIPv6, openGeoTable } from '../route/geo-table.ts';
import { countryCode, REGION_NONE, type RegionMap } from '../route/regions.ts';
import { type Candidate, createSelector, explainSelection, useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { formatAddress, isMapped, parseAddress } from '../sys/sockaddr.ts';
import { type AccessVerdict, accessVerdict, jsonAccess } from './access.ts';
import { countryName, noCountryReason } from './address-facts.ts';
import { problemText } from './backend.ts';
import { candidateReason, choiceReason, numberText } from './explain-reasons.ts';
import { EXIT_DONE, print, printJson, printProblem, usageError } from './output.ts';
import { formatTable } from './table.ts';

const LOAD_NOTE =
  'Load is 0 for every backend: this reads the routing database, not the running process';

const EXPLAIN_SETTINGS = [
  'dbPath',
  'region',
  'country',
  'geoipPath',
  'regionMapPath',
  'accessDryRun',
] as const;

/** A candidate with the row it stands for and why it is where it is. */
export interface ExplainedCandidate {
  readonly candidate: Candidate;
  readonly backend: RawBackend;
  readonly country: number;
  readonly reason: string;
}

interface Explanation {
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

function lookUp(geoipPath: string | null, words: readonly number[], isV4: boolean): number {
  const [w0, w1, w2, w3] = words as [number, number, number, number];
  const table = openGeoTable(loadGeoTable(geoipPath).buffer);
  return isV4 ? lookupIPv4(table, w3) : lookupIPv6(table, w0, w1, w2, w3);
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
  publisher: Publisher,
  buffer: SharedArrayBuffer,
  backends: readonly RawBackend[],
  app: string,
  country: number,
): ExplainedCandidate[] {
  const selector = createSelector(openBackendState(createBackendState()), 1);
  const snapshot = openSnapshot(buffer);
  useSnapshot(selector, snapshot);
  const byId = new Map(backends.map((backend) => [backend.id, backend]));
  const candidates = explainSelection(selector, publisher.appIndex(app), country);
  const best = candidates.find((candidate) => candidate.order === 0) ?? null;
  return candidates.map((candidate) => {
    const id = publisher.backendId(candidate.index) as string;
    const backend = byId.get(id) as RawBackend;
    const bestId = best && (publisher.backendId(best.index) as string);
    return {
      candidate,
      backend,
      country: snapshot.country[candidate.index] as number,
      reason: candidateReason(candidate, backend, best, bestId),
    };
  });
}

function clientRegion(map: RegionMap, country: number): string | null {
  const region = map.countryRegion[country];
  return region === undefined || region === REGION_NONE ? null : (map.names[region] ?? null);
}

function jsonOf(explanation: Explanation): Record<string, unknown> {
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
    note: LOAD_NOTE,
    candidates: candidates.map(({ candidate, backend, country: backendCountry, reason: why }) => ({
      id: backend.id,
      app: backend.app,
      region: backend.region,
      country: backendCountry === 0 ? null : countryCode(backendCountry),
      tier: candidate.tier,
      // JSON has no Infinity: a score at weight 0 and an unknown distance are null.
      score: Number.isFinite(candidate.score) ? candidate.score : null,
      distance_km: Number.isFinite(candidate.distanceKm) ? candidate.distanceKm : null,
      active: 0,
      soft_limit: backend.softLimit,
      hard_limit: backend.hardLimit,
      weight: backend.weight,
      excluded: candidate.excluded === '' ? null : candidate.excluded,
      reason: why,
    })),
  };
}

function printExplanation(explanation: Explanation): void {
  const { ip, country, noCountry, region, pop, app, access, choice, candidates } = explanation;
  const where = country === 0 ? `none: ${noCountry}` : `${countryName(country)}, region ${region}`;
  print(`Client   ${ip}`);
  print(`Country  ${where}`);
  print(`POP      region ${pop.region}, country ${pop.country ?? 'not set'}`);
  print(`App      ${app === '*' ? 'any' : app}`);
  const dryRun =
    !access.allowed && explanation.accessDryRun ? ', but a dry run only counts it' : '';
  print(`Access   ${access.allowed ? 'allowed' : 'denied'}${dryRun}: ${access.reason}`);
  print(`Choice   ${choice ?? 'none'}: ${explanation.reason}`);
  if (candidates.length > 0) {
    const header = ['', 'BACKEND', 'WHERE', 'TIER', 'SCORE', 'KM', 'RESULT'];
    const rows = candidates.map(({ candidate, backend, country: backendCountry, reason }) => [
      candidate.order === 0 ? '*' : '',
      backend.id,
      `${backend.region}/${countryCode(backendCountry) || '-'}`,
      String(candidate.tier),
      numberText(candidate.score),
      candidate.distanceKm === null ? '' : numberText(Math.round(candidate.distanceKm)),
      reason,
    ]);
    print(`\n${formatTable(header, rows, new Set(['TIER', 'SCORE', 'KM'])).trimEnd()}`);
  }
  print(`\n${LOAD_NOTE}`);
}

export async function explain(ip: string, flags: ConfigFlags): Promise<number> {
  const address = parseAddress(ip);
  if (address === null) {
    throw usageError(`IP is ${JSON.stringify(ip)}, allowed: an IPv4 or IPv6 address`);
  }
  const config = loadConfig(flags, process.env, EXPLAIN_SETTINGS);
  const app = flags.app === undefined ? '*' : String(flags.app);
  const db = openRoutingDb(config.dbPath);
  const { backends, problems: badRows, access: table } = readRouting(db);
  closeRoutingDb(db);
  if (table instanceof ProxyError) throw table;
  checkApp(app, backends);

  const [w0, w1, w2, w3] = address.words;
  const isV4 = address.family === 4 || isMapped(w0, w1, w2);
  const country = lookUp(config.geoipPath, address.words, isV4);
  const regionMap = await loadRegionMap(config.regionMapPath);
  const publisher = createPublisher({
    regionMap,
    popRegion: config.region,
    popCountry: config.country,
    backendState: openBackendState(createBackendState()),
  });
  const problems: RowProblem[] = [...badRows, ...compileAccess(table, new Map()).problems];
  const { buffer } = publisher.publish(backends, problems);
  const candidates = explainCandidates(publisher, buffer, backends, app, country);
  const best = candidates.find(({ candidate }) => candidate.order === 0);
  const mapped = isV4 ? [0, 0, 0xffff, w3] : address.words;
  const access = accessVerdict(table, app, mapped, country);
  const isTurnedAway = !access.allowed && !config.accessDryRun;
  const reason = choiceReason(candidates, app);
  const explanation: Explanation = {
    ip: formatAddress(isV4 ? 4 : 6, isV4 ? [0, 0, 0, w3] : address.words),
    country,
    noCountry: country === 0 ? noCountryReason(isV4, address.words) : null,
    region: clientRegion(regionMap, country),
    pop: { region: config.region, country: config.country },
    app,
    access,
    accessDryRun: config.accessDryRun,
    choice: isTurnedAway ? null : (best?.backend.id ?? null),
    reason: isTurnedAway ? 'the access list denies the client, before any backend counts' : reason,
    candidates,
  };
  if (flags.json) printJson(jsonOf(explanation));
  else printExplanation(explanation);
  for (const problem of problems) printProblem(problemText(problem));
  return EXIT_DONE;
}
