// All checks, in the order an operator would want to read them.

import type { Config } from '../../config.ts';
import { descriptorLimit } from '../../sys/rlimit.ts';
import { closeRoutingDb, openRoutingDb, readRouting } from '../routing-db.ts';
import {
  capacityOf,
  checkConntrack,
  checkCores,
  checkDescriptors,
  checkMemory,
  checkPorts,
} from './capacity.ts';
import { advice, type Finding, ok } from './finding.ts';
import type { Machine } from './machine.ts';
import { checkMesh } from './mesh.ts';
import {
  checkFastOpen,
  checkIdleChain,
  checkMtu,
  checkQueues,
  checkSocketBuffers,
  checkSynCookies,
  checkTimeWait,
} from './network.ts';
import { checkClock, checkEngine, checkGeoData, checkKernel, checkPrivileges } from './platform.ts';
import { checkBackends } from './reach.ts';

/** What will happen on `machine` with these settings. Throws where `run` would: no database, bad country data. */
export async function examine(config: Config, machine: Machine): Promise<Finding[]> {
  const db = openRoutingDb(config.dbPath);
  const { backends, problems } = readRouting(db);
  closeRoutingDb(db);
  const rows: Finding =
    problems.length === 0
      ? ok('routing_db', `${backends.length} backends in ${config.dbPath}`)
      : {
          check: 'routing_db',
          status: 'warn',
          text: `${problems.length} rows of ${config.dbPath} are not used as they are written`,
          remedy: advice('edgeproxy backend list says which, and why'),
        };
  const capacity = capacityOf(config, backends, descriptorLimit());
  return [
    rows,
    await checkBackends(backends, config.connectTimeoutMs),
    checkEngine(config, machine),
    checkKernel(machine),
    checkPrivileges(config, machine, process.getuid?.() ?? 0),
    checkDescriptors(capacity),
    checkPorts(capacity, machine),
    checkMemory(capacity, machine),
    checkConntrack(capacity, machine),
    checkCores(capacity, machine),
    ...checkQueues(machine),
    ...checkSocketBuffers(machine),
    checkFastOpen(config, machine),
    checkTimeWait(machine),
    checkSynCookies(machine),
    checkMtu(machine, config.meshInterface),
    checkIdleChain(config, machine),
    checkClock(machine),
    checkGeoData(config, Date.now()),
    ...(await checkMesh(config, machine)),
  ];
}
