// The paths of the mesh and what routing makes of them. A backend belongs to the peer whose allowed IPs hold its address.
// While the path to that peer is degraded new clients find the backend one tier further back; while it is dead nobody is
// sent there (GATE_PATH), and neither health checks nor the breaker hold failures against the backend: what they found
// since the trouble began is taken back. Backends behind no peer are not touched.

import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import { PathMonitor, type PathStatus, type PathTarget, REAL_WORLD } from '../mesh/path-monitor.ts';
import type { PathSettings, PathState } from '../mesh/path-state.ts';
import type { MeshPeer } from '../mesh/peer.ts';
import { type EchoSockets, openEchoSockets, openProbePort } from '../mesh/probe-port.ts';
import { type BackendState, GATE_PATH } from '../route/backend-state.ts';
import { forgiveFailures, isBreakerOpen, resetBreaker } from '../route/breaker.ts';
import { createPathOwners, pathOwner } from '../route/path-owners.ts';
import { monotonicMs } from '../sys/clock.ts';
import { errnoName } from '../sys/errno.ts';
import { nativeRefusal } from '../sys/native.ts';
import type { HealthChecker } from './health.ts';
import type { Mesh } from './mesh.ts';
import type { BackendPath } from './path-view.ts';
import type { Publisher } from './publish.ts';
import type { RawBackend } from './routing-rows.ts';

const MS = 1000;
const STATUS_MS = 1000;
/** Peers that change together make one publication, not one each. */
const PUBLISH_MS = 100;
const HOST_BITS = 128;

interface PathRoutingParts {
  readonly publisher: Publisher;
  readonly health: HealthChecker | null;
  /** Gives the workers what the publisher makes of degrade(). */
  readonly publish: () => void;
}

interface Member {
  readonly id: string;
  readonly index: number;
}

function pathSettings(config: Config): PathSettings {
  return {
    intervalMs: config.meshProbeIntervalSecs * MS,
    deadMs: config.meshDeadSecs * MS,
    degradedLoss: config.meshDegradedLoss,
    degradedRttMs: config.meshDegradedRttMs,
    degradedRttFactor: config.meshDegradedRttFactor,
  };
}

/** IPv4 as IPv4-mapped. */
function mappedWords({ family, words }: RawBackend): readonly number[] {
  return family === 4 ? [0, 0, 0xffff, words[3] as number] : words;
}

function probeAddress(words: readonly number[]): PathTarget['address'] {
  const isV4 = words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
  return isV4 ? { family: 4, words: [0, 0, 0, words[3] as number] } : { family: 6, words };
}

export class PathRouting {
  readonly #mesh: Mesh;
  readonly #state: BackendState;
  readonly #logger: Logger;
  readonly #settings: PathSettings;
  readonly #echo: EchoSockets;
  #parts!: PathRoutingParts;
  #monitor!: PathMonitor;
  /** Backends of each peer. */
  #members: ReadonlyMap<string, readonly Member[]> = new Map();
  /** Peer by backend id. */
  #peerOf: ReadonlyMap<string, string> = new Map();
  #gated: ReadonlySet<number> = new Set();
  #degraded: ReadonlySet<string> = new Set();
  /** When the breaker of a backend opened, by index. */
  readonly #openedMs = new Map<number, number>();
  #publishTimer: NodeJS.Timeout | null = null;
  #statusTimer: NodeJS.Timeout | null = null;

  /** To be made with the privileges that the process starts with: it opens raw sockets. */
  constructor(config: Config, mesh: Mesh, state: BackendState, logger: Logger) {
    this.#mesh = mesh;
    this.#state = state;
    this.#logger = logger;
    this.#settings = pathSettings(config);
    this.#echo = nativeRefusal === '' ? openEchoSockets() : { sockets: [], problem: 0 };
    if (this.#echo.sockets.length < 2) {
      const reason = nativeRefusal || errnoName(this.#echo.problem);
      const fields = { event: 'path_probes_impossible', reason };
      logger.warn('Probes through the mesh are not possible, handshakes alone tell', fields);
    }
  }

  start(parts: PathRoutingParts): void {
    this.#parts = parts;
    const port = openProbePort(this.#echo, this.#mesh.options.interface);
    this.#monitor = new PathMonitor(
      {
        settings: this.#settings,
        port,
        onState: (status, from) => this.#turned(status, from),
        onMtu: (status, from) => this.#resized(status, from),
      },
      { nowMs: monotonicMs, ...REAL_WORLD },
    );
    this.#statusTimer = setInterval(() => this.#readDevice(), STATUS_MS).unref();
  }

  /** What the device says; its handshakes have times of the wall clock. */
  #readDevice(): void {
    const now = Date.now();
    for (const { id, latestHandshakeSecs, receivedBytes } of this.#mesh.status()) {
      const ageMs = latestHandshakeSecs === 0 ? null : now - latestHandshakeSecs * MS;
      this.#monitor.noteHandshake(id, ageMs === null ? null : Math.max(0, ageMs), receivedBytes);
    }
  }

