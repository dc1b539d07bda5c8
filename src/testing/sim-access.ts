// The access list of a simulation: rows that change at random, compiled as the control plane does it.

import { compileAccess } from '../control/access-rows.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { type AccessRowText, allowedByRows } from './access-reference.ts';
import { fillAddress } from './sim-clients.ts';
import { COUNTRIES } from './sim-options.ts';
import type { SimRandom } from './sim-random.ts';
import { fail } from './sim-trace.ts';
import type { SimWorld } from './sim-world.ts';

/** A list as a worker takes it. */
export interface SimAccessList {
  readonly rows: readonly AccessRowText[];
  readonly buffer: SharedArrayBuffer;
}

export const NO_ACCESS_LIST: SimAccessList = { rows: [], buffer: new SharedArrayBuffer(0) };

const ROWS_MAX = 8;
/** Of the simulated clients (sim-world.ts): countries, wide and narrow prefixes, none at all. */
const MATCHES = [
  ...['BR', 'us', 'CL', '*', '20.0.0.0/15', '20.1.0.0/16', '20.3.0.0/29', '20.200.0.0/24'],
  ...['20.0.0.0/8', '::/0', '2001:db8::/32', '2001:db8::/124', '2001:db8::4', '192.0.2.0/24'],
];

export class SimAccess {
  #rows: readonly AccessRowText[] = [];
  readonly #random: SimRandom;
  readonly #apps: ReadonlyMap<string, number>;

  /** `apps`: index by name, of those with a listener. */
  constructor(random: SimRandom, apps: ReadonlyMap<string, number>) {
    this.#random = random;
    this.#apps = apps;
  }

  /** Drops and adds rows; often all are dropped, and everyone allowed, because a denied client simulates little. */
  change(): SimAccessList {
    const random = this.#random;
    const kept = random.chance(0.4) ? [] : this.#rows.filter(() => random.chance(0.7));
    const added = Array.from({ length: random.whole(0, 3) }, () => ({
      app: random.pick(['*', '*', ...this.#apps.keys()]),
      action: random.pick(['allow', 'deny']),
      match: random.pick(MATCHES),
    }));
    if (random.chance(0.6)) added.push({ app: '*', action: 'allow', match: '*' });
    this.#rows = [...kept, ...added].slice(-ROWS_MAX);
    const table = this.#rows.map(({ app, action, match }) => [app, action, match, null] as const);
    const { buffer, problems } = compileAccess(table, this.#apps);
    if (problems.length > 0) fail(`An access row was refused: ${problems[0]?.reason}`);
    return { rows: this.#rows, buffer };
  }
}

/** Whether the list in force at a worker lets in the client of a connection, `end` being the worker's. */
export function isLetIn(world: SimWorld, worker: number, end: number): boolean {
  const peer: PeerAddress = { family: 4, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 };
  fillAddress(world.clientOf[end ^ 1] as number, world.options.clients, peer);
  const { family, w0, w1, w2, w3 } = peer;
  return allowedByRows(world.workers[worker]?.access.rows ?? [], {
    app: world.listenerOf[end ^ 1] === 0 ? '*' : 'alpha',
    words: [w0, w1, family === 4 ? 0xffff : w2, w3],
    country: family === 4 ? (COUNTRIES[(w3 >>> 16) & 0xff] ?? '') : '',
  });
}
