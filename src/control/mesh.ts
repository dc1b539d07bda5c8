// The mesh of a running proxy: starts the helper process that may change the network, gives it the peers of routing.db, and
// knows how it is for metrics, the admin API and routing. What fails at the start ends the start; later the helper tries
// again by itself and the proxy goes on.

import { ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import { MeshHelper } from '../mesh/helper.ts';
import type { MeshOptions, MeshStatus } from '../mesh/keeper.ts';
import type { MeshPeer, PeerStatus } from '../mesh/peer.ts';
import { formatPrefix } from '../sys/prefix.ts';
import { compilePeers } from './mesh-rows.ts';
import type { RoutingRows } from './routing-db.ts';
import type { RowProblem } from './routing-rows.ts';

/** Skipped rows told one by one: a table of garbage must not fill the log. */
const PROBLEMS_TOLD_MAX = 20;

type MeshSettings = Pick<
  Config,
  'meshInterface' | 'meshDevice' | 'meshKeyPath' | 'meshListenPort' | 'meshAddress' | 'meshMtu'
>;

/** What the settings say of the device. */
export function meshOptions(config: MeshSettings, logs: boolean): MeshOptions {
  return {
    interface: config.meshInterface,
    device: config.meshDevice,
    keyPath: config.meshKeyPath,
    listenPort: config.meshListenPort,
    addresses: config.meshAddress,
    mtu: config.meshMtu,
    logs,
  };
}

export class Mesh {
  readonly options: MeshOptions;
  readonly #logger: Logger;
  readonly #helper: MeshHelper;
  /** Whether it is not ours to remove when the start fails. */
  #isAdopted = true;
  /** The table as it was last compiled. */
  #compiled = '';
  #peers: readonly MeshPeer[] = [];
  #problems: readonly RowProblem[] = [];
  /** Why the table could not be read the last time, '' when it could. */
  #failure = '';
  #readErrors = 0;

  constructor(config: Config, logger: Logger) {
    this.options = meshOptions(config, true);
    this.#logger = logger;
    this.#helper = new MeshHelper(this.options, (level, message, fields) =>
      logger[level](message, fields),
    );
  }

  /** Makes or adopts the device. Throws ProxyError. */
  async open(): Promise<void> {
    const { device, why, isAdopted, publicKey, addresses } = await this.#helper.up();
    this.#isAdopted = isAdopted;
    const { interface: name, listenPort } = this.options;
    this.#logger.info(isAdopted ? 'Mesh device adopted' : 'Mesh device made', {
      event: 'mesh_device',
      interface: name,
      device,
      why,
      publicKey,
      listenPort,
      addresses: addresses.map(formatPrefix),
    });
  }

  /** The peers of the start. Throws ProxyError: the table, or the mesh, cannot be used. */
  async setPeers(table: RoutingRows['peers']): Promise<void> {
    if (table instanceof ProxyError) throw table;
    this.#compile(table);
    await this.#helper.setPeers(this.#peers);
  }

  /** After a change of routing.db. */
  update(table: RoutingRows['peers']): void {
    if (table instanceof ProxyError) {
      const { message: reason } = table;
      if (reason === this.#failure) return;
      this.#failure = reason;
      this.#readErrors++;
      const fields = { event: 'mesh_unreadable', reason };
      this.#logger.error('The peers table cannot be read, the last good peers stay', fields);
      return;
    }
    this.#failure = '';
    if (this.#compile(table)) this.#helper.changePeers(this.#peers);
  }

  /** Those in use. */
  get peers(): readonly MeshPeer[] {
    return this.#peers;
  }

  get problems(): readonly RowProblem[] {
    return this.#problems;
  }

  /** What the device says of each peer, a second old at most. */
  status(): readonly PeerStatus[] {
    return this.state?.peers ?? [];
  }

  /** null while it is not known. */
  get state(): MeshStatus | null {
    return this.#helper.status;
  }

  /** Changes that could not be read or applied. */
  get errors(): number {
    return this.#readErrors + (this.state?.errors ?? 0);
  }

  /** The most that routes to a peer carry, as found out on the way to it; null: what its row and the interface say. */
  setPathMtu(id: string, mtu: number | null): void {
    this.#helper.setPathMtu(id, mtu);
  }

  /** Another process keeps the mesh from now on, or it is meant to stay. */
  release(): void {
    void this.#helper.close(false);
  }

  /** Removes the interface; the process ends once that is done. */
  close(): void {
    void this.#helper.close(true);
  }

  /** A start that failed: leaves what was there before, and nothing else. */
  abandon(): void {
    void this.#helper.close(!this.#isAdopted);
  }

  /** True when the peers are others than before. */
  #compile(table: readonly (readonly (string | null)[])[]): boolean {
    const text = JSON.stringify(table);
    if (text === this.#compiled) return false;
    this.#compiled = text;
    const { peers, problems } = compilePeers(table, this.state);
    const isChanged = JSON.stringify(peers) !== JSON.stringify(this.#peers);
    this.#peers = peers;
    this.#problems = problems;
    for (const { id, column, value, reason } of problems.slice(0, PROBLEMS_TOLD_MAX)) {
      const fields = { event: 'routing_problem', table: 'peers', id, column, value, reason };
      this.#logger.warn('A row of routing.db is skipped', fields);
    }
    const more = problems.length - PROBLEMS_TOLD_MAX;
    if (more > 0) {
      this.#logger.warn('More rows of routing.db are skipped', { table: 'peers', count: more });
    }
    return isChanged;
  }
}

/**
 * The device is there when this resolves, without peers yet. To be called with the privileges that the process starts with.
 * Throws ProxyError.
 */
export async function startMesh(config: Config, logger: Logger): Promise<Mesh> {
  const mesh = new Mesh(config, logger);
  try {
    await mesh.open();
    return mesh;
  } catch (error) {
    mesh.abandon();
    throw error;
  }
}
