// `edgeproxy backend …`: lists and changes the rows of routing.db. A running proxy sees a change
// within 100 ms.

import { type ConfigFlags, loadConfig } from '../config.ts';
import {
  closeRoutingDb,
  openRoutingDb,
  type RoutingDb,
  readRouting,
} from '../control/routing-db.ts';
import {
  addBackend,
  type BackendChanges,
  changeBackend,
  deleteBackend,
  setBackendProxy,
  undrainBackend,
} from '../control/routing-edit.ts';
import {
  addressText,
  PROXY_PROTOCOLS,
  problemEffect,
  type RawBackend,
  type RowProblem,
} from '../control/routing-rows.ts';
import { EXIT_DONE, print, printJson, printProblem, usageError } from './output.ts';
import { formatTable } from './table.ts';

export function withDb<Result>(
  flags: ConfigFlags,
  writable: boolean,
  work: (db: RoutingDb) => Result,
): Result {
  const { dbPath } = loadConfig(flags, process.env, ['dbPath']);
  const db = openRoutingDb(dbPath, { writable });
  try {
    return work(db);
  } finally {
    closeRoutingDb(db);
  }
}

/** One line for a row that is not served, or not all of it used. */
export function problemText(problem: RowProblem): string {
  const { table, id, column, value, reason } = problem;
  const what = table === 'access' ? `Access row ${id}` : `Backend ${JSON.stringify(id)}`;
  return `${what} ${problemEffect(problem)}: ${column} is ${value}, ${reason}`;
}

function stateText(backend: RawBackend): string {
  if (backend.deleted) return 'removed';
  if (!backend.healthy) return 'disabled';
  return backend.drain === null ? 'enabled' : 'draining';
}

/** The row as the database names its columns. */
function jsonRow(backend: RawBackend): Record<string, unknown> {
  const { id, app, region, country, port, weight } = backend;
  return {
    id,
    app,
    region,
    country,
    wg_ip: addressText(backend),
    port,
    healthy: backend.healthy,
    weight,
    soft_limit: backend.softLimit,
    hard_limit: backend.hardLimit,
    deleted: backend.deleted,
    check_type: backend.check?.type ?? null,
    check_port: backend.check?.port ?? null,
    check_path: backend.check?.path ?? null,
    check_expect: backend.check?.expect ?? null,
    draining: backend.drain !== null,
    drain_close_at: backend.drain?.closeAt ?? null,
    drain_close_rate: backend.drain?.closeRate ?? null,
    proxy_protocol: backend.proxyProtocol,
  };
}

function endpointText(backend: RawBackend): string {
  const host = addressText(backend);
  return backend.family === 6 ? `[${host}]:${backend.port}` : `${host}:${backend.port}`;
}

function printBackends(backends: readonly RawBackend[]): void {
  if (backends.length === 0) {
    print('No backends; add one with: edgeproxy backend add ID IP:PORT --region REGION');
    return;
  }
  const header = ['ID', 'APP', 'REGION', 'CC', 'ADDRESS', 'WEIGHT', 'SOFT', 'HARD', 'STATE'];
  const rows = backends.map((backend) => [
    backend.id,
    backend.app,
    backend.region,
    backend.country ?? '-',
    endpointText(backend),
    String(backend.weight),
    String(backend.softLimit),
    backend.hardLimit === 0 ? '-' : String(backend.hardLimit),
    stateText(backend),
  ]);
  print(formatTable(header, rows, new Set(['WEIGHT', 'SOFT', 'HARD'])));
}

export function listBackends(flags: ConfigFlags): number {
  return withDb(flags, false, (db) => {
    const { backends, problems } = readRouting(db);
    const shown = backends.filter(({ app }) => flags.app === undefined || app === flags.app);
    if (flags.json) printJson(shown.map(jsonRow));
    else printBackends(shown);
    for (const problem of problems) printProblem(problemText(problem));
    return EXIT_DONE;
  });
}

/** A decimal number; the database's own checks come after. */
export function numberOption(name: string, text: string | boolean | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (typeof text === 'string' && /^\d+(\.\d+)?$/.test(text)) return Number(text);
  throw usageError(`${name} is ${JSON.stringify(text)}, allowed: a number, 0 or more`);
}

function textOption(text: string | boolean | undefined): string | undefined {
  return text === undefined ? undefined : String(text);
}

const LIMIT_MAX = 2_147_483_647;

function limitOption(name: string, text: string | boolean | undefined): number | undefined {
  const value = numberOption(name, text);
  if (value === undefined || (Number.isInteger(value) && value <= LIMIT_MAX)) return value;
  throw usageError(`${name} is "${text}", allowed: a whole number from 0 to ${LIMIT_MAX}`);
}

