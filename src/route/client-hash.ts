// The keyed hash of the client table: HalfSipHash-1-3 with 64 bits of output over the 20 bytes of
// a key. A client commands a whole IPv6 /64, so a hash without a secret key would let it collect
// addresses of one bucket; a multiplicative hash would even with one.

/** Words of a key: four of the address, one for the app. */
export const CLIENT_KEY_WORDS = 5;
/** SipHash's last block: the message length in the top byte, no bytes left over. */
const LENGTH_BLOCK = (CLIENT_KEY_WORDS * 4) << 24;
const FINAL_STEP = CLIENT_KEY_WORDS + 1;
const FINAL_ROUNDS = 3;

/** Writes two 32-bit hashes of `key` into `hashes`. `seed` is the secret, two words. */
export function hashClient(hashes: Uint32Array, seed: Int32Array, key: Int32Array): void {
  let v0 = seed[0];
  let v1 = seed[1] ^ 0xee;
  let v2 = 0x6c79_6765 ^ seed[0];
  let v3 = 0x7465_6462 ^ seed[1];
  // One round each for the words and the length, then three for each half of the output.
  for (let step = 0; step < FINAL_STEP + FINAL_ROUNDS * 2; step++) {
    let block = 0;
    if (step < CLIENT_KEY_WORDS) {
      block = key[step];
    } else if (step === CLIENT_KEY_WORDS) {
      block = LENGTH_BLOCK;
    } else if (step === FINAL_STEP) {
      v2 ^= 0xee;
    } else if (step === FINAL_STEP + FINAL_ROUNDS) {
      hashes[0] = v1 ^ v3;
      v1 ^= 0xdd;
    }
    v3 ^= block;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= block;
  }
  hashes[1] = v1 ^ v3;
}
