// `edgeproxy access …`: lists and changes who may connect. A running proxy sees a change within 100 ms.

import type { ConfigFlags } from '../config.ts';
import { removeAccess, setAccess } from '../control/access-edit.ts';
import {
  type AccessRow,
  type Action,
  ANY,
  compileAccess,
  matchText,
  rowApp,
} from '../control/access-rows.ts';
import { jsonAccess } from '../control/access-verdict.ts';
import { readAccess } from '../control/routing-db.ts';
import { isDenied, openAccessList, restDecision } from '../route/access-list.ts';
import { problemText, withDb } from './backend.ts';
import { EXIT_DONE, print, printJson, printProblem } from './output.ts';
import { formatTable } from './table.ts';

function appOf(flags: ConfigFlags): string {
  return String(flags.app ?? ANY);
}

/** `everyone`, or the match in quotes, and for which app. */
function subject(match: string, app: string): string {
  const who = match === ANY ? 'everyone' : `"${match}"`;
  return app === ANY ? who : `${who} for app "${app}"`;
}

/** What becomes of clients that no row matches. */
function unmatchedText(rows: readonly AccessRow[], app: string): string {
  const index = app === ANY ? 0 : 1;
  const list = openAccessList(compileAccess(rows, new Map([[app, index]])).buffer);
  const at = app === ANY ? 'Whom no row matches' : `Whom no row matches at app "${app}"`;
  return `${at} is ${isDenied(restDecision(list, index)) ? 'denied' : 'allowed'}`;
}

function printAccess(rows: readonly AccessRow[]): void {
  if (rows.length === 0) {
    print('No access rows: everyone is allowed; add one with: edgeproxy access deny MATCH');
    return;
  }
  const cells = rows.map((row) => [rowApp(row), row[1] ?? '', row[2] ?? '', row[3] ?? '']);
  print(formatTable(['APP', 'ACTION', 'MATCH', 'NOTE'], cells));
}

export function listAccess(flags: ConfigFlags): number {
  return withDb(flags, false, (db) => {
    const rows = readAccess(db);
    const shown = rows.filter((row) => flags.app === undefined || rowApp(row) === flags.app);
    if (flags.json) {
      printJson(shown.map(jsonAccess));
    } else {
      printAccess(shown);
      const apps = new Set(shown.map(rowApp));
      for (const app of apps) print(unmatchedText(rows, app));
    }
    const { problems } = compileAccess(rows, new Map());
    for (const problem of problems) printProblem(problemText(problem));
    return EXIT_DONE;
  });
}

export function setOne(action: Action, match: string, flags: ConfigFlags): number {
  const app = appOf(flags);
  const note = flags.note === undefined ? null : String(flags.note);
  return withDb(flags, true, (db) => {
    const written = setAccess(db, { action, match, app, note });
    print(`${action === 'allow' ? 'Allowed' : 'Denied'} ${subject(written, app)}`);
    // The first row that allows shuts out all others: to be said before someone wonders.
    if (action === 'allow') print(unmatchedText(readAccess(db), app));
    return EXIT_DONE;
  });
}

export function removeOne(match: string, flags: ConfigFlags): number {
  const app = appOf(flags);
  withDb(flags, true, (db) => removeAccess(db, app, match));
  print(`Removed the row of ${subject(matchText(match), app)}`);
  return EXIT_DONE;
}
