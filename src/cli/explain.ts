// `edgeproxy explain IP`: which backend a client at this address would get, and why each other one would not
// (control/explain.ts). It reads routing.db and not a running process, so load, health and paths are missing; with --live it
// asks the running proxy, which knows them.

import { ProxyError } from '../base/errors.ts';
import { type Config, type ConfigFlags, loadConfig } from '../config.ts';
import { ANY, compileAccess } from '../control/access-rows.ts';
import { accessVerdict } from '../control/access-verdict.ts';
import { explainAddress, explanationJson } from '../control/explain.ts';
import { loadGeoTable, loadRegionMap } from '../control/geo-load.ts';
import { createPublisher } from '../control/publish.ts';
import { closeRoutingDb, openRoutingDb, readRouting } from '../control/routing-db.ts';
import type { RowProblem } from '../control/routing-rows.ts';
import { openAccessList } from '../route/access-list.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import { openGeoTable } from '../route/geo-table.ts';
import { createSelector, useSnapshot } from '../route/select.ts';
import { openSnapshot } from '../route/snapshot.ts';
import { parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { problemText } from './backend.ts';
import { printExplanation, type ShownExplanation } from './explain-text.ts';
import { EXIT_DONE, printJson, printProblem, usageError } from './output.ts';

const LOAD_NOTE =
  'Load is 0 for every backend: this reads the routing database, not the running process (--live does)';

const EXPLAIN_SETTINGS = [
  'dbPath',
  'region',
  'country',
  'geoipPath',
  'regionMapPath',
  'accessDryRun',
] as const;
/** The most that the admin API gives. */
const CANDIDATES_ASKED = 1000;

/** From routing.db alone: no load, and nothing of what a running proxy has found out. */
async function readExplanation(
  address: Pick<SocketAddress, 'family' | 'words'>,
  app: string,
  config: Pick<Config, (typeof EXPLAIN_SETTINGS)[number]>,
): Promise<{ shown: ShownExplanation; problems: readonly RowProblem[] }> {
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
  return { shown: explanationJson(explanation, LOAD_NOTE), problems };
}

/** From the running proxy, which reports bad rows elsewhere. */
async function askExplanation(
  ip: string,
  app: string,
  flags: ConfigFlags,
): Promise<ShownExplanation> {
  const { askedAddress, askJson, unreachable } = await import('./admin-client.ts');
  const address = askedAddress(flags);
  if (typeof address === 'string') throw unreachable(address);
  const query = new URLSearchParams({ ip, app, limit: String(CANDIDATES_ASKED) });
  return await askJson<ShownExplanation>(address, `/api/explain?${query}`).catch((error) => {
    throw unreachable(address, error);
  });
}

export async function explain(ip: string, flags: ConfigFlags): Promise<number> {
  const address = parseAddress(ip);
  if (address === null) {
    throw usageError(`IP is ${JSON.stringify(ip)}, allowed: an IPv4 or IPv6 address`);
  }
  const app = flags.app === undefined ? '*' : String(flags.app);
  const config = loadConfig(flags, process.env, EXPLAIN_SETTINGS);
  const { shown, problems } =
    flags.live === true
      ? { shown: await askExplanation(ip, app, flags), problems: [] }
      : await readExplanation(address, app, config);
  if (flags.json) printJson(shown);
  else printExplanation(shown);
  for (const problem of problems) printProblem(problemText(problem));
  return EXIT_DONE;
}
