// The mesh demo's stage: network, hosts, backends; how they are looked at; and that nothing of them is left. The story on it
// is in story.ts.

import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ProxyError } from '../../base/errors.ts';
import type { MeshData } from '../../control/api/response-schemas.ts';
import { ADMIN_PORT, DemoHost, HTTP_PORT } from './host.ts';
import { CLIENTS, DemoNetwork } from './network.ts';
import { PLACES } from './places.ts';
import { demoPrefix, interfacePrefix, removeRemains } from './remains.ts';
import { askIn, DemoSockets } from './sockets.ts';

const LOOK_MS = 100;
/** What does not happen by then does not happen; a busy machine is slow. */
const WAIT_MS_MAX = 60_000;

type Mesh = NonNullable<MeshData['mesh']>;
export type PeerView = Mesh['peers'][number];

/** Letters only: the sockets of devices are told apart by them (remains.ts). */
function interfaceName({ kind, region }: (typeof PLACES)[number]): string {
  return `${interfacePrefix(process.pid)}${region}${kind === 'pop' ? '' : 'b'}`;
}

export class DemoStage {
  readonly network = new DemoNetwork(demoPrefix(process.pid));
  readonly sockets = new DemoSockets();
  readonly directory = mkdtempSync(join(tmpdir(), `${demoPrefix(process.pid)}-`));
  readonly hosts: readonly DemoHost[];
  /** Aborted: the demo is to end. */
  readonly signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.signal = signal;
    this.hosts = PLACES.map(
      (place) =>
        new DemoHost({
          place,
          namespace: this.network.namespace(place.name),
          directory: this.directory,
          interfaceName: interfaceName(place),
        }),
    );
  }

  get pops(): DemoHost[] {
    return this.hosts.filter(({ place }) => place.kind === 'pop');
  }

  get backends(): DemoHost[] {
    return this.hosts.filter(({ place }) => place.kind === 'backend');
  }

  host(name: string): DemoHost {
    const found = this.hosts.find(({ place }) => place.name === name);
    if (found === undefined) throw new Error(`There is no host ${name}`);
    return found;
  }

  /** Does the same on several hosts at once. Ends only when all of it has ended, and before it begins if the demo is to end. */
  async onAll(
    hosts: readonly DemoHost[],
    work: (host: DemoHost) => Promise<unknown>,
  ): Promise<void> {
    this.signal.throwIfAborted();
    const results = await Promise.allSettled(hosts.map(work));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** The backend that serves a client of this address at a POP; null: none, with what came instead. */
  async askBackend(from: string, pop: DemoHost): Promise<string | null> {
    const namespace = this.network.namespace(CLIENTS);
    const target = { namespace, from, host: pop.place.address, port: HTTP_PORT };
    return await askIn(target).then(
      ({ backend }) => backend,
      () => null,
    );
  }

  /** The tunnels of a POP as its admin API has them. */
  async mesh(pop: DemoHost): Promise<Mesh | null> {
    pop.checkRunning();
    const target = { namespace: pop.namespace, host: '127.0.0.1', port: ADMIN_PORT };
    const answer = await askIn(target, '/api/mesh').catch(() => null);
    return answer === null ? null : (JSON.parse(answer.text) as MeshData).mesh;
  }

  async peer(pop: DemoHost, id: string): Promise<PeerView | null> {
    return (await this.mesh(pop))?.peers.find((peer) => peer.id === id) ?? null;
  }

  /** Waits for something that is true soon. Throws ProxyError when it is not. */
  async until(what: string, isTrue: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + WAIT_MS_MAX;
    while (!(await isTrue())) {
      if (performance.now() > end) {
        const message = `Waited in vain for ${what} for ${WAIT_MS_MAX / 1000} s`;
        throw new ProxyError('ERR_DEMO_WAIT', message);
      }
      await delay(LOOK_MS, undefined, { signal: this.signal });
    }
  }

  /** Takes everything down. */
  async close(): Promise<void> {
    this.sockets.close();
    await Promise.allSettled(this.pops.map((pop) => pop.stop()));
    await removeRemains(process.pid);
  }
}
