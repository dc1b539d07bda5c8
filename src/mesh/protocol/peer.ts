// The machine of one peer: its handshakes as initiator and responder, its keypairs, endpoint and timers (paper §5 and §6).
// Only device-machine.ts calls it, after it has checked mac1 and the load.

import { CookieHolder } from './cookies.ts';
import {
  createInitiation,
  createResponse,
  forgetInitiation,
  type OpenedInitiation,
  openResponse,
  openTimestamp,
  type SentInitiation,
  type TransportKeys,
} from './handshake.ts';
import { forgetRemote, type Identity, type Remote } from './identity.ts';
import { PeerTimers } from './peer-timers.ts';
import type { DevicePort, DeviceWorld, PeerActivity } from './port.ts';
import { type Session, Sessions } from './sessions.ts';
import { isLater, nextTai64n, TAI64N_BYTES } from './tai64n.ts';
import type { ProtocolTimes } from './times.ts';
import { X25519_BYTES } from './x25519.ts';

const LONG_AGO = Number.NEGATIVE_INFINITY;
const MS_PER_SEC = 1000;

/** What a peer needs of its device. */
export interface PeerHost {
  readonly port: DevicePort;
  readonly world: DeviceWorld;
  readonly times: ProtocolTimes;
  /** Null: the device has no private key. */
  identity(): Identity | null;
  /** A new local index, under which messages for this peer are found. */
  takeIndex(peer: Peer): number;
  dropIndex(localIndex: number): void;
}

export class Peer {
  readonly row: number;
  readonly #host: PeerHost;
  readonly #cookies: CookieHolder;
  readonly #timers: PeerTimers;
  readonly #sessions: Sessions;
  #remote: Remote;
  #endpoint: Uint8Array | null = null;
  #lastHandshakeUnixMs = 0;
  #initiation: SentInitiation | null = null;
  /** When the last initiation was sent. */
  #initiatedMs = LONG_AGO;
  /** Since when the peer is being tried; anew with each packet that waits for it. */
  #attemptMs = LONG_AGO;
  /** TAI64N of the last initiation sent, and of the last one accepted. */
  #timestampSent: Uint8Array = new Uint8Array(TAI64N_BYTES);
  #timestampSeen: Uint8Array = new Uint8Array(TAI64N_BYTES);
  #timestampSeenMs = LONG_AGO;
  /** The receiver's attempt to renew the current keypair shortly before it ends has been made. */
  #hasRenewed = false;

