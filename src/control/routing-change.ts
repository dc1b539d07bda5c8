// How routing.db is changed: refusals that tell the user, failures of SQLite with the path and what to do, and changes that
// are made as a whole or not at all. What is changed is in routing-edit.ts, access-edit.ts and mesh-edit.ts.

import { ProxyError } from '../base/errors.ts';
import { type RoutingDb, routingDbError } from './routing-db.ts';

/** Refuses what the user asked for. */
export function refuse(code: string, message: string): never {
  throw new ProxyError(code, message, { source: 'usage' });
}

/** SQL failures (a lock, a missing column) with the path and what to do. */
export function guarded<Result>(db: RoutingDb, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw routingDbError(db.path, 'change', error);
  }
}

/** All of `work` in one commit, or nothing; failures as guarded() has them. */
export function transaction<Result>(db: RoutingDb, work: () => Result): Result {
  const { handle } = db;
  return guarded(db, () => {
    handle.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      handle.exec('COMMIT');
      return result;
    } catch (error) {
      // SQLite has rolled back by itself after some failures, a full disk for one.
      if (handle.isTransaction) handle.exec('ROLLBACK');
      throw error;
    }
  });
}
