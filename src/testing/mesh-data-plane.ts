// A small data plane for tests of the WireGuard machine, over node:crypto: it seals, opens and queues transport packets as
// the device's threads do, and holds the machine to its promises on the way: no keypair beyond its time, none twice, no more
// than three, no sending with one that the peer may not have, keys zeroed once they are handed over.

import assert from 'node:assert/strict';
import { AllowedIpsTable } from '../mesh/protocol/allowed-ips.ts';
import { DeviceMachine } from '../mesh/protocol/device-machine.ts';
import { readIndex, TRANSPORT, writeIndex } from '../mesh/protocol/messages.ts';
import type { DevicePort, DeviceWorld, KeyPair, PeerActivity } from '../mesh/protocol/port.ts';
import { acceptCounter, REPLAY_WORDS } from '../mesh/protocol/replay-window.ts';
import type { ProtocolTimes } from '../mesh/protocol/times.ts';
import { open, seal } from '../mesh/protocol/xchacha.ts';

const PEERS_MAX = 8;
const PREFIXES_MAX = 64;
const QUEUE_MAX = 32;
const NOTHING = new Uint8Array(0);

interface Keys {
  readonly pair: KeyPair;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly window: Int32Array;
  sent: number;
  isConfirmed: boolean;
}

interface Row {
  readonly keys: Map<number, Keys>;
  readonly queue: Uint8Array[];
  readonly activity: PeerActivity;
  current: Keys | null;
  endpoint: Uint8Array | null;
  hasNews: boolean;
  /** Since when there is something to report. */
  newsMs: number;
  dropped: number;
}

export interface DataPlaneOptions {
  readonly world: DeviceWorld;
  readonly now: () => number;
  readonly transmit: (endpoint: Uint8Array, datagram: Uint8Array) => void;
  readonly deliver: (peer: number, packet: Uint8Array) => void;
  readonly times?: ProtocolTimes;
  /** What is not urgent is told this late. */
  readonly reportLagMs?: number;
}

function noActivity(): PeerActivity {
  return {
    sentAny: false,
    receivedAny: false,
    sentUnanswered: false,
    receivedUnanswered: false,
    keysUsed: -1,
    needsHandshake: false,
    endpoint: null,
  };
}

function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  writeIndex(nonce, 4, counter % 2 ** 32);
  writeIndex(nonce, 8, Math.floor(counter / 2 ** 32));
  return nonce;
}

