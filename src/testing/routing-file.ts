// Writes routing.db files for tests: rows as an operator would have them, changed by one commit at a time.

import {
  addAccessTable,
  addSpareColumns,
  closeRoutingDb,
  initRoutingDb,
  openRoutingDb,
} from '../control/routing-db.ts';

/** One row; what is left out has the value most tests want. */
export interface BackendRow {
  readonly id: string;
  readonly app?: string;
  readonly region?: string;
  readonly country?: string | null;
  readonly address?: string;
  readonly port: number;
  readonly healthy?: number;
  readonly weight?: number;
  readonly softLimit?: number;
  readonly hardLimit?: number;
  readonly deleted?: number;
  readonly checkType?: string;
  readonly checkPort?: number;
  readonly checkPath?: string;
  readonly checkExpect?: string;
  readonly draining?: number;
  readonly drainCloseAt?: number;
  readonly drainCloseRate?: number;
  readonly proxyProtocol?: string;
}

const COLUMN_NAMES = [
  'id, app, region, country, wg_ip, port, healthy, weight, soft_limit, hard_limit, deleted',
  'check_type, check_port, check_path, check_expect',
  'draining, drain_close_at, drain_close_rate, proxy_protocol',
].join(', ');

function rowValues(row: BackendRow): (string | number | null)[] {
  return [
    row.id,
    row.app ?? 'web',
    row.region ?? 'sa',
    row.country ?? null,
    row.address ?? '127.0.0.1',
    row.port,
    row.healthy ?? 1,
    row.weight ?? 1,
    row.softLimit ?? 100,
    row.hardLimit ?? 0,
    row.deleted ?? 0,
    row.checkType ?? null,
    row.checkPort ?? null,
    row.checkPath ?? null,
    row.checkExpect ?? null,
    row.draining ?? 0,
    row.drainCloseAt ?? null,
    row.drainCloseRate ?? null,
    row.proxyProtocol ?? null,
  ];
}

/** Runs statements in one commit. */
export function changeRouting(path: string, sql: string): void {
  const db = openRoutingDb(path, { writable: true });
  try {
    db.handle.exec(`BEGIN IMMEDIATE; ${sql}; COMMIT`);
  } finally {
    closeRoutingDb(db);
  }
}

/** Makes the file if it is missing and puts exactly these rows in it, in one commit. */
export function writeRouting(path: string, rows: readonly BackendRow[]): void {
  initRoutingDb(path);
  const db = openRoutingDb(path, { writable: true });
  try {
    addSpareColumns(db, 'check');
    addSpareColumns(db, 'drain');
    addSpareColumns(db, 'proxy');
    db.handle.exec('BEGIN IMMEDIATE; DELETE FROM backends');
    const insert = db.handle.prepare(
      `INSERT INTO backends(${COLUMN_NAMES}) VALUES (${'?'.repeat(19).split('').join()})`,
    );
    for (const row of rows) insert.run(...rowValues(row));
    db.handle.exec('COMMIT');
  } finally {
    closeRoutingDb(db);
  }
}

/** Puts exactly these rows in the access table, in one commit; without an app they are for all. */
export function writeAccess(
  path: string,
  rows: readonly (readonly [action: string, match: string, app?: string])[],
): void {
  const db = openRoutingDb(path, { writable: true });
  try {
    db.handle.exec('BEGIN IMMEDIATE');
    addAccessTable(db);
    db.handle.exec('DELETE FROM access');
    const insert = db.handle.prepare('INSERT INTO access(app, action, match) VALUES (?, ?, ?)');
    for (const [action, match, app = '*'] of rows) insert.run(app, action, match);
    db.handle.exec('COMMIT');
  } finally {
    closeRoutingDb(db);
  }
}

/** Takes a write lock that no reader gets past, until the returned function is called. */
export function lockRouting(path: string): () => void {
  const db = openRoutingDb(path, { writable: true });
  db.handle.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  return () => {
    db.handle.exec('COMMIT');
    closeRoutingDb(db);
  };
}
