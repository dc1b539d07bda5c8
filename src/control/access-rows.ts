// The rows of the table `access` of routing.db: from whatever is stored there to rules, or to the reasons why not, and to
// the list that workers read. Also the one form in which a row's `match` is written back.

import { APP_PATTERN } from '../base/names.ts';
import { type AccessRule, encodeAccessList } from '../route/access-list.ts';
import { countryCode, countryIndex } from '../route/regions.ts';
import { formatPrefix, type Prefix, parsePrefix } from '../sys/prefix.ts';
import { type RowProblem, valueText } from './routing-rows.ts';

/** A row as text, as SQLite returns it. */
export type AccessRow = readonly [
  app: string | null,
  action: string | null,
  match: string | null,
  note: string | null,
];

const ACTIONS = ['allow', 'deny'] as const;
export type Action = (typeof ACTIONS)[number];
export const ANY = '*';

/** Whom a row is about: a prefix, or a country index with 0 for everyone. */
type Match = Prefix | number;

/** What a row matches, or what is wrong with the text. */
export function parseMatch(text: string): Match | string {
  const trimmed = text.trim();
  if (trimmed === ANY) return 0;
  if (/^[a-z]{2}$/i.test(trimmed)) {
    return countryIndex(trimmed) || 'must be an ISO 3166-1 alpha-2 country code';
  }
  const prefix = parsePrefix(trimmed);
  const others = ', a country code as in BR, or * for everyone';
  return typeof prefix === 'string' && !trimmed.includes('/') ? prefix + others : prefix;
}

/** The one way to write a match; what cannot be read stays as it is. */
export function matchText(text: string): string {
  const match = parseMatch(text);
  if (typeof match === 'string') return text.trim();
  if (typeof match === 'number') return match === 0 ? ANY : countryCode(match);
  return formatPrefix(match);
}

/** The app a row is for. */
export function rowApp([app]: AccessRow): string {
  return app?.trim() || ANY;
}

function parseAction(text: string | null): Action | undefined {
  const lower = text?.trim().toLowerCase();
  return ACTIONS.find((action) => action === lower);
}

export interface CompiledAccess {
  readonly buffer: SharedArrayBuffer;
  /** Rows in force, those for apps without a listener included. */
  readonly rows: number;
  /** One for each row that is skipped. */
  readonly problems: readonly RowProblem[];
}

/**
 * The list for these apps (names and indexes). A row that cannot be read is skipped; but an `allow` that cannot be read
 * still makes an allow list, because a slip in its only row must not let everybody in.
 */
export function compileAccess(
  table: readonly AccessRow[],
  apps: ReadonlyMap<string, number>,
): CompiledAccess {
  const problems: RowProblem[] = [];
  const rules: AccessRule[] = [];
  table.forEach((stored, row) => {
    const app = rowApp(stored);
    const [, actionText, matchStored] = stored;
    const action = parseAction(actionText);
    const match = parseMatch(matchStored ?? '');
    const refuse = (column: string, value: string | null, reason: string): void => {
      const id = valueText(matchStored);
      problems.push({ table: 'access', id, column, value: valueText(value), reason });
    };
    if (app !== ANY && !APP_PATTERN.test(app)) {
      refuse('app', stored[0], 'must be * or 1 to 64 characters without spaces, commas and @');
    } else if (action === undefined) {
      refuse('action', actionText, `must be one of ${ACTIONS.join(', ')}`);
    } else {
      if (typeof match === 'string') refuse('match', matchStored, match);
      const index = app === ANY ? 0 : apps.get(app);
      const deny = action === 'deny';
      if (index === undefined) return;
      rules.push({ row, app: index, deny, match: typeof match === 'string' ? null : match });
    }
  });
  return { buffer: encodeAccessList(rules), rows: table.length - problems.length, problems };
}
