// The two MACs at the end of a handshake message, and the cookies behind the second (paper §5.3, §5.4.4 and §5.4.7). mac1
// shows that the sender knows our public key, and is checked before anything costly. Under load a message must also show,
// by a cookie that we sent to its source address, that it comes from there: mac2.

import { timingSafeEqual } from 'node:crypto';
import { MAC_BYTES, mac } from './blake2s.ts';
import type { Identity, Remote } from './identity.ts';
import { COOKIE_REPLY, field, INITIATION, RESPONSE, readIndex, writeIndex } from './messages.ts';
import type { DeviceWorld } from './port.ts';
import type { ProtocolTimes } from './times.ts';
import { TAG_BYTES, XNONCE_BYTES, xopen, xseal } from './xchacha.ts';

const SECRET_BYTES = 32;

/** Where mac1 of an initiation or response is; mac2 follows it and ends the message. */
function mac1Offset(message: Uint8Array): number {
  return message[0] === INITIATION.type ? INITIATION.mac1 : RESPONSE.mac1;
}

function macMatches(key: Uint8Array, message: Uint8Array, at: number): boolean {
  const expected = mac(key, message.subarray(0, at));
  return timingSafeEqual(expected, message.subarray(at, at + MAC_BYTES));
}

/** Of the receiver: checks both MACs and gives out cookies. */
export class CookieJar {
  readonly #own: Identity;
  readonly #world: DeviceWorld;
  readonly #times: ProtocolTimes;
  readonly #secret = new Uint8Array(SECRET_BYTES);
  #secretMs = Number.NEGATIVE_INFINITY;

  constructor(own: Identity, world: DeviceWorld, times: ProtocolTimes) {
    this.#own = own;
    this.#world = world;
    this.#times = times;
  }

  hasMac1(message: Uint8Array): boolean {
    return macMatches(this.#own.mac1Key, message, mac1Offset(message));
  }

  hasMac2(now: number, message: Uint8Array, source: Uint8Array): boolean {
    const cookie = this.#cookie(now, source);
    return macMatches(cookie, message, mac1Offset(message) + MAC_BYTES);
  }

  /** Third message (paper §5.4.7): asks for mac2. Sealed with mac1, which only the sender and who sees its packets know. */
  reply(now: number, message: Uint8Array, source: Uint8Array): Uint8Array {
    const reply = new Uint8Array(COOKIE_REPLY.bytes);
    reply[0] = COOKIE_REPLY.type;
    // An initiation and a response have their sender at the same place.
    writeIndex(reply, COOKIE_REPLY.receiver, readIndex(message, INITIATION.sender));
    const nonce = reply.subarray(COOKIE_REPLY.nonce, COOKIE_REPLY.nonce + XNONCE_BYTES);
    this.#world.random(nonce);
    const mac1 = field(message, mac1Offset(message), MAC_BYTES);
    const cookie = this.#cookie(now, source);
    reply.set(xseal(this.#own.cookieKey, nonce, cookie, mac1), COOKIE_REPLY.cookie);
    return reply;
  }

  /** The cookie of an endpoint, address and port, under the secret of these two minutes. */
  #cookie(now: number, source: Uint8Array): Uint8Array {
    if (now - this.#secretMs >= this.#times.cookieSecretMs) {
      this.#world.random(this.#secret);
      this.#secretMs = now;
    }
    return mac(this.#secret, source);
  }

  forget(): void {
    this.#secret.fill(0);
    this.#secretMs = Number.NEGATIVE_INFINITY;
  }
}

/** Of the sender, one for each peer: writes both MACs and keeps the cookie that the peer gave. */
export class CookieHolder {
  readonly #times: ProtocolTimes;
  /** Of the last message sent, by which the reply to it is known; null: none is awaited. */
  #mac1: Uint8Array | null = null;
  #cookie: Uint8Array | null = null;
  #cookieMs = Number.NEGATIVE_INFINITY;

  constructor(times: ProtocolTimes) {
    this.#times = times;
  }

  /** Completes a handshake message to the peer. */
  writeMacs(now: number, remote: Remote, message: Uint8Array): void {
    const at = mac1Offset(message);
    this.#mac1 = mac(remote.mac1Key, message.subarray(0, at));
    message.set(this.#mac1, at);
    if (this.#cookie === null) return;
    if (now - this.#cookieMs >= this.#times.cookieMs) this.#dropCookie();
    else message.set(mac(this.#cookie, message.subarray(0, at + MAC_BYTES)), at + MAC_BYTES);
  }

  /** Takes a cookie reply if it answers the last message; one for each message. */
  takeReply(now: number, remote: Remote, reply: Uint8Array): boolean {
    if (this.#mac1 === null) return false;
    const nonce = field(reply, COOKIE_REPLY.nonce, XNONCE_BYTES);
    const sealed = field(reply, COOKIE_REPLY.cookie, MAC_BYTES + TAG_BYTES);
    const cookie = xopen(remote.cookieKey, nonce, sealed, this.#mac1);
    if (cookie === null) return false;
    this.#dropCookie();
    this.#mac1 = null;
    this.#cookie = cookie;
    this.#cookieMs = now;
    return true;
  }

  forget(): void {
    this.#dropCookie();
    this.#mac1 = null;
  }

  #dropCookie(): void {
    this.#cookie?.fill(0);
    this.#cookie = null;
  }
}
