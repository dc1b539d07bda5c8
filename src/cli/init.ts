// `edgeproxy init`: makes routing.db, or brings an older table up to date.

import { type ConfigFlags, loadConfig } from '../config.ts';
import { initRoutingDb } from '../control/routing-db.ts';
import { EXIT_DONE, print } from './output.ts';

export function init(flags: ConfigFlags): number {
  const { dbPath } = loadConfig(flags, process.env, ['dbPath']);
  const result = initRoutingDb(dbPath);
  if (result === 'created') {
    print(
      `Created ${dbPath}, add a backend with: edgeproxy backend add ID IP:PORT --region REGION`,
    );
  } else if (result === 'upgraded') {
    print(`Added the missing columns to ${dbPath}; its rows are as they were`);
  } else {
    print(`${dbPath} is there already; nothing was changed`);
  }
  return EXIT_DONE;
}
