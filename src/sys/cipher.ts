// ChaCha20-Poly1305 as WireGuard's transport packets use it (no additional data, a 64-bit counter as the nonce), by the
// OpenSSL that is inside Node. Three ways, the first that works and gives the known answers is taken, once per thread:
// 'internal' (ChaCha20_ctr32 and Poly1305_*: names that OpenSSL does not promise; 0.7 µs for a full packet), 'evp' (the
// public interface by native calls; 1.1 µs) and 'node' (node:crypto; 8 µs). Keys and packets lie in the arena, by offset.

import { createCipheriv, createDecipheriv, randomFillSync } from 'node:crypto';
import { type Arena, pointerTo } from './arena.ts';
import { type Mapping, mapMemory } from './memory.ts';
import { bindOwn, num } from './native.ts';

const TWO = ['pointer', 'pointer'] as const;
const THREE = ['pointer', 'pointer', 'pointer'] as const;
const FOUR = ['pointer', 'pointer', 'pointer', 'pointer'] as const;
const FIVE = ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'] as const;
const VOID = 'int32'; // A void function leaves anything in the register, which nobody reads.

const internal = bindOwn({
  ChaCha20_ctr32: { arguments: FIVE, return: VOID },
  Poly1305_Init: { arguments: TWO, return: VOID },
  Poly1305_Update: { arguments: THREE, return: VOID },
  Poly1305_Final: { arguments: TWO, return: VOID },
  Poly1305_ctx_size: { arguments: [], return: 'int32' },
});
const evp = bindOwn({
  EVP_CIPHER_CTX_new: { arguments: [], return: 'pointer' },
  EVP_chacha20_poly1305: { arguments: [], return: 'pointer' },
  EVP_EncryptInit_ex: { arguments: FIVE, return: 'int32' },
  EVP_EncryptUpdate: { arguments: FIVE, return: 'int32' },
  EVP_EncryptFinal_ex: { arguments: THREE, return: 'int32' },
  EVP_DecryptInit_ex: { arguments: FIVE, return: 'int32' },
  EVP_DecryptUpdate: { arguments: FIVE, return: 'int32' },
  EVP_DecryptFinal_ex: { arguments: THREE, return: 'int32' },
  EVP_CIPHER_CTX_ctrl: { arguments: FOUR, return: 'int32' },
});

export const TAG_BYTES = 16;
const KEY_BYTES = 32;
/** Bytes before plaintext and ciphertext that sealing and opening may overwrite: one block of ChaCha20. */
export const SEAL_HEADROOM = 64;
const EVP_CTRL_AEAD_GET_TAG = 0x10n;
const EVP_CTRL_AEAD_SET_TAG = 0x11n;

// A page of this thread: counter block or nonce, Poly1305 context, its key block, zeros, the last block, tag, a length.
const AREA_COUNTER = 0;
const AREA_CONTEXT = 64;
const CONTEXT_BYTES_MAX = 512;
const AREA_KEY_BLOCK = AREA_CONTEXT + CONTEXT_BYTES_MAX;
const AREA_ZEROS = AREA_KEY_BLOCK + 64;
const AREA_LAST = AREA_ZEROS + 64;
const AREA_TAG = AREA_LAST + 64;
const AREA_LENGTH = AREA_TAG + 64;
const area: Mapping = mapMemory(4096, 'the cipher');
const areaBytes = new Uint8Array(area.buffer);
const areaWords = new Int32Array(area.buffer);
const at = (offset: number): bigint => area.address + BigInt(offset);
const COUNTER_POINTER = at(AREA_COUNTER);
/** EVP's nonce is the last 12 bytes of the counter block. */
const NONCE_POINTER = at(AREA_COUNTER + 4);
const CONTEXT_POINTER = at(AREA_CONTEXT);
const KEY_BLOCK_POINTER = at(AREA_KEY_BLOCK);
const ZEROS_POINTER = at(AREA_ZEROS);
const TAG_POINTER = at(AREA_TAG);
const LENGTH_POINTER = at(AREA_LENGTH);
/** The last block (length of no additional data, of the ciphertext) behind the 0 to 15 zeros that fill the one before. */
const LAST_POINTERS = BigUint64Array.from({ length: 16 }, (_, pad) => at(AREA_LAST + 16 - pad));
const LAST_LENGTH_WORD = (AREA_LAST + 16 + 8) / 4;
const BLOCK_WORD = AREA_COUNTER / 4;
const LOW_WORD = BLOCK_WORD + 2;
const HIGH_WORD = BLOCK_WORD + 3;
const TAG_WORD = AREA_TAG / 4;

export type CipherKind = 'internal' | 'evp' | 'node';
const INTERNAL = 0;
const EVP = 1;
const NODE = 2;
const KINDS: readonly CipherKind[] = ['internal', 'evp', 'node'];

