// The access list in force: compiles the table `access` when it has changed, and says in the log what came of it. A table
// that cannot be read stops the start, since the list is there to keep somebody out; later the last good list stays.

import { ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { isDenied, openAccessList, restDecision } from '../route/access-list.ts';
import { type AccessRow, compileAccess } from './access-rows.ts';
import type { RoutingRows } from './routing-db.ts';
import type { RowProblem } from './routing-rows.ts';

/** Skipped rows told one by one: a table of garbage must not fill the log. */
const PROBLEMS_TOLD_MAX = 20;

interface AccessOptions {
  readonly logger: Logger;
  /** The index of each app that has a listener; rows for other apps are kept out of the list. */
  readonly apps: ReadonlyMap<string, number>;
  readonly dryRun: boolean;
}

export class AccessPublisher {
  readonly #options: AccessOptions;
  /** The table as it was last compiled. */
  #compiled = '[]';
  /** Why it could not be read the last time, '' when it could. */
  #failure = '';
  /** The rows that `buffer` is compiled from. */
  table: readonly AccessRow[] = [];
  /** For openAccessList. */
  buffer = new SharedArrayBuffer(0);
  /** Rows in force. */
  rows = 0;
  /** Times the table could not be read. */
  errors = 0;

  /** Throws the error that a table which cannot be read is. */
  constructor(table: RoutingRows['access'], options: AccessOptions) {
    this.#options = options;
    if (table instanceof ProxyError) throw table;
    this.update(table);
  }

  /** True when there is a `buffer` to publish. A failure is told and counted once, not at every commit. */
  update(table: RoutingRows['access']): boolean {
    const { logger, apps, dryRun } = this.#options;
    if (table instanceof ProxyError) {
      const { message: reason } = table;
      if (reason === this.#failure) return false;
      this.#failure = reason;
      this.errors++;
      const fields = { event: 'access_unreadable', reason };
      logger.error('The access table cannot be read, the last good list stays', fields);
      return false;
    }
    const text = JSON.stringify(table);
    if (text === this.#compiled && this.#failure === '') return false;
    this.#failure = '';
    const { buffer, rows, problems } = compileAccess(table, apps);
    this.#compiled = text;
    this.table = table;
    this.buffer = buffer;
    this.rows = rows;
    this.#report(problems);
    const list = openAccessList(buffer);
    const closed = [...apps].filter(([, app]) => isDenied(restDecision(list, app)));
    logger.info('Access list in force', {
      event: 'access_reloaded',
      rows,
      skipped: problems.length,
      unmatched: closed.length === 0 ? 'allowed' : `denied at ${closed.map(([app]) => app)}`,
      dryRun,
    });
    return true;
  }

  #report(problems: readonly RowProblem[]): void {
    const { logger } = this.#options;
    for (const { id, column, value, reason } of problems.slice(0, PROBLEMS_TOLD_MAX)) {
      const fields = { event: 'routing_problem', table: 'access', id, column, value, reason };
      logger.warn('A row of routing.db is skipped', fields);
    }
    const more = problems.length - PROBLEMS_TOLD_MAX;
    if (more <= 0) return;
    logger.warn('More rows of routing.db are skipped', { table: 'access', count: more });
  }
}
