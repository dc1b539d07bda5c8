// Changes to the table `access`, one commit each, for the command line. What is written is checked by the code that reads
// it. Rows are found by what they mean, however an operator has written them, bad ones by their text.

import { APP_PATTERN } from '../base/names.ts';
import { nearestNames } from '../base/nearest.ts';
import { type AccessRow, type Action, ANY, matchText, parseMatch, rowApp } from './access-rows.ts';
import { refuse, transaction } from './routing-change.ts';
import { addAccessTable, type RoutingDb, readAccess } from './routing-db.ts';

function isAbout(row: AccessRow, app: string, match: string): boolean {
  return rowApp(row) === app && matchText(row[2] ?? '') === match;
}

/** Deletes the rows of this app that match the same; in a transaction. Returns how many there were. */
function deleteRows(db: RoutingDb, rows: readonly AccessRow[], app: string, match: string): number {
  const found = rows.filter((row) => isAbout(row, app, match));
  // As text, because the rows were read so: a table without types may hold anything.
  const same = ['app', 'action', 'match'].map((column) => `CAST(${column} AS TEXT) IS ?`);
  const remove = db.handle.prepare(`DELETE FROM access WHERE ${same.join(' AND ')}`);
  for (const [storedApp, action, stored] of found) remove.run(storedApp, action, stored);
  return found.length;
}

/** Allows or denies: puts one row in the place of any that matched the same. Returns the match as it is stored. */
export function setAccess(
  db: RoutingDb,
  row: { action: Action; match: string; app: string; note: string | null },
): string {
  const { action, app, note } = row;
  const problem = parseMatch(row.match);
  if (typeof problem === 'string') {
    refuse('ERR_ACCESS_INVALID', `MATCH is ${JSON.stringify(row.match)}, ${problem}`);
  }
  if (app !== ANY && !APP_PATTERN.test(app)) {
    const allowed = '* for all, or 1 to 64 characters without spaces, commas and @';
    refuse('ERR_ACCESS_INVALID', `--app is ${JSON.stringify(app)}, allowed: ${allowed}`);
  }
  const match = matchText(row.match);
  transaction(db, () => {
    addAccessTable(db);
    deleteRows(db, readAccess(db), app, match);
    const insert = 'INSERT INTO access(app, action, match, note) VALUES (?, ?, ?, ?)';
    db.handle.prepare(insert).run(app, action, match, note);
  });
  return match;
}

/** Throws when there is no such row. */
export function removeAccess(db: RoutingDb, app: string, text: string): void {
  const match = matchText(text);
  transaction(db, () => {
    addAccessTable(db);
    const rows = readAccess(db);
    if (deleteRows(db, rows, app, match) > 0) return;
    const own = rows.filter((row) => rowApp(row) === app).map(([, , stored]) => stored ?? '');
    const near = nearestNames(match, own);
    const hint = near.length > 0 ? `similar ones are ${near.join(', ')}` : 'none is similar';
    const whose = app === ANY ? 'for all apps' : `for app "${app}"`;
    refuse('ERR_ACCESS_UNKNOWN', `No access row ${whose} matches "${match}": ${hint}`);
  });
}