let way = NODE;
let evpContext = 0n;
let evpCipher = 0n;

function finishTag(target: bigint, length: number): void {
  const pad = (16 - (length & 15)) & 15;
  areaWords[LAST_LENGTH_WORD] = length;
  const { Poly1305_Update, Poly1305_Final } = internal as NonNullable<typeof internal>;
  Poly1305_Update(CONTEXT_POINTER, LAST_POINTERS[pad], num(16 + pad));
  Poly1305_Final(CONTEXT_POINTER, target);
}

function sealInternal(a: Arena, key: number, plain: number, length: number, out: number): void {
  const { ChaCha20_ctr32, Poly1305_Init, Poly1305_Update } = internal as NonNullable<
    typeof internal
  >;
  // Block 0 of the key stream is Poly1305's key, blocks 1.. encrypt: one call does both over 64 zeros before the text.
  for (let byte = plain - SEAL_HEADROOM; byte < plain; byte += 4) a.view.setInt32(byte, 0, true);
  areaWords[BLOCK_WORD] = 0;
  ChaCha20_ctr32(
    pointerTo(a, out - SEAL_HEADROOM),
    // One address at a time can be made through the arena's words; arguments are evaluated in order.
    pointerTo(a, plain - SEAL_HEADROOM),
    num(length + SEAL_HEADROOM),
    pointerTo(a, key),
    COUNTER_POINTER,
  );
  Poly1305_Init(CONTEXT_POINTER, pointerTo(a, out - SEAL_HEADROOM));
  if (length > 0) Poly1305_Update(CONTEXT_POINTER, pointerTo(a, out), num(length));
  finishTag(pointerTo(a, out + length), length);
}

function openInternal(a: Arena, key: number, text: number, length: number): boolean {
  const { ChaCha20_ctr32, Poly1305_Init, Poly1305_Update } = internal as NonNullable<
    typeof internal
  >;
  areaWords[BLOCK_WORD] = 0;
  ChaCha20_ctr32(KEY_BLOCK_POINTER, ZEROS_POINTER, 64n, pointerTo(a, key), COUNTER_POINTER);
  Poly1305_Init(CONTEXT_POINTER, KEY_BLOCK_POINTER);
  if (length > 0) Poly1305_Update(CONTEXT_POINTER, pointerTo(a, text), num(length));
  finishTag(TAG_POINTER, length);
  let difference = 0;
  for (let word = 0; word < 4; word++) {
    difference |= areaWords[TAG_WORD + word] ^ a.view.getInt32(text + length + word * 4, true);
  }
  return difference === 0;
}

function decryptInternal(a: Arena, key: number, text: number, length: number): void {
  if (length === 0) return;
  const { ChaCha20_ctr32 } = internal as NonNullable<typeof internal>;
  areaWords[BLOCK_WORD] = 1;
  ChaCha20_ctr32(
    pointerTo(a, text),
    pointerTo(a, text),
    num(length),
    pointerTo(a, key),
    COUNTER_POINTER,
  );
}

function sealEvp(a: Arena, key: number, plain: number, length: number, out: number): void {
  const calls = evp as NonNullable<typeof evp>;
  calls.EVP_EncryptInit_ex(evpContext, evpCipher, 0n, pointerTo(a, key), NONCE_POINTER);
  if (length > 0) {
    const target = pointerTo(a, out);
    calls.EVP_EncryptUpdate(evpContext, target, LENGTH_POINTER, pointerTo(a, plain), num(length));
  }
  calls.EVP_EncryptFinal_ex(evpContext, TAG_POINTER, LENGTH_POINTER);
  calls.EVP_CIPHER_CTX_ctrl(evpContext, EVP_CTRL_AEAD_GET_TAG, 16n, pointerTo(a, out + length));
}

function openEvp(a: Arena, key: number, text: number, length: number): boolean {
  const calls = evp as NonNullable<typeof evp>;
  calls.EVP_DecryptInit_ex(evpContext, evpCipher, 0n, pointerTo(a, key), NONCE_POINTER);
  calls.EVP_CIPHER_CTX_ctrl(evpContext, EVP_CTRL_AEAD_SET_TAG, 16n, pointerTo(a, text + length));
  if (length > 0) {
    const place = pointerTo(a, text);
    calls.EVP_DecryptUpdate(evpContext, place, LENGTH_POINTER, place, num(length));
  }
  return calls.EVP_DecryptFinal_ex(evpContext, TAG_POINTER, LENGTH_POINTER) === 1;
}

