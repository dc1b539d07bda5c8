// What the access list says about a client, in words: for `explain`, on the command line and in the admin API.

import { type AccessList, decideAccess, decidingRow, isDenied } from '../route/access-list.ts';
import { type AccessRow, ANY, rowApp } from './access-rows.ts';

export interface AccessVerdict {
  readonly allowed: boolean;
  /** The row that decides; null: none matches. */
  readonly row: AccessRow | null;
  readonly reason: string;
}

/** `list` is compiled from `rows`; `app` is its index there; `words`: IPv4 as IPv4-mapped. */
export function accessVerdict(
  rows: readonly AccessRow[],
  list: AccessList | null,
  app: number,
  words: readonly number[],
  country: number,
): AccessVerdict {
  if (list === null) return { allowed: true, row: null, reason: 'there is no access list' };
  const [w0, w1, w2, w3] = words as [number, number, number, number];
  const decision = decideAccess(list, app, w0, w1, w2, w3, country);
  const row = rows[decidingRow(decision)] ?? null;
  const allowed = !isDenied(decision);
  if (row === null) {
    const reason = allowed ? 'no row matches' : 'no row matches, and there are rows that allow';
    return { allowed, row, reason };
  }
  const [, action, match, note] = row;
  const whose = rowApp(row) === ANY ? 'all apps' : `app ${rowApp(row)}`;
  const why = note === null ? '' : `: ${note}`;
  return { allowed, row, reason: `by the row "${action} ${match}" for ${whose}${why}` };
}

export function jsonAccess(row: AccessRow) {
  return { app: rowApp(row), action: row[1], match: row[2], note: row[3] };
}
