// The WireGuard protocol of one device: all peers, the indices by which messages find them, the checks that come before
// anything costly (mac1, load, mac2, rate), and the configuration. No I/O and no clock: see port.ts.

import { timingSafeEqual } from 'node:crypto';
import { AllowedIps, type AllowedIpsTable } from './allowed-ips.ts';
import { checkChange, keyName } from './configuration.ts';
import { CookieJar } from './cookies.ts';
import { openInitiation } from './handshake.ts';
import { deriveIdentity, deriveRemote, type Identity, NO_PRESHARED_KEY } from './identity.ts';
import { LoadMeter, SourceLimits } from './load.ts';
import { COOKIE_REPLY, handshakeType, RESPONSE, readIndex } from './messages.ts';
import { Peer, type PeerHost } from './peer.ts';
import {
  type DeviceChange,
  type DeviceMachinePort,
  type DevicePort,
  type DeviceState,
  type DeviceWorld,
  ENDPOINT_BYTES,
  type PeerActivity,
  type PeerChange,
  type PeerState,
} from './port.ts';
import { PROTOCOL_TIMES, type ProtocolTimes } from './times.ts';
import { clamp } from './x25519.ts';

const NEVER = Number.POSITIVE_INFINITY;

export interface DeviceOptions {
  readonly port: DevicePort;
  readonly world: DeviceWorld;
  /** Rows of the tables of peers. */
  readonly peersMax: number;
  /** What `allowedIps` has room for. */
  readonly prefixesMax: number;
  readonly allowedIps: AllowedIpsTable;
  readonly times?: ProtocolTimes;
}

export class DeviceMachine implements DeviceMachinePort, PeerHost {
  readonly port: DevicePort;
  readonly world: DeviceWorld;
  readonly times: ProtocolTimes;
  readonly #limits: { readonly peersMax: number; readonly prefixesMax: number };
  readonly #allowedIps: AllowedIps;
  /** By public key, in the order in which they were added. */
  readonly #peers = new Map<string, Peer>();
  readonly #rows: (Peer | undefined)[] = [];
  /** Rows that are free, the one that has been so for the longest time first. */
  readonly #freeRows: number[];
  /** Of initiations that wait and of keypairs. */
  readonly #indices = new Map<number, Peer>();
  readonly #load: LoadMeter;
  readonly #sources = new SourceLimits();
  /** A peer was removed since the allowed IPs were published. */
  #hasRemoved = false;
  #privateKey: Uint8Array | null = null;
  #identity: Identity | null = null;
  #cookies: CookieJar | null = null;

  constructor(options: DeviceOptions) {
    this.port = options.port;
    this.world = options.world;
    this.times = options.times ?? PROTOCOL_TIMES;
    this.#limits = options;
    this.#allowedIps = new AllowedIps(options.allowedIps, options.prefixesMax);
    this.#freeRows = Array.from({ length: options.peersMax }, (_, row) => row);
    this.#load = new LoadMeter(this.times.loadMs);
  }

  identity(): Identity | null {
    return this.#identity;
  }

