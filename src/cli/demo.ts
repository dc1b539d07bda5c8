// `edgeproxy demo`: three sample backends, a seeded routing.db and the proxy, in one process and
// one command. The database is always `demo-routing.db` here: a demo must never write sample rows
// into a real one.

import { createServer } from 'node:net';
import { createLogger } from '../base/log.ts';
import { type Config, type ConfigFlags, loadConfig, SETTINGS } from '../config.ts';
import { closeRoutingDb, initRoutingDb, openRoutingDb } from '../control/routing-db.ts';
import { addBackend, backendIds, deleteBackend } from '../control/routing-edit.ts';
import { EarlyThreads } from '../control/worker-threads.ts';
import { commandName } from './command-name.ts';
import { DEMO_BACKENDS, DEMO_HOST, listenOn, startDemoBackends } from './demo-backends.ts';
import { print, usageError } from './output.ts';

const DEMO_DB = 'demo-routing.db';
const DEMO_APP = 'demo';
/** Loopback, unlike `run`: a demo has no business on the network. */
const DEMO_LISTEN = `${DEMO_HOST}:8080`;

/** The sample rows as new, whatever an earlier demo did to them; other rows in the file stay. */
function seedDatabase(path: string): void {
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  try {
    const present = new Set(backendIds(db));
    for (const { id, region, port } of DEMO_BACKENDS) {
      if (present.has(id)) deleteBackend(db, id);
      addBackend(db, { id, app: DEMO_APP, region, address: DEMO_HOST, port });
    }
  } finally {
    closeRoutingDb(db);
  }
}

/** Fails now, by name, on a port that is taken: later it would be one line of many. */
async function checkPorts(config: Config): Promise<void> {
  const wanted = [...config.listen, ...(config.metricsListen ? [config.metricsListen] : [])];
  for (const { host, port } of wanted) {
    if (port === 0) continue;
    const probe = createServer();
    await listenOn(probe, host, port);
    await new Promise((resolve) => probe.close(resolve));
  }
}

function printGuide(config: Config): void {
  const command = commandName();
  const [listener] = config.listen;
  const isLocal = listener?.host === '0.0.0.0' || listener?.host === DEMO_HOST;
  const host = isLocal ? 'localhost' : listener?.host;
  const url = `http://${listener?.family === 6 ? `[${host}]` : host}:${listener?.port}`;
  const backends = DEMO_BACKENDS.map(({ id, port }) => `${id} on ${DEMO_HOST}:${port}`);
  print(`Demo: this POP is in region ${config.region}; ${backends.join(', ')}.
Routing database: ${DEMO_DB}; change it while this runs, it is followed within 100 ms.

Try in another terminal, in this directory:
  1. curl ${url}
  2. ${command} backend disable demo-sa --db-path ${DEMO_DB}   (then curl again)
  3. ${command} explain 200.160.2.3 --db-path ${DEMO_DB}

Stop with Ctrl+C.
`);
}

export async function demo(flags: ConfigFlags): Promise<number> {
  if (flags.stay === true)
    throw usageError('--stay goes with --mesh: without, the demo stays anyway');
  const listenSet = flags.listenAddr !== undefined || process.env[SETTINGS.listen.env];
  const config = loadConfig(
    { ...flags, dbPath: DEMO_DB, ...(listenSet ? {} : { listenAddr: DEMO_LISTEN }) },
    process.env,
  );
  const logger = createLogger({ level: config.log });
  for (const warning of config.warnings) logger.warn(warning);
  const { runProxy } = await import('../control/supervisor.ts');
  const backends = await startDemoBackends();
  try {
    await checkPorts(config);
    seedDatabase(config.dbPath);
    printGuide(config);
    return await runProxy(config, logger, new EarlyThreads(config));
  } finally {
    backends.close();
  }
}
