// `edgeproxy explain IP`: which backend a client at this address would get, and why each other one would not
// (control/explain.ts). Only the load is missing, because this reads routing.db and not a running process.

import { ProxyError } from '../base/errors.ts';
import { type ConfigFlags, loadConfig } from '../config.ts';
import { ANY, compileAccess } from '../control/access-rows.ts';
import { accessVerdict } from '../control/access-verdict.ts';
import { countryName } from '../control/address-facts.ts';
import { type Explanation, explainAddress, explanationJson } from '../control/explain.ts';
import { numberText } from '../control/explain-reasons.ts';
import { loadGeoTable, loadRegionMap } from '../control/geo-load.ts';
import { createPublisher } from '../control/publish.ts';
import { closeRoutingDb, openRoutingDb, readRouting } from '../control/routing-db.ts';
import type { RowProblem } from '../control/routing-rows.ts';
import { openAccessList } from '../route/access-list.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import { openGeoTable } from '../route/geo-table.ts';
import { countryCode } from '../route/regions.ts';
import { createSelector, useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { parseAddress } from '../sys/sockaddr.ts';
import { problemText } from './backend.ts';
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

  const state = openBackendState(createBackendState());
  const publisher = createPublisher({
    regionMap: await loadRegionMap(config.regionMapPath),
    popRegion: config.region,
    popCountry: config.country,
    backendState: state,
  });
  const problems: RowProblem[] = [...badRows, ...compileAccess(table, new Map()).problems];
  const selector = createSelector(state, 1);
  useSnapshot(selector, openSnapshot(publisher.publish(backends, problems).buffer));
  // Only the app that is asked for needs a place in the list.
  const index = app === ANY ? 0 : 1;
  const list = openAccessList(compileAccess(table, new Map([[app, index]])).buffer);
  const explanation = explainAddress(
    {
      selector,
      publisher,
      backends,
      geo: openGeoTable(loadGeoTable(config.geoipPath).buffer),
      pop: { region: config.region, country: config.country },
      access: (words, country) => accessVerdict(table, list, index, words, country),
      accessDryRun: config.accessDryRun,
    },
    address,
    app,
  );
  if (flags.json) printJson(explanationJson(explanation, LOAD_NOTE));
  else printExplanation(explanation);
  for (const problem of problems) printProblem(problemText(problem));
  return EXIT_DONE;
}
