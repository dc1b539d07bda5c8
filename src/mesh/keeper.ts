// Keeps the mesh as it is wanted: one device, its key, peers, addresses and routes. Brings a device that ended back, applies
// again what failed, looks up endpoints that are names, and reads the device once a second. One job at a time; what goes
// wrong after the start is reported, counted and tried again. Needs CAP_NET_ADMIN.

import { lookup } from 'node:dns/promises';
import { errorMessage, ProxyError } from '../base/errors.ts';
import type { Prefix } from '../sys/prefix.ts';
import { planAddresses } from './addresses.ts';
import {
  adoptDevice,
  type DeviceKind,
  type FoundDevice,
  openDevice,
  removeDevice,
} from './device.ts';
import type { DeviceState, WantedPeer } from './device-state.ts';
import { publicKeyOf, readKeyFile } from './key.ts';
import { adjustLink, adjustRoutes, findLink, linkAddresses } from './link.ts';
import {
  allowedIpText,
  formatEndpoint,
  type MeshPeer,
  type PeerStatus,
  parseEndpoint,
} from './peer.ts';
import { mayAdministerNetwork, NO_ADMIN } from './programs.ts';

export interface MeshOptions {
  readonly interface: string;
  readonly device: 'auto' | DeviceKind;
  readonly keyPath: string;
  readonly listenPort: number;
  /** Empty: planned from the key. */
  readonly addresses: readonly Prefix[];
  readonly mtu: number;
  /** Whether a userspace device logs to our standard error; false: nowhere. */
  readonly logs: boolean;
}

/** How the mesh is. */
export interface MeshStatus {
  readonly device: DeviceKind;
  readonly why: string;
  readonly isAdopted: boolean;
  readonly publicKey: string;
  readonly addresses: readonly Prefix[];
  readonly peers: readonly PeerStatus[];
  /** Times the device ended by itself. */
  readonly restarts: number;
  /** Times a change could not be applied, or the device not be brought back. */
  readonly errors: number;
}

export type MeshReport = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields: Record<string, unknown>,
) => void;

const POLL_MS = 1000;
const RETRY_MS_FIRST = 250;
const RETRY_MS_MAX = 10_000;
/** A device that lived this long has nothing to do with the one before: the next restart is at once. */
const STABLE_MS = 60_000;
/** A session is replaced every 120 s: after this the peer may have another address (names only). */
const STALE_SECS = 135;
const LOOKUP_POLLS = 30;

export class MeshKeeper {
  readonly #options: MeshOptions;
  readonly #report: MeshReport;
  #privateKey = '';
  #publicKey = '';
  #addresses: readonly Prefix[] = [];
  #found!: FoundDevice;
  #watch: { close(): void } | null = null;
  #peers: readonly MeshPeer[] = [];
  /** Whether peers are known: an adopted device must not lose its own before. */
  #hasPeers = false;
  /** Endpoints as last set, by public key. */
  readonly #applied = new Map<string, string | null>();
  /** Addresses that names had when they were last looked up. */
  readonly #lookedUp = new Map<string, { host: string; family: 4 | 6 }>();
  /** What was found out about the way to a peer, by id. */
  readonly #pathMtus = new Map<string, number>();
  /** Where peers were when the device ended, by public key. */
  readonly #lastSeen = new Map<string, string>();
  #status: readonly PeerStatus[] = [];
  #jobs: Promise<void> = Promise.resolve();
  #poll: NodeJS.Timeout | undefined;
  #polls = 0;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = 0;
  #madeMs = 0;
  #isGone = false;
  #closed = false;
  #restarts = 0;
  #errors = 0;

  constructor(options: MeshOptions, report: MeshReport) {
    this.#options = options;
    this.#report = report;
  }

  /** Makes the device, or adopts it. Throws ProxyError. */
  async up(): Promise<void> {
    const { keyPath, addresses, interface: name } = this.#options;
    if (!mayAdministerNetwork()) {
      const message = `Cannot set up the mesh interface "${name}": ${NO_ADMIN}`;
      throw new ProxyError('ERR_MESH_PRIVILEGES', message, { source: 'usage' });
    }
    this.#privateKey = readKeyFile(keyPath);
    this.#publicKey = publicKeyOf(this.#privateKey);
    this.#addresses = addresses.length > 0 ? addresses : planAddresses(this.#publicKey).addresses;
    await this.#open();
  }