  /** Follows peers and backends, after the publication of the latter. */
  update(backends: readonly RawBackend[]): void {
    const { peers } = this.#mesh;
    const owners = createPathOwners(peers.map(({ allowedIps }) => allowedIps));
    const members = new Map<string, Member[]>(peers.map(({ id }) => [id, []]));
    const peerOf = new Map<string, string>();
    const samples = new Map<string, RawBackend>();
    for (const row of backends) {
      const peer = peers[pathOwner(owners, mappedWords(row))];
      const index = this.#parts.publisher.backendIndex(row.id);
      if (peer === undefined || index === undefined) continue;
      members.get(peer.id)?.push({ id: row.id, index });
      peerOf.set(row.id, peer.id);
      if (!samples.has(peer.id) && !row.deleted) samples.set(peer.id, row);
    }
    this.#members = members;
    this.#peerOf = peerOf;
    this.#monitor.update(peers.map((peer) => this.#target(peer, samples.get(peer.id))));
    this.#apply();
  }

  #target({ id, allowedIps, mtu }: MeshPeer, sample: RawBackend | undefined): PathTarget {
    const host = allowedIps.find(({ length }) => length === HOST_BITS);
    const words = host?.words ?? (sample && mappedWords(sample));
    const most = this.#mesh.options.mtu;
    return {
      id,
      address: words === undefined ? null : probeAddress(words),
      mtuBytes: Math.min(mtu ?? most, most),
    };
  }

  /** Brings gates and tiers in line with the states. */
  #apply(): void {
    const gated = new Set<number>();
    const degraded = new Set<string>();
    for (const [peer, members] of this.#members) {
      const state = this.#monitor.status(peer)?.state;
      for (const { id, index } of members) {
        if (state === 'dead') gated.add(index);
        if (state === 'degraded') degraded.add(id);
      }
    }
    // Pairs with the loads in select.ts: once this has returned no worker adds a session there.
    for (const index of gated) Atomics.or(this.#state.gate, index, GATE_PATH);
    for (const index of this.#gated) {
      if (!gated.has(index)) Atomics.and(this.#state.gate, index, ~GATE_PATH);
    }
    this.#gated = gated;
    const isSame =
      degraded.size === this.#degraded.size && [...degraded].every((id) => this.#degraded.has(id));
    if (isSame) return;
    this.#degraded = degraded;
    this.#parts.publisher.degrade(degraded);
    this.#publishTimer ??= setTimeout(() => {
      this.#publishTimer = null;
      this.#parts.publish();
    }, PUBLISH_MS);
  }

  #turned(status: PathStatus, from: PathState): void {
    const { id, state, reason, troubleMs, rttMs, loss } = status;
    this.#apply();
    if (state === 'dead') this.#excuse(id, monotonicMs() - troubleMs);
    const backends = this.#members.get(id)?.length ?? 0;
    const fields = { peer: id, from, to: state, reason, backends, rttMs, loss };
    if (state === 'ok') {
      this.#logger.info('The path to a peer is good again', { event: 'path_ok', ...fields });
    } else if (state === 'degraded') {
      this.#logger.warn('The path to a peer is degraded', { event: 'path_degraded', ...fields });
    } else this.#logger.warn('The path to a peer is dead', { event: 'path_dead', ...fields });
  }

  /** After the gate is closed: what comes in from now on is not counted anyway. */
  #excuse(peer: string, sinceMs: number): void {
    for (const { id, index } of this.#members.get(peer) ?? []) {
      this.#parts.health?.excuse(index, sinceMs);
      if (!isBreakerOpen(this.#state, index)) forgiveFailures(this.#state, index);
      else if ((this.#openedMs.get(index) ?? Number.NEGATIVE_INFINITY) >= sinceMs) {
        resetBreaker(this.#state, index);
        const fields = { event: 'breaker_closed', backend: id, reason: 'the path was at fault' };
        this.#logger.info('A backend is taken back', fields);
      }
    }
  }

  #resized({ id, mtuBytes, mtuReduced }: PathStatus, fromBytes: number): void {
    this.#mesh.setPathMtu(id, mtuReduced ? mtuBytes : null);
    const fields = { event: 'path_mtu', peer: id, from: fromBytes, to: mtuBytes };
    if (mtuBytes < fromBytes) {
      this.#logger.warn('The path to a peer swallows large packets: its MTU is less', fields);
    } else this.#logger.info('The path to a peer takes larger packets', fields);
  }

  /** A worker opened or closed the breaker of a backend. */
  noteBreaker(index: number, opened: boolean): void {
    if (opened) this.#openedMs.set(index, monotonicMs());
    else this.#openedMs.delete(index);
  }

  /** The path to a peer; null: it is none of those in use. */
  peer(id: string): PathStatus | null {
    return this.#monitor.status(id);
  }

  /** The path to a backend; null: it is behind no peer. */
  backend(id: string): BackendPath | null {
    const peer = this.#peerOf.get(id);
    const status = peer === undefined ? null : this.#monitor.status(peer);
    return peer === undefined || status === null ? null : { ...status, peer };
  }

  statuses(): Iterable<PathStatus> {
    return this.#monitor.statuses();
  }

  /** How many backends are one tier back, and how many are out. */
  get counts(): { readonly degraded: number; readonly dead: number } {
    return { degraded: this.#degraded.size, dead: this.#gated.size };
  }

  /** Ends the probes; gates stay as they are. */
  close(): void {
    this.#monitor.close();
    if (this.#statusTimer !== null) clearInterval(this.#statusTimer);
    if (this.#publishTimer !== null) clearTimeout(this.#publishTimer);
  }
}
