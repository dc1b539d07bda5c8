// Tells of rows of routing.db that cannot be used, once per reading.

import type { Logger } from '../base/log.ts';
import type { RoutingRows } from './routing-db.ts';

/** One line for each. */
export function reportProblems(logger: Logger, { problems }: RoutingRows): void {
  for (const { id, column, value, reason, served } of problems) {
    const what = served
      ? `The ${column.split('_', 1)[0]} columns of a row of routing.db are ignored`
      : 'A row of routing.db is skipped';
    logger.warn(what, { event: 'routing_problem', id, column, value, reason });
  }
}