/** `10.0.0.7:443` or `[fd00::7]:443`; what the parts may be is checked with the rest of the row. */
function splitEndpoint(text: string): { address: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  if (!match) throw usageError(`ADDRESS is "${text}", allowed: IP:PORT, IPv6 as [IP]:PORT`);
  return { address: (match[1] ?? match[2]) as string, port: Number(match[3]) };
}

export function addOne(id: string, endpoint: string, flags: ConfigFlags): number {
  const backend = {
    id,
    ...splitEndpoint(endpoint),
    app: String(flags.app),
    region: String(flags.region),
    country: textOption(flags.country),
    weight: numberOption('--weight', flags.weight),
    softLimit: limitOption('--soft', flags.soft),
    hardLimit: limitOption('--hard', flags.hard),
    check: {
      type: textOption(flags.checkType),
      port: textOption(flags.checkPort),
      path: textOption(flags.checkPath),
      expect: textOption(flags.checkExpect),
    },
    proxyProtocol: textOption(flags.proxyProtocol),
  };
  withDb(flags, true, (db) => addBackend(db, backend));
  print(`Added backend "${id}"`);
  return EXIT_DONE;
}

function change(id: string, flags: ConfigFlags, changes: BackendChanges, done: string): number {
  withDb(flags, true, (db) => changeBackend(db, id, changes));
  print(`Backend "${id}" ${done}`);
  return EXIT_DONE;
}

/** How the backend is after a change that leaves part of its state as it was. */
function stateNow(db: RoutingDb, id: string): string {
  const backend = readRouting(db).backends.find((row) => row.id === id);
  return backend === undefined ? 'its row is wrong' : `it is ${stateText(backend)}`;
}

/** The commands that take only an id: what each does, and its one-line answer. */
const ID_COMMANDS = {
  remove: (db: RoutingDb, id: string) => {
    changeBackend(db, id, { deleted: true });
    return 'is removed; backend restore brings it back';
  },
  restore: (db: RoutingDb, id: string) => {
    changeBackend(db, id, { deleted: false });
    return `is restored; ${stateNow(db, id)}`;
  },
  enable: (db: RoutingDb, id: string) => {
    undrainBackend(db, id, true);
    return 'is enabled';
  },
  disable: (db: RoutingDb, id: string) => {
    changeBackend(db, id, { healthy: false });
    return 'is disabled';
  },
  undrain: (db: RoutingDb, id: string) => {
    undrainBackend(db, id, false);
    return `is not draining; ${stateNow(db, id)}`;
  },
  delete: (db: RoutingDb, id: string) => {
    deleteBackend(db, id);
    return 'is deleted, row and all';
  },
} as const;

export function changeById(name: keyof typeof ID_COMMANDS, id: string, flags: ConfigFlags): number {
  const done = withDb(flags, true, (db) => ID_COMMANDS[name](db, id));
  print(`Backend "${id}" ${done}`);
  return EXIT_DONE;
}

export function setWeight(id: string, text: string, flags: ConfigFlags): number {
  const weight = numberOption('WEIGHT', text) as number;
  const meaning = weight === 0 ? ': no new clients, bound ones stay' : '';
  return change(id, flags, { weight }, `has weight ${weight}${meaning}`);
}

export function setLimits(id: string, flags: ConfigFlags): number {
  const softLimit = limitOption('--soft', flags.soft);
  const hardLimit = limitOption('--hard', flags.hard);
  if (softLimit === undefined && hardLimit === undefined) {
    throw usageError('Nothing to set: give --soft N, --hard N or both');
  }
  const said = [
    softLimit === undefined ? [] : `soft limit ${softLimit}`,
    hardLimit === undefined ? [] : `hard limit ${hardLimit === 0 ? 'none' : hardLimit}`,
  ].flat();
  return change(id, flags, { softLimit, hardLimit }, `has ${said.join(' and ')}`);
}

export function setProxyProtocol(id: string, text: string, flags: ConfigFlags): number {
  const version = PROXY_PROTOCOLS.find((name) => name === text.toLowerCase()) ?? null;
  if (version === null && text.toLowerCase() !== 'default') {
    const allowed = `one of ${PROXY_PROTOCOLS.join(', ')}, default`;
    throw usageError(`VERSION is ${JSON.stringify(text)}, allowed: ${allowed}`);
  }
  withDb(flags, true, (db) => setBackendProxy(db, id, version));
  const said = { off: 'no PROXY header', v1: 'PROXY header v1', v2: 'PROXY header v2' };
  const gets = version === null ? 'the PROXY header that the setting says' : said[version];
  print(`Backend "${id}" gets ${gets}`);
  return EXIT_DONE;
}