  constructor(row: number, remote: Remote, host: PeerHost) {
    this.row = row;
    this.#remote = remote;
    this.#host = host;
    this.#cookies = new CookieHolder(host.times);
    this.#timers = new PeerTimers(host.times, () => this.#fraction());
    this.#sessions = new Sessions(({ localIndex }) => {
      host.port.removeKeys(row, localIndex);
      host.dropIndex(localIndex);
    });
  }

  get remote(): Remote {
    return this.#remote;
  }

  get endpoint(): Uint8Array | null {
    return this.#endpoint;
  }

  get lastHandshakeUnixMs(): number {
    return this.#lastHandshakeUnixMs;
  }

  get persistentKeepaliveSecs(): number {
    return this.#timers.persistentIntervalMs / MS_PER_SEC;
  }

  deadline(): number {
    return Math.min(this.#timers.deadline(), this.#sessions.deadline());
  }

  /** Set by hand; an attempt that had nowhere to go starts at once. */
  setEndpoint(now: number, endpoint: Uint8Array): void {
    const hadNone = this.#endpoint === null;
    this.#roam(endpoint);
    if (hadNone && this.#timers.retransmitMs !== Number.POSITIVE_INFINITY) {
      this.#initiate(now, false);
    }
  }

  setPersistentKeepalive(now: number, secs: number): void {
    const wasOff = this.#timers.persistentIntervalMs === 0;
    this.#timers.persistentIntervalMs = secs * MS_PER_SEC;
    this.#timers.traversed(now);
    if (wasOff && secs > 0) this.#sendKeepalive(now);
  }

  /** Takes other derived keys: those for a new preshared key, which the next handshake uses. */
  setRemote(remote: Remote): void {
    forgetRemote(this.#remote);
    this.#remote = remote;
  }

  /** The device has another private key: nothing that was agreed on holds any more, and an attempt begins again. */
  changeIdentity(now: number, remote: Remote): void {
    const isTrying = this.#timers.retransmitMs !== Number.POSITIVE_INFINITY;
    this.#forgetSecrets();
    this.setRemote(remote);
    if (isTrying) this.#initiate(now, false);
  }

  /** The row is free after this. */
  close(): void {
    this.#forgetSecrets();
    forgetRemote(this.#remote);
    this.#host.port.removePeer(this.row);
  }

  #forgetSecrets(): void {
    this.#forgetInitiation();
    this.#sessions.dropAll();
    this.#cookies.forget();
    this.#timers.completed();
  }

  noteActivity(now: number, activity: PeerActivity): void {
    const { port, times } = this.#host;
    this.#sessions.expire(now);
    if (activity.keysUsed >= 0 && this.#sessions.promote(activity.keysUsed)) {
      port.promoteKeys(this.row, activity.keysUsed);
      this.#forgetInitiation();
      this.#complete();
      port.flushQueue(this.row);
    }
    if (activity.endpoint !== null) this.#roam(activity.endpoint);
    if (activity.receivedAny) {
      this.#timers.received(now);
      const renewMs = times.rejectAfterMs - times.keepaliveTimeoutMs - times.rekeyTimeoutMs;
      if (!this.#hasRenewed && this.#isInitiatorFor(now, renewMs)) {
        this.#hasRenewed = true;
        this.#initiate(now, false);
      }
    }
    if (activity.sentAny) {
      this.#timers.sent(now);
      if (this.#isInitiatorFor(now, times.rekeyAfterMs)) this.#initiate(now, false);
    }
    if (activity.sentUnanswered) this.#timers.sentData(now);
    if (activity.receivedUnanswered) this.#timers.receivedData(now);
    if (activity.needsHandshake) this.#wantSession(now);
  }

  tick(now: number): void {
    this.#sessions.expire(now);
    if (now >= this.#timers.retransmitMs) this.#retransmit(now);
    if (now >= this.#timers.keepaliveMs) {
      this.#timers.keepaliveFired(now);
      this.#sendKeepalive(now);
    }
    if (now >= this.#timers.silenceMs) {
      this.#timers.silenceMs = Number.POSITIVE_INFINITY;
      this.#forgetSource();
      this.#initiate(now, false);
    }
    if (now >= this.#timers.persistentMs) {
      this.#timers.traversed(now);
      this.#sendKeepalive(now);
    }
  }

  /** An initiation of this peer's static key, by what it says itself (paper §5.4.2 and §5.1). */
  acceptInitiation(
    now: number,
    opened: OpenedInitiation,
    message: Uint8Array,
    source: Uint8Array,
  ): void {
    const timestamp = openTimestamp(opened, this.#remote, message);
    if (timestamp === null || !isLater(timestamp, this.#timestampSeen)) return;
    if (now - this.#timestampSeenMs < this.#host.times.initiationGapMs) return;
    this.#timestampSeen = timestamp;
    this.#timestampSeenMs = now;
    this.#roam(source);
    this.#timers.received(now);
    // Both have begun at once: the initiation of the greater public key is the one that both go on with.
    const own = this.#host.identity();
    if (own !== null && Buffer.compare(own.publicKey, this.#remote.publicKey) < 0) {
      this.#forgetInitiation();
    }
    this.#respond(now, opened);
  }

  #respond(now: number, opened: OpenedInitiation): void {
    const host = this.#host;
    const localIndex = host.takeIndex(this);
    const answer = createResponse(opened, this.#remote, localIndex, this.#random());
    if (answer === null) {
      host.dropIndex(localIndex);
      return;
    }
    this.#cookies.writeMacs(now, this.#remote, answer.message);
    const session = this.#sessionOf(now, localIndex, false);
    this.#sessions.addNext(session);
    this.#install(session, answer);
    this.#send(now, answer.message);
  }

  /** A response to our initiation with this index (paper §5.4.3). */
  acceptResponse(now: number, localIndex: number, message: Uint8Array, source: Uint8Array): void {
    const own = this.#host.identity();
    const sent = this.#initiation;
    if (own === null || sent === null || sent.localIndex !== localIndex) return;
    const keys = openResponse(own, this.#remote, sent, message);
    if (keys === null) return;
    // The index goes on as that of the keypair.
    this.#initiation = null;
    forgetInitiation(sent);
    this.#roam(source);
    this.#timers.received(now);
    const session = this.#sessionOf(now, localIndex, true);
    this.#sessions.addCurrent(session);
    this.#install(session, keys);
    this.#complete();
    // The first packet shows the responder that we have the keys.
    this.#host.port.sendKeepalive(this.row);
  }

  acceptCookie(now: number, message: Uint8Array): void {
    this.#cookies.takeReply(now, this.#remote, message);
  }

  #sessionOf(now: number, localIndex: number, isInitiator: boolean): Session {
    const expiresMs = now + this.#host.times.rejectAfterMs;
    return { localIndex, isInitiator, createdMs: now, expiresMs };
  }

  #install(session: Session, keys: TransportKeys): void {
    const { sendKey, receiveKey, remoteIndex } = keys;
    this.#host.port.installKeys(this.row, {
      localIndex: session.localIndex,
      remoteIndex,
      sendKey,
      receiveKey,
      isInitiator: session.isInitiator,
      createdAtMs: session.createdMs,
      expiresAtMs: session.expiresMs,
      role: session.isInitiator ? 'current' : 'next',
    });
    sendKey.fill(0);
    receiveKey.fill(0);
  }

  #complete(): void {
    this.#timers.completed();
    this.#hasRenewed = false;
    this.#lastHandshakeUnixMs = this.#host.world.unixMs();
  }

  #isInitiatorFor(now: number, ageMs: number): boolean {
    const current = this.#sessions.current;
    return current?.isInitiator === true && now - current.createdMs >= ageMs;
  }

  /** A packet waits. A responder first gives the initiator time to send the packet that its keys wait for. */
  #wantSession(now: number): void {
    const { port, times } = this.#host;
    const { current, next } = this.#sessions;
    if (current !== null) {
      port.flushQueue(this.row);
    } else if (next !== null && now - next.createdMs < times.rekeyTimeoutMs) {
      this.#attemptMs = now;
      this.#timers.initiateAfter(next.createdMs + times.rekeyTimeoutMs);
    } else {
      this.#initiate(now, false);
    }
  }

  #sendKeepalive(now: number): void {
    if (this.#sessions.current !== null) this.#host.port.sendKeepalive(this.row);
    else this.#wantSession(now);
  }

  #retransmit(now: number): void {
    if (now - this.#attemptMs < this.#host.times.rekeyAttemptMs) {
      this.#timers.completed();
      this.#forgetSource();
      this.#initiate(now, true);
      return;
    }
    this.#timers.gaveUp();
    this.#forgetInitiation();
    this.#host.port.dropQueue(this.row);
  }

  /** Sends the first message, at most one in the time of REKEY_TIMEOUT; without an endpoint the attempt waits for one. */
  #initiate(now: number, isRetry: boolean): void {
    const host = this.#host;
    if (!isRetry) this.#attemptMs = now;
    const allowedMs = this.#initiatedMs + host.times.rekeyTimeoutMs;
    if (now < allowedMs) {
      this.#timers.initiateAfter(allowedMs);
      return;
    }
    this.#forgetInitiation();
    this.#timers.initiated(now);
    const own = host.identity();
    if (own === null || this.#endpoint === null) return;
    this.#initiatedMs = now;
    this.#timestampSent = nextTai64n(host.world.unixMs(), this.#timestampSent);
    const index = host.takeIndex(this);
    const sent = createInitiation(own, this.#remote, index, this.#timestampSent, this.#random());
    if (sent === null) {
      host.dropIndex(index);
      return;
    }
    this.#initiation = sent;
    this.#cookies.writeMacs(now, this.#remote, sent.message);
    this.#send(now, sent.message);
  }

  #send(now: number, message: Uint8Array): void {
    if (this.#endpoint === null) return;
    this.#timers.sent(now);
    this.#host.port.sendMessage(this.#endpoint, message);
  }

  #forgetInitiation(): void {
    if (this.#initiation === null) return;
    this.#host.dropIndex(this.#initiation.localIndex);
    forgetInitiation(this.#initiation);
    this.#initiation = null;
  }

  /** Takes the source of an authenticated message as the endpoint (paper §2.1). */
  #roam(endpoint: Uint8Array): void {
    if (this.#endpoint !== null && Buffer.compare(this.#endpoint, endpoint) === 0) return;
    this.#endpoint = Uint8Array.from(endpoint);
    this.#host.port.setEndpoint(this.row, this.#endpoint);
  }

  /** The peer is not heard: the local address that its packets came to may be the wrong one by now. */
  #forgetSource(): void {
    if (this.#endpoint !== null) this.#host.port.setEndpoint(this.row, this.#endpoint);
  }

  #random(): Uint8Array {
    const random = new Uint8Array(X25519_BYTES);
    this.#host.world.random(random);
    return random;
  }

  #fraction(): number {
    const word = new Uint32Array(1);
    this.#host.world.random(new Uint8Array(word.buffer));
    return (word[0] as number) / 2 ** 32;
  }
}