  /** How a device is that another process keeps; null when there is none. Changes nothing. */
  async look(peers: readonly MeshPeer[]): Promise<MeshStatus | null> {
    const device = await adoptDevice(this.#options);
    if (device === null) return null;
    this.#found = { device, isAdopted: true, why: 'it was there' };
    this.#peers = peers;
    const state = await device.read();
    this.#publicKey = state.publicKey ?? '';
    this.#addresses = await linkAddresses(this.#options.interface);
    this.#status = this.#statusOf(state);
    return this.status();
  }

  /** Applies these peers. Throws ProxyError when the device or the interface cannot be set up. */
  setPeers(peers: readonly MeshPeer[]): Promise<void> {
    this.#peers = peers;
    this.#hasPeers = true;
    return this.#queue(() => this.#apply());
  }

  /** As setPeers(); a failure is reported and tried again instead. */
  async followPeers(peers: readonly MeshPeer[]): Promise<void> {
    try {
      await this.setPeers(peers);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Routes to a peer carry no more than this; null: what its row and the interface say. */
  async setPathMtu(id: string, mtu: number | null): Promise<void> {
    if (mtu === null) this.#pathMtus.delete(id);
    else this.#pathMtus.set(id, mtu);
    await this.#queue(async () => {
      if (!this.#closed && !this.#isGone) await this.#adjustRoutes();
    }).catch((error: unknown) => this.#failed(error));
  }

  /** Reads the device regularly, brings it back when it ends. */
  keep(onStatus: (status: MeshStatus) => void): void {
    this.#follow();
    const poll = (): void => {
      void this.#queue(() => this.#look()).then(() => onStatus(this.status()));
    };
    this.#poll = setInterval(poll, POLL_MS);
    poll();
  }

  /** As status(), null before there is a device. */
  statusOrNull(): MeshStatus | null {
    return this.#madeMs === 0 ? null : this.status();
  }

  status(): MeshStatus {
    const { device, why, isAdopted } = this.#found;
    return {
      device: device.kind,
      why,
      isAdopted,
      publicKey: this.#publicKey,
      addresses: this.#addresses,
      peers: this.#status,
      restarts: this.#restarts,
      errors: this.#errors,
    };
  }

  /** Lets the device be as it is. */
  release(): void {
    this.#closed = true;
    clearInterval(this.#poll);
    clearTimeout(this.#retry);
    this.#watch?.close();
  }

  /** Removes the interface, and with it device, addresses and routes. */
  async down(): Promise<void> {
    this.release();
    await this.#jobs;
    if ((await findLink(this.#options.interface)) !== null) {
      await removeDevice(this.#options.interface);
    }
  }

  /** Jobs run one after the other; one that fails does not stop the next. */
  #queue(job: () => Promise<void>): Promise<void> {
    const done = this.#jobs.then(job);
    this.#jobs = done.catch(() => {});
    return done;
  }

  async #open(): Promise<void> {
    this.#found = await openDevice(this.#options);
    this.#applied.clear();
    this.#isGone = false;
    this.#madeMs = performance.now();
  }

  #follow(): void {
    this.#watch?.close();
    this.#watch = this.#found.device.watch(() => this.#ended());
  }

  async #apply(): Promise<void> {
    if (this.#closed || this.#isGone || !this.#hasPeers) return;
    const { listenPort, mtu, interface: name } = this.#options;
    const problems: unknown[] = [];
    const peers: WantedPeer[] = [];
    for (const peer of this.#peers) {
      const { publicKey, presharedKey, keepalive } = peer;
      const known = await this.#endpointOf(peer, problems);
      const endpoint = known ?? this.#lastSeen.get(publicKey) ?? null;
      const allowedIps = peer.allowedIps.map(allowedIpText);
      peers.push({ publicKey, presharedKey, endpoint, allowedIps, keepalive });
    }
    const wanted = { privateKey: this.#privateKey, listenPort, peers };
    const isChanged = await this.#found.device.configure(wanted, this.#applied);
    this.#applied.clear();
    this.#lastSeen.clear();
    for (const { publicKey, endpoint } of peers) this.#applied.set(publicKey, endpoint);
    await adjustLink(name, { addresses: this.#addresses.map(allowedIpText), mtu });
    // One route that another interface has is no reason to go without all others.
    await this.#adjustRoutes().catch((error: unknown) => problems.push(error));
    if (isChanged) {
      const fields = { event: 'mesh_applied', interface: name, peers: peers.length };
      this.#report('info', 'Mesh peers applied', fields);
    }
    for (const problem of problems) this.#failed(problem);
    if (problems.length === 0 && this.#isStable()) this.#retryMs = 0;
  }

  async #adjustRoutes(): Promise<void> {
    const { interface: name, mtu: most } = this.#options;
    const routes = this.#peers.flatMap(({ id, mtu, allowedIps }) => {
      const limits = [mtu ?? most, this.#pathMtus.get(id) ?? most];
      const least = Math.min(...limits);
      return allowedIps.map((prefix) => ({
        prefix: allowedIpText(prefix),
        mtu: least < most ? least : null,
      }));
    });
    await adjustRoutes(name, routes);
  }

  /** Address and port; null when the row has none, or when its name was never found. */
  async #endpointOf(peer: MeshPeer, problems: unknown[]): Promise<string | null> {
    if (peer.endpoint === null) return null;
    const parsed = parseEndpoint(peer.endpoint);
    if (typeof parsed === 'string') return null;
    if (parsed.family !== 0) return formatEndpoint(parsed);
    try {
      const { address, family } = await lookup(parsed.host);
      this.#lookedUp.set(parsed.host, { host: address, family: family === 6 ? 6 : 4 });
    } catch (cause) {
      const reason = (cause as NodeJS.ErrnoException).code ?? errorMessage(cause);
      const message = `Cannot look up "${parsed.host}", the endpoint of peer "${peer.id}": ${reason}`;
      problems.push(new ProxyError('ERR_MESH_LOOKUP', message, { retry: 'always', cause }));
    }
    const found = this.#lookedUp.get(parsed.host);
    return found === undefined ? null : formatEndpoint({ ...found, port: parsed.port });
  }

  /** Reads the device; finds out that it is gone where it cannot say so itself. */
  async #look(): Promise<void> {
    if (this.#closed || this.#isGone) return;
    try {
      this.#status = this.#statusOf(await this.#found.device.read());
    } catch (error) {
      if ((await findLink(this.#options.interface).catch(() => undefined)) === null) this.#ended();
      else this.#failed(error);
      return;
    }
    if (++this.#polls % LOOKUP_POLLS === 0 && this.#hasStaleName()) {
      await this.#apply().catch((error: unknown) => this.#failed(error));
    }
  }

  #statusOf(state: DeviceState): PeerStatus[] {
    const ids = new Map(this.#peers.map(({ publicKey, id }) => [publicKey, id]));
    return state.peers.flatMap((peer) => {
      const { publicKey, endpoint, latestHandshakeSecs, receivedBytes, sentBytes } = peer;
      const id = ids.get(publicKey);
      if (id === undefined) return [];
      return [{ id, publicKey, endpoint, latestHandshakeSecs, receivedBytes, sentBytes }];
    });
  }

  /** Whether a peer that is known by name has not been heard of for long. */
  #hasStaleName(): boolean {
    const before = Date.now() / 1000 - STALE_SECS;
    const stale = new Set(
      this.#status
        .filter(({ latestHandshakeSecs }) => latestHandshakeSecs < before)
        .map(({ id }) => id),
    );
    return this.#peers.some(({ id, endpoint }) => {
      const parsed = endpoint === null ? '' : parseEndpoint(endpoint);
      return typeof parsed !== 'string' && parsed.family === 0 && stale.has(id);
    });
  }

  /** Else the device is one that keeps ending: it is made again ever later. */
  #isStable(): boolean {
    return this.#restarts === 0 || performance.now() - this.#madeMs > STABLE_MS;
  }

  #ended(): void {
    if (this.#closed || this.#isGone) return;
    if (this.#isStable()) this.#retryMs = 0;
    this.#isGone = true;
    this.#restarts++;
    // Peers that call us know nothing of it, and would go on with keys that the new device has not: it calls them.
    for (const { publicKey, endpoint } of this.#status) {
      if (endpoint !== null) this.#lastSeen.set(publicKey, endpoint);
    }
    const fields = { event: 'mesh_device_ended', interface: this.#options.interface };
    this.#report('warn', 'The mesh device has ended, making it again', fields);
    this.#tryLater();
  }

  #failed(error: unknown): void {
    if (this.#closed) return;
    this.#errors++;
    const retryMs = this.#retryMs;
    this.#tryLater();
    this.#report('error', 'The mesh is not as it should be, trying again', {
      event: 'mesh_error',
      interface: this.#options.interface,
      reason: errorMessage(error),
      retryMs,
    });
  }

  #tryLater(): void {
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      void this.#queue(() => this.#repair());
    }, this.#retryMs);
    this.#retryMs = Math.min(RETRY_MS_MAX, Math.max(RETRY_MS_FIRST, this.#retryMs * 2));
  }

  async #repair(): Promise<void> {
    if (this.#closed) return;
    const wasGone = this.#isGone;
    try {
      if (wasGone) await this.#open();
      await this.#apply();
    } catch (error) {
      this.#failed(error);
      return;
    }
    if (!wasGone) return;
    this.#follow();
    const fields = { event: 'mesh_device_back', interface: this.#options.interface };
    this.#report('info', 'The mesh device is back', fields);
  }
}
