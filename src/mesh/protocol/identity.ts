// What is derived once from a static key, ours or a peer's: hashes that every handshake starts from (paper §5.4.2 to
// §5.4.7), and with a peer the shared secret of both static keys.

import { HASH_BYTES, hashOf } from './blake2s.ts';
import { agree, importPrivateKey, type PrivateKey } from './x25519.ts';

const label = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const NOTHING = new Uint8Array(0);
const LABEL_MAC1 = label('mac1----');
const LABEL_COOKIE = label('cookie--');
export const INITIAL_CHAIN = hashOf(label('Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s'), NOTHING);
const INITIAL_HASH = hashOf(INITIAL_CHAIN, label('WireGuard v1 zx2c4 Jason@zx2c4.com'));

/** Of the holder of a static key. */
interface Derived {
  readonly publicKey: Uint8Array;
  /** The hash that a handshake towards the holder starts with. */
  readonly initialHash: Uint8Array;
  /** Keys mac1 of messages to the holder. */
  readonly mac1Key: Uint8Array;
  /** Keys the cookie replies of the holder. */
  readonly cookieKey: Uint8Array;
}

/** We. */
export interface Identity extends Derived {
  readonly privateKey: PrivateKey;
}

/** A peer as seen by one identity. */
export interface Remote extends Derived {
  /** Null when a key is bad, or when we have none: then there is no handshake. */
  readonly staticShared: Uint8Array | null;
  /** All zero: none. */
  readonly presharedKey: Uint8Array;
}

function derive(publicKey: Uint8Array): Derived {
  return {
    publicKey,
    initialHash: hashOf(INITIAL_HASH, publicKey),
    mac1Key: hashOf(LABEL_MAC1, publicKey),
    cookieKey: hashOf(LABEL_COOKIE, publicKey),
  };
}

/** `raw` stays the caller's to zero. */
export function deriveIdentity(raw: Uint8Array): Identity {
  const privateKey = importPrivateKey(raw);
  return { ...derive(privateKey.publicKey), privateKey };
}

/** Copies both keys. */
export function deriveRemote(
  own: Identity | null,
  publicKey: Uint8Array,
  presharedKey: Uint8Array,
): Remote {
  return {
    ...derive(Uint8Array.from(publicKey)),
    staticShared: own === null ? null : agree(own.privateKey, publicKey),
    presharedKey: Uint8Array.from(presharedKey),
  };
}

/** Zeroes the secrets of a peer that is dropped. */
export function forgetRemote(remote: Remote): void {
  remote.staticShared?.fill(0);
  remote.presharedKey.fill(0);
}

export const NO_PRESHARED_KEY = new Uint8Array(HASH_BYTES);
