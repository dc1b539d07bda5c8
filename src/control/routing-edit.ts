// Changes to routing.db, one statement and so one commit each, for the command line and the demo. A
// value is checked by the same code that reads it, so nothing is written that `run` would then
// refuse. Every function throws a ProxyError: an unknown id names the ids it could have been.

import { nearestNames } from '../base/nearest.ts';
import { guarded, refuse, transaction } from './routing-change.ts';
import { addSpareColumns, hasColumn, type RoutingDb } from './routing-db.ts';
import {
  COLUMNS,
  type ProxyProtocol,
  parseRow,
  type RowDrain,
  type RowProblem,
} from './routing-rows.ts';

/** What may be said about a new backend; what is left out takes the table's default. */
interface NewBackend {
  readonly id: string;
  readonly app: string;
  readonly region: string;
  readonly country?: string | undefined;
  readonly address: string;
  readonly port: number;
  readonly weight?: number | undefined;
  readonly softLimit?: number | undefined;
  readonly hardLimit?: number | undefined;
  /** The columns `check_…`, as text. */
  readonly check?: {
    readonly type?: string | undefined;
    readonly port?: string | undefined;
    readonly path?: string | undefined;
    readonly expect?: string | undefined;
  };
  readonly proxyProtocol?: string | undefined;
}

/** The columns a command may change. */
export interface BackendChanges {
  readonly deleted?: boolean;
  readonly healthy?: boolean;
  readonly weight?: number;
  readonly softLimit?: number | undefined;
  readonly hardLimit?: number | undefined;
}

const CHANGE_COLUMNS = {
  deleted: 'deleted',
  healthy: 'healthy',
  weight: 'weight',
  softLimit: 'soft_limit',
  hardLimit: 'hard_limit',
} as const;

const NO_DRAIN = 'draining = 0, drain_close_at = NULL, drain_close_rate = NULL';

/** Every id, removed ones too. */
export function backendIds(db: RoutingDb): string[] {
  return guarded(db, () =>
    db.handle
      .prepare('SELECT id FROM backends ORDER BY id')
      .all()
      .map((row) => String(row.id)),
  );
}

function refuseUnknown(db: RoutingDb, id: string): never {
  const near = nearestNames(id, backendIds(db));
  const hint = near.length > 0 ? `similar ids are ${near.join(', ')}` : 'no id is similar';
  refuse('ERR_BACKEND_UNKNOWN', `Unknown backend "${id}": ${hint}`);
}

/** Throws when an id is taken, by a removed backend too: that one is to be restored or deleted. */
export function addBackend(db: RoutingDb, backend: NewBackend): void {
  const { id, app, region, country, address, port, weight, softLimit, hardLimit, check } = backend;
  const proxyProtocol = backend.proxyProtocol?.toLowerCase() ?? null;
  const row = [id, app, region.toLowerCase(), country?.toUpperCase() ?? null, address, port];
  const limits = [weight ?? 1, softLimit ?? 100, hardLimit ?? 0];
  const checks = [check?.type, check?.port, check?.path, check?.expect].map((text) => text ?? null);
  // A new backend does not drain.
  const values = [...row, 1, ...limits, 0, ...checks, null, null, null, proxyProtocol];
  const problems: RowProblem[] = [];
  parseRow(values, problems);
  if (problems.length > 0) {
    const lines = problems.map(({ column, value, reason }) => `${column} is ${value}, ${reason}`);
    refuse('ERR_BACKEND_INVALID', `Cannot add backend "${id}": ${lines.join('; ')}`);
  }
  guarded(db, () => {
    const taken = db.handle.prepare('SELECT deleted FROM backends WHERE id = ?').get(id);
    if (taken) {
      const way =
        taken.deleted === 1
          ? 'it was removed, bring it back with "backend restore" or drop it with "backend delete"'
          : 'the id is taken';
      refuse('ERR_BACKEND_EXISTS', `Cannot add backend "${id}": ${way}`);
    }
    // What is not said takes the table's default, and a table without that column will do.
    const said = COLUMNS.flatMap(({ name }, at) => {
      const value = values[at] ?? null;
      return value === null ? [] : [{ name, value }];
    });
    const names = said.map(({ name }) => name).join(', ');
    const marks = said.map(() => '?').join(', ');
    if (checks.some((value) => value !== null)) addSpareColumns(db, 'check');
    if (proxyProtocol !== null) addSpareColumns(db, 'proxy');
    const insert = db.handle.prepare(`INSERT INTO backends(${names}) VALUES (${marks})`);
    insert.run(...said.map(({ value }) => value));
  });
}

/** Sets columns of one backend in one commit. One that is enabled drains no more. */
export function changeBackend(db: RoutingDb, id: string, changes: BackendChanges): void {
  const entries = Object.entries(changes).filter(([, value]) => value !== undefined);
  if (entries.length === 0) return;
  guarded(db, () => {
    const sets = entries.map(
      ([key]) => `${CHANGE_COLUMNS[key as keyof typeof CHANGE_COLUMNS]} = ?`,
    );
    if (changes.healthy === true && hasColumn(db, 'draining')) sets.push(NO_DRAIN);
    updateRow(
      db,
      id,
      sets.join(', '),
      entries.map(([, value]) => Number(value)),
    );
  });
}

function updateRow(
  db: RoutingDb,
  id: string,
  sets: string,
  values: readonly (number | null)[],
): void {
  const statement = db.handle.prepare(`UPDATE backends SET ${sets} WHERE id = ?`);
  if (statement.run(...values, id).changes === 0) refuseUnknown(db, id);
}

/**
 * Starts a drain, or sets how one that has begun goes on. The table's columns for it come in the
 * same commit.
 */
export function drainBackend(db: RoutingDb, id: string, { closeAt, closeRate }: RowDrain): void {
  transaction(db, () => {
    addSpareColumns(db, 'drain');
    const sets = 'draining = 1, drain_close_at = ?, drain_close_rate = ?';
    updateRow(db, id, sets, [closeAt, closeRate]);
  });
}

/** Ends a drain, if there is one; with `enable` the backend is enabled by the same commit. */
export function undrainBackend(db: RoutingDb, id: string, enable: boolean): void {
  guarded(db, () => {
    // Without the columns nothing drains; the id is still to be one of ours.
    const sets = [
      enable ? 'healthy = 1' : 'id = id',
      ...(hasColumn(db, 'draining') ? [NO_DRAIN] : []),
    ];
    updateRow(db, id, sets.join(', '), []);
  });
}

/** Sets which PROXY header a backend gets; null: what the setting says. */
export function setBackendProxy(db: RoutingDb, id: string, version: ProxyProtocol | null): void {
  guarded(db, () => {
    addSpareColumns(db, 'proxy');
    const update = db.handle.prepare('UPDATE backends SET proxy_protocol = ? WHERE id = ?');
    if (update.run(version, id).changes === 0) refuseUnknown(db, id);
  });
}

/** Removes the row itself; `changeBackend({ deleted: true })` keeps it. */
export function deleteBackend(db: RoutingDb, id: string): void {
  guarded(db, () => {
    if (db.handle.prepare('DELETE FROM backends WHERE id = ?').run(id).changes === 0) {
      refuseUnknown(db, id);
    }
  });
}