const NAME = 'chacha20-poly1305';
const TAG_OPTION = { authTagLength: TAG_BYTES };
const nonceBytes = (): Uint8Array => areaBytes.slice(AREA_COUNTER + 4, AREA_COUNTER + 16);
const keyBytes = (a: Arena, key: number): Uint8Array => a.bytes.slice(key, key + KEY_BYTES);

function sealNode(a: Arena, key: number, plain: number, length: number, out: number): void {
  const cipher = createCipheriv(NAME, keyBytes(a, key), nonceBytes(), TAG_OPTION);
  a.bytes.set(cipher.update(a.bytes.slice(plain, plain + length)), out);
  cipher.final();
  a.bytes.set(cipher.getAuthTag(), out + length);
}

function openNode(a: Arena, key: number, text: number, length: number): boolean {
  const decipher = createDecipheriv(NAME, keyBytes(a, key), nonceBytes(), TAG_OPTION);
  decipher.setAuthTag(a.bytes.slice(text + length, text + length + TAG_BYTES));
  const plain = decipher.update(a.bytes.slice(text, text + length));
  try {
    decipher.final();
  } catch {
    return false;
  }
  a.bytes.set(plain, text);
  return true;
}

function setCounter(low: number, high: number): void {
  areaWords[LOW_WORD] = low;
  areaWords[HIGH_WORD] = high;
}

/**
 * Encrypts `length` bytes at `plain` to `out` with the key at `key`, the tag behind. SEAL_HEADROOM bytes before both are
 * overwritten; the ranges are the same or do not touch. The counter is given as two words.
 */
export function sealPacket(
  a: Arena,
  key: number,
  plain: number,
  length: number,
  out: number,
  low: number,
  high: number,
): void {
  setCounter(low, high);
  if (way === INTERNAL) sealInternal(a, key, plain, length, out);
  else if (way === EVP) sealEvp(a, key, plain, length, out);
  else sealNode(a, key, plain, length, out);
}

/**
 * Whether the `length` bytes at `text` and the tag behind them are authentic; then they have been decrypted in place. If
 * not, their contents are undefined.
 */
export function openPacket(
  a: Arena,
  key: number,
  text: number,
  length: number,
  low: number,
  high: number,
): boolean {
  setCounter(low, high);
  if (way === EVP) return openEvp(a, key, text, length);
  if (way === NODE) return openNode(a, key, text, length);
  if (!openInternal(a, key, text, length)) return false;
  decryptInternal(a, key, text, length);
  return true;
}

const KNOWN_LENGTHS = [0, 1, 15, 16, 64, 1420];

/** Compares the chosen way with node:crypto's answers, in `scratch` (4 KiB of the arena that nobody uses now). */
function givesKnownAnswers(a: Arena, scratch: number): boolean {
  const text = scratch + 256;
  randomFillSync(a.bytes.subarray(scratch, scratch + KEY_BYTES));
  return KNOWN_LENGTHS.every((length, low) => {
    const plain = randomFillSync(new Uint8Array(length));
    const nonce = new Uint8Array(12);
    new DataView(nonce.buffer).setUint32(4, low + 1, true);
    new DataView(nonce.buffer).setUint32(8, 7, true);
    const cipher = createCipheriv(NAME, keyBytes(a, scratch), nonce, TAG_OPTION);
    const sealed = cipher.update(plain);
    cipher.final();
    const expected = Buffer.concat([sealed, cipher.getAuthTag()]);
    a.bytes.set(plain, text);
    sealPacket(a, scratch, text, length, text, low + 1, 7);
    const end = text + length;
    if (Buffer.compare(a.bytes.slice(text, end + TAG_BYTES), expected) !== 0) return false;
    if (!openPacket(a, scratch, text, length, low + 1, 7)) return false;
    if (Buffer.compare(a.bytes.slice(text, end), plain) !== 0) return false;
    a.bytes.set(expected, text);
    a.bytes[end] ^= 1;
    return !openPacket(a, scratch, text, length, low + 1, 7);
  });
}

function isAvailable(candidate: number): boolean {
  if (candidate === INTERNAL) {
    return internal !== null && internal.Poly1305_ctx_size() <= CONTEXT_BYTES_MAX;
  }
  if (candidate === NODE) return true;
  if (evp === null) return false;
  evpContext = evp.EVP_CIPHER_CTX_new();
  evpCipher = evp.EVP_chacha20_poly1305();
  return evpContext !== 0n && evpCipher !== 0n;
}

/** Chooses the way of this thread, from `first` on, and tells which it is. */
export function startCipher(
  a: Arena,
  scratch: number,
  first: CipherKind = 'internal',
): CipherKind | null {
  for (way = KINDS.indexOf(first); way < KINDS.length; way++) {
    if (isAvailable(way) && givesKnownAnswers(a, scratch)) return KINDS[way] as CipherKind;
  }
  return null;
}