export class MeshDataPlane implements DevicePort {
  readonly machine: DeviceMachine;
  /** Handshake and cookie messages sent, by type, and when. */
  readonly sentMessages: { readonly type: number; readonly now: number }[] = [];
  readonly table: AllowedIpsTable;
  readonly #options: DataPlaneOptions;
  readonly #rows = new Map<number, Row>();
  /** Keys that were handed over, and must be zero by now. */
  readonly #handed: Uint8Array[] = [];
  readonly #seenKeys = new Set<string>();

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.table = new AllowedIpsTable(
      new SharedArrayBuffer(AllowedIpsTable.bytes(PREFIXES_MAX)),
      0,
      PREFIXES_MAX,
    );
    this.machine = new DeviceMachine({
      port: this,
      world: options.world,
      peersMax: PEERS_MAX,
      prefixesMax: PREFIXES_MAX,
      allowedIps: this.table,
      ...(options.times && { times: options.times }),
    });
  }

  /** Packets to the peer that were given up. */
  dropped(peer: number): number {
    return this.#row(peer).dropped;
  }

  endpoint(peer: number): Uint8Array | null {
    return this.#row(peer).endpoint;
  }

  keypairs(peer: number): number {
    return this.#row(peer).keys.size;
  }

  hasCurrent(peer: number): boolean {
    return this.#row(peer).current !== null;
  }

  peers(): number[] {
    return [...this.#rows.keys()];
  }

  /** An inner packet to a peer. */
  send(peer: number, packet: Uint8Array): void {
    const row = this.#row(peer);
    row.queue.push(packet);
    if (row.queue.length > QUEUE_MAX) row.queue.shift();
    this.flushQueue(peer);
    if (row.queue.length > 0) {
      row.activity.needsHandshake = true;
      this.#noteNews(row);
    }
    this.report();
  }

  /** A datagram from the network. */
  receive(datagram: Uint8Array, source: Uint8Array): void {
    if (datagram[0] === TRANSPORT.type) this.#open(datagram, source);
    else this.machine.handleMessage(this.#options.now(), datagram, source);
    this.report();
  }

  tick(): void {
    const now = this.#options.now();
    this.machine.tick(now);
    this.report();
    assert.ok(this.machine.nextDeadline() > now, 'a deadline that was not met');
    for (const { keys } of this.#rows.values()) {
      for (const { pair } of keys.values())
        assert.ok(now < pair.expiresAtMs, 'keys beyond their time');
    }
  }

  /** Tells the machine what happened, until nothing more happens. */
  report(): void {
    for (const key of this.#handed.splice(0)) assert.ok(key.every((byte) => byte === 0));
    for (let round = 0; round < 10; round++) {
      const rows = [...this.#rows].filter(([, row]) => this.#isDue(row));
      if (rows.length === 0) return;
      for (const [peer, row] of rows) {
        const activity = { ...row.activity };
        Object.assign(row.activity, noActivity());
        row.hasNews = false;
        this.machine.noteActivity(this.#options.now(), peer, activity);
      }
    }
    assert.fail('the machine and the data plane keep each other busy');
  }

  /** When the next report is due. */
  nextReportMs(): number {
    let timeMs = Infinity;
    for (const row of this.#rows.values()) {
      if (row.hasNews) timeMs = Math.min(timeMs, row.newsMs + (this.#options.reportLagMs ?? 0));
    }
    return timeMs;
  }

  #isDue({ hasNews, newsMs, activity }: Row): boolean {
    if (activity.keysUsed >= 0 || activity.needsHandshake) return hasNews;
    return hasNews && this.#options.now() >= newsMs + (this.#options.reportLagMs ?? 0);
  }

  #noteNews(row: Row): void {
    if (!row.hasNews) row.newsMs = this.#options.now();
    row.hasNews = true;
  }

  #open(datagram: Uint8Array, source: Uint8Array): void {
    if (datagram.length < TRANSPORT.bytes || readIndex(datagram, 0) !== TRANSPORT.type) return;
    const localIndex = readIndex(datagram, TRANSPORT.receiver);
    for (const [peer, row] of this.#rows) {
      const keys = row.keys.get(localIndex);
      if (keys === undefined || this.#options.now() >= keys.pair.expiresAtMs) continue;
      const low = readIndex(datagram, TRANSPORT.counter);
      const high = readIndex(datagram, TRANSPORT.counter + 4);
      const sealed = datagram.subarray(TRANSPORT.packet);
      const packet = open(keys.receiveKey, nonceOf(high * 2 ** 32 + low), sealed, NOTHING);
      if (packet === null || !acceptCounter(keys.window, 0, low | 0, high | 0)) return;
      this.#noteReceived(row, keys, packet, source);
      if (packet.length > 0) this.#options.deliver(peer, packet);
    }
  }

  #noteReceived(row: Row, keys: Keys, packet: Uint8Array, source: Uint8Array): void {
    const { activity } = row;
    this.#noteNews(row);
    activity.receivedAny = true;
    activity.sentUnanswered = false;
    if (packet.length > 0) activity.receivedUnanswered = true;
    if (!keys.isConfirmed) activity.keysUsed = keys.pair.localIndex;
    keys.isConfirmed = true;
    if (row.endpoint === null || Buffer.compare(row.endpoint, source) !== 0) {
      activity.endpoint = Uint8Array.from(source);
    }
  }

  #seal(row: Row, keys: Keys, packet: Uint8Array): void {
    assert.ok(keys.isConfirmed, 'sent with a keypair that the peer may not have');
    const datagram = new Uint8Array(TRANSPORT.bytes + packet.length);
    datagram[0] = TRANSPORT.type;
    writeIndex(datagram, TRANSPORT.receiver, keys.pair.remoteIndex);
    const counter = keys.sent++;
    datagram.set(nonceOf(counter).subarray(4), TRANSPORT.counter);
    datagram.set(seal(keys.sendKey, nonceOf(counter), packet, NOTHING), TRANSPORT.packet);
    this.#noteNews(row);
    row.activity.sentAny = true;
    row.activity.receivedUnanswered = false;
    if (packet.length > 0) row.activity.sentUnanswered = true;
    if (row.endpoint !== null) this.#options.transmit(row.endpoint, datagram);
  }

  #usable(row: Row): Keys | null {
    const keys = row.current;
    return keys !== null && this.#options.now() < keys.pair.expiresAtMs ? keys : null;
  }

  #row(peer: number): Row {
    const row = this.#rows.get(peer);
    assert.ok(row, `row ${peer} is free`);
    return row;
  }

  sendMessage(endpoint: Uint8Array, message: Uint8Array): void {
    this.sentMessages.push({ type: message[0] as number, now: this.#options.now() });
    this.#options.transmit(endpoint, Uint8Array.from(message));
  }

  addPeer(peer: number): void {
    assert.ok(!this.#rows.has(peer) && peer >= 0 && peer < PEERS_MAX);
    this.#rows.set(peer, {
      keys: new Map(),
      queue: [],
      activity: noActivity(),
      current: null,
      endpoint: null,
      hasNews: false,
      newsMs: 0,
      dropped: 0,
    });
  }

  removePeer(peer: number): void {
    assert.equal(this.#row(peer).keys.size, 0, 'keys of a peer that is removed');
    this.#rows.delete(peer);
  }

  setEndpoint(peer: number, endpoint: Uint8Array): void {
    this.#row(peer).endpoint = Uint8Array.from(endpoint);
  }

  installKeys(peer: number, pair: KeyPair): void {
    const row = this.#row(peer);
    const sendKey = Uint8Array.from(pair.sendKey);
    const name = Buffer.from(sendKey).toString('hex');
    assert.ok(!this.#seenKeys.has(name), 'a key for the second time');
    this.#seenKeys.add(name);
    assert.equal(pair.role, pair.isInitiator ? 'current' : 'next');
    const keys: Keys = {
      pair,
      sendKey,
      receiveKey: Uint8Array.from(pair.receiveKey),
      window: new Int32Array(REPLAY_WORDS),
      sent: 0,
      isConfirmed: pair.isInitiator,
    };
    row.keys.set(pair.localIndex, keys);
    assert.ok(row.keys.size <= 3, 'more than three keypairs');
    if (pair.role === 'current') row.current = keys;
    this.#handed.push(pair.sendKey, pair.receiveKey);
  }

  promoteKeys(peer: number, localIndex: number): void {
    const row = this.#row(peer);
    const keys = row.keys.get(localIndex);
    assert.ok(keys);
    row.current = keys;
  }

  removeKeys(peer: number, localIndex: number): void {
    const row = this.#row(peer);
    const keys = row.keys.get(localIndex);
    assert.ok(keys, 'keys that were never installed, or removed before');
    row.keys.delete(localIndex);
    if (row.current === keys) row.current = null;
  }

  flushQueue(peer: number): void {
    const row = this.#row(peer);
    const keys = this.#usable(row);
    if (keys === null) return;
    for (const packet of row.queue.splice(0)) this.#seal(row, keys, packet);
  }

  dropQueue(peer: number): void {
    const row = this.#row(peer);
    row.dropped += row.queue.splice(0).length;
  }

  sendKeepalive(peer: number): void {
    const row = this.#row(peer);
    const keys = this.#usable(row);
    assert.ok(keys, 'a keepalive without keys');
    if (row.queue.length > 0) this.flushQueue(peer);
    else this.#seal(row, keys, NOTHING);
  }
}
