// Curve25519 (RFC 7748) by OpenSSL, from and to raw keys of 32 bytes. OpenSSL keeps private keys in memory of its own and
// cleanses it when the KeyObject is collected.

import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';

export const X25519_BYTES = 32;
/** What comes before the 32 bytes in PKCS #8 and SubjectPublicKeyInfo (RFC 8410). */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const PUBLIC_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');

export interface PrivateKey {
  readonly secret: KeyObject;
  readonly publicKey: Uint8Array;
}

/** Clears and sets the bits that RFC 7748 §5 says, in place. */
export function clamp(key: Uint8Array): Uint8Array {
  key[0] &= 248;
  key[31] = (key[31] & 127) | 64;
  return key;
}

/** `raw` stays the caller's to zero. */
export function importPrivateKey(raw: Uint8Array): PrivateKey {
  const der = Buffer.concat([PRIVATE_PREFIX, raw]);
  clamp(der.subarray(PRIVATE_PREFIX.length));
  const secret = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  const publicDer = createPublicKey(secret).export({ format: 'der', type: 'spki' });
  return { secret, publicKey: Uint8Array.from(publicDer.subarray(PUBLIC_PREFIX.length)) };
}

/**
 * DH(private, public). Null when the result is all zero, as for the points of small order (RFC 7748 §6.1): OpenSSL
 * refuses those. The caller zeroes the result.
 */
export function agree({ secret }: PrivateKey, publicKey: Uint8Array): Uint8Array | null {
  const der = Buffer.concat([PUBLIC_PREFIX, publicKey]);
  const other = createPublicKey({ key: der, format: 'der', type: 'spki' });
  try {
    return diffieHellman({ privateKey: secret, publicKey: other });
  } catch {
    return null;
  }
}
