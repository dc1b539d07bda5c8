// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), which seals the cookies of WireGuard (paper §5.4.7: XAEAD), and the
// ChaCha20-Poly1305 (RFC 8439) of its handshake, both over OpenSSL. OpenSSL has no HChaCha20, but it has the keystream:
// a block of ChaCha20 is the state after the rounds plus the state before them, and of the words that HChaCha20 gives
// (0 to 3 and 12 to 15) the state before is public: the constants and the nonce. So a subtraction yields them.

import { createCipheriv, createDecipheriv } from 'node:crypto';

const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const XNONCE_BYTES = 24;
const NONCE_BYTES = 12;
const HNONCE_BYTES = 16;
const BLOCK_BYTES = 64;
const ALGORITHM = 'chacha20-poly1305';
/** "expand 32-byte k", the first four words of ChaCha20's state. */
const CONSTANTS = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574];

/** The nonce of everything that is sealed in a handshake: each key is used once. */
export const ZERO_NONCE = new Uint8Array(NONCE_BYTES);
const NOTHING = new Uint8Array(BLOCK_BYTES);

/** HChaCha20(key, first 16 bytes of `nonce`). The caller zeroes it. */
export function hchacha20(key: Uint8Array, nonce: Uint8Array): Uint8Array {
  const input = nonce.subarray(0, HNONCE_BYTES);
  const block = createCipheriv('chacha20', key, input).update(NOTHING);
  const from = new DataView(block.buffer, block.byteOffset, BLOCK_BYTES);
  const before = new DataView(input.buffer, input.byteOffset, HNONCE_BYTES);
  const output = new Uint8Array(KEY_BYTES);
  const to = new DataView(output.buffer);
  for (let word = 0; word < 4; word++) {
    const at = word * 4;
    to.setUint32(at, from.getUint32(at, true) - (CONSTANTS[word] as number), true);
    to.setUint32(at + 16, from.getUint32(at + 48, true) - before.getUint32(at, true), true);
  }
  block.fill(0);
  return output;
}

/** AEAD(key, nonce, plaintext, additional): the sealed text, then its tag. */
export function seal(
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  additional: Uint8Array,
): Uint8Array {
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(additional, { plaintextLength: plaintext.length });
  const sealed = cipher.update(plaintext);
  cipher.final();
  return Buffer.concat([sealed, cipher.getAuthTag()]);
}

/** The plaintext, or null when the sealed text is not authentic. OpenSSL compares the tag in constant time. */
export function open(
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  additional: Uint8Array,
): Uint8Array | null {
  const bytes = sealed.length - TAG_BYTES;
  if (bytes < 0) return null;
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAuthTag(sealed.subarray(bytes));
  decipher.setAAD(additional, { plaintextLength: bytes });
  const plaintext = decipher.update(sealed.subarray(0, bytes));
  try {
    decipher.final();
  } catch {
    plaintext.fill(0);
    return null;
  }
  return plaintext;
}

/** The subkey and the nonce that are left for ChaCha20-Poly1305. */
function subkey(key: Uint8Array, nonce: Uint8Array): [Uint8Array, Uint8Array] {
  const rest = new Uint8Array(NONCE_BYTES);
  rest.set(nonce.subarray(HNONCE_BYTES, XNONCE_BYTES), NONCE_BYTES - 8);
  return [hchacha20(key, nonce), rest];
}

/** XAEAD(key, nonce of 24 bytes, plaintext, additional). */
export function xseal(
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  additional: Uint8Array,
): Uint8Array {
  const [derived, rest] = subkey(key, nonce);
  const sealed = seal(derived, rest, plaintext, additional);
  derived.fill(0);
  return sealed;
}

export function xopen(
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  additional: Uint8Array,
): Uint8Array | null {
  const [derived, rest] = subkey(key, nonce);
  const plaintext = open(derived, rest, sealed, additional);
  derived.fill(0);
  return plaintext;
}