  takeIndex(peer: Peer): number {
    const word = new Uint32Array(1);
    do this.world.random(new Uint8Array(word.buffer));
    while (this.#indices.has(word[0] as number));
    this.#indices.set(word[0] as number, peer);
    return word[0] as number;
  }

  dropIndex(localIndex: number): void {
    this.#indices.delete(localIndex);
  }

  handleMessage(now: number, message: Uint8Array, source: Uint8Array): void {
    const type = handshakeType(message);
    const own = this.#identity;
    if (type === 0 || own === null || source.length !== ENDPOINT_BYTES) return;
    if (type === COOKIE_REPLY.type) {
      this.#indices.get(readIndex(message, COOKIE_REPLY.receiver))?.acceptCookie(now, message);
    } else if (type === RESPONSE.type) {
      const localIndex = readIndex(message, RESPONSE.receiver);
      const peer = this.#indices.get(localIndex);
      if (peer === undefined || !this.#isAdmitted(now, message, source)) return;
      peer.acceptResponse(now, localIndex, message, source);
    } else if (this.#isAdmitted(now, message, source)) {
      this.#handleInitiation(now, own, message, source);
    }
  }

  #handleInitiation(now: number, own: Identity, message: Uint8Array, source: Uint8Array): void {
    const opened = openInitiation(own, message);
    if (opened === null) return;
    const peer = this.#peers.get(keyName(opened.publicKey));
    if (peer !== undefined) peer.acceptInitiation(now, opened, message, source);
    opened.transcript.forget();
  }

  /** Whether a message is worth the cost of its cryptography (paper §5.3). */
  #isAdmitted(now: number, message: Uint8Array, source: Uint8Array): boolean {
    const cookies = this.#cookies;
    if (cookies === null || !cookies.hasMac1(message)) return false;
    if (!this.#load.isLoaded(now)) return true;
    if (cookies.hasMac2(now, message, source)) return this.#sources.allows(now, source);
    this.port.sendMessage(source, cookies.reply(now, message, source));
    return false;
  }

  noteActivity(now: number, peer: number, activity: PeerActivity): void {
    this.#rows[peer]?.noteActivity(now, activity);
  }

  tick(now: number): void {
    for (const peer of this.#peers.values()) if (peer.deadline() <= now) peer.tick(now);
  }

  nextDeadline(): number {
    let deadline = NEVER;
    for (const peer of this.#peers.values()) deadline = Math.min(deadline, peer.deadline());
    return deadline;
  }

  configure(now: number, change: DeviceChange): void {
    const own = this.#privateKey;
    const present = [...this.#peers].map(([name, { row }]) => ({
      name,
      allowedIps: this.#allowedIps.of(row),
    }));
    checkChange(change, present, this.#identity?.publicKey ?? null, this.#limits);
    if (change.replacePeers) for (const name of [...this.#peers.keys()]) this.#remove(name);
    if (change.privateKey !== undefined) {
      const raw = Uint8Array.from(change.privateKey);
      const isNone = raw.every((byte) => byte === 0);
      if (!isNone) clamp(raw);
      // The same key again changes nothing: `wg syncconf` keeps sessions.
      if (isNone ? own !== null : own === null || !timingSafeEqual(own, raw)) {
        this.#changeIdentity(now, isNone ? null : raw);
      } else {
        raw.fill(0);
      }
    }
    for (const peerChange of change.peers ?? []) this.#configurePeer(now, peerChange);
    this.#publish();
  }

  #publish(): void {
    this.#hasRemoved = false;
    this.#allowedIps.publish();
  }

  #changeIdentity(now: number, raw: Uint8Array | null): void {
    this.#privateKey?.fill(0);
    this.#cookies?.forget();
    this.#privateKey = raw;
    this.#identity = raw === null ? null : deriveIdentity(raw);
    const own = this.#identity;
    this.#cookies = own === null ? null : new CookieJar(own, this.world, this.times);
    if (own !== null) this.#remove(keyName(own.publicKey));
    for (const peer of this.#peers.values()) {
      const { publicKey, presharedKey } = peer.remote;
      peer.changeIdentity(now, deriveRemote(own, publicKey, presharedKey));
    }
  }

  #configurePeer(now: number, change: PeerChange): void {
    const name = keyName(change.publicKey);
    if (this.#identity !== null && name === keyName(this.#identity.publicKey)) return;
    if (change.remove) {
      this.#remove(name);
      return;
    }
    let peer = this.#peers.get(name);
    if (peer === undefined) {
      if (change.updateOnly) return;
      peer = this.#add(name, change.publicKey);
    }
    const { presharedKey } = change;
    if (presharedKey && !timingSafeEqual(presharedKey, peer.remote.presharedKey)) {
      peer.setRemote(deriveRemote(this.#identity, change.publicKey, presharedKey));
    }
    if (change.endpoint !== undefined) peer.setEndpoint(now, change.endpoint);
    if (change.replaceAllowedIps) this.#allowedIps.removePeer(peer.row);
    for (const prefix of change.allowedIps ?? []) this.#allowedIps.set(prefix, peer.row);
    if (change.persistentKeepaliveSecs !== undefined) {
      peer.setPersistentKeepalive(now, change.persistentKeepaliveSecs);
    }
  }

  #add(name: string, publicKey: Uint8Array): Peer {
    // The data threads must not find a row by the prefixes of the peer that had it before.
    if (this.#hasRemoved) this.#publish();
    const row = this.#freeRows.shift()!;
    const remote = deriveRemote(this.#identity, publicKey, NO_PRESHARED_KEY);
    const peer = new Peer(row, remote, this);
    this.#rows[row] = peer;
    this.#peers.set(name, peer);
    this.port.addPeer(row);
    return peer;
  }

  #remove(name: string): void {
    const peer = this.#peers.get(name);
    if (peer === undefined) return;
    this.#allowedIps.removePeer(peer.row);
    this.#hasRemoved = true;
    this.#peers.delete(name);
    this.#rows[peer.row] = undefined;
    peer.close();
    this.#freeRows.push(peer.row);
  }

  state(): DeviceState {
    const peers: PeerState[] = [...this.#peers.values()].map((peer) => ({
      peer: peer.row,
      publicKey: peer.remote.publicKey,
      presharedKey: peer.remote.presharedKey,
      endpoint: peer.endpoint,
      lastHandshakeUnixMs: peer.lastHandshakeUnixMs,
      persistentKeepaliveSecs: peer.persistentKeepaliveSecs,
      allowedIps: this.#allowedIps.of(peer.row),
    }));
    return { privateKey: this.#privateKey, peers };
  }
}
