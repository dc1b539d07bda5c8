import assert from 'node:assert/strict';
import { generateKeyPairSync, hash, hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { blake2s, hashOf, kdf, mac } from './blake2s.ts';
import { agree, clamp, importPrivateKey } from './x25519.ts';
import { hchacha20, open, seal, xopen, xseal, ZERO_NONCE } from './xchacha.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));
const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at);
const NO_KEY = new Uint8Array(0);

/** RFC 7693 appendix E: a deterministic sequence. */
function sequence(length: number, seed: number): Uint8Array {
  let [a, b] = [Math.imul(0xdead4bad, seed), 1];
  return Uint8Array.from({ length }, () => {
    const t = (a + b) | 0;
    [a, b] = [b, t];
    return t >>> 24;
  });
}

test('blake2s() gives the grand hash of the self-test in RFC 7693, unkeyed and keyed', () => {
  const results: Uint8Array[] = [];
  for (const outputBytes of [16, 20, 28, 32]) {
    for (const length of [0, 3, 64, 65, 255, 1024]) {
      const data = sequence(length, length);
      results.push(blake2s(data, NO_KEY, outputBytes));
      results.push(blake2s(data, sequence(outputBytes, outputBytes), outputBytes));
    }
  }
  const expected = '6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe';
  assert.equal(hex(blake2s(Buffer.concat(results), NO_KEY, 32)), expected);
  assert.equal(hash('blake2s256', Buffer.concat(results), 'hex'), expected);
});

test('blake2s() gives the keyed vectors of the BLAKE2 reference', () => {
  const key = counting(32);
  const first = '48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49';
  const second = '40d15fee7c328830166ac3f918650f807e7e01e177258cdc0a39b11f598066f1';
  assert.equal(hex(blake2s(NO_KEY, key, 32)), first);
  assert.equal(hex(blake2s(counting(1), key, 32)), second);
  assert.equal(mac(key, counting(116)).length, 16);
});

test('blake2s() agrees with OpenSSL without a key', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (data) => {
      assert.equal(hex(blake2s(data, NO_KEY, 32)), hash('blake2s256', data, 'hex'));
    }),
  );
});

test('kdf() is HKDF, hashOf() hashes both parts', () => {
  const [key, input] = [counting(32), counting(77)];
  const expected = Buffer.from(hkdfSync('blake2s256', input, key, '', 96)).toString('hex');
  assert.equal(hex(Buffer.concat(kdf(3, key, input))), expected);
  assert.equal(hex(Buffer.concat(kdf(2, key, input))), expected.slice(0, 128));
  assert.equal(hex(Buffer.concat(kdf(1, key, input))), expected.slice(0, 64));
  assert.equal(hex(hashOf(key, input)), hash('blake2s256', Buffer.concat([key, input]), 'hex'));
});

test('hchacha20() gives the vector of the draft', () => {
  const nonce = bytes('000000090000004a0000000031415927');
  const expected = '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc';
  assert.equal(hex(hchacha20(counting(32), nonce)), expected);
});

const XKEY = bytes('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f');
const XNONCE = bytes('404142434445464748494a4b4c4d4e4f5051525354555657');
const XAAD = bytes('50515253c0c1c2c3c4c5c6c7');
const XTEXT = Buffer.from(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, " +
    'sunscreen would be it.',
);
const XSEALED =
  'bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb' +
  '731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452' +
  '2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9' +
  '21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49';

test('xseal() and xopen() give the vector of the draft', () => {
  assert.equal(hex(xseal(XKEY, XNONCE, XTEXT, XAAD)), XSEALED);
  const opened = xopen(XKEY, XNONCE, bytes(XSEALED), XAAD);
  assert.equal(hex(opened as Uint8Array), hex(XTEXT));
});

test('xopen() and open() refuse every flipped bit and every truncation', () => {
  const sealed = bytes(XSEALED);
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const changed = Uint8Array.from(sealed);
    changed[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(xopen(XKEY, XNONCE, changed, XAAD), null);
  }
  const plain = seal(XKEY, ZERO_NONCE, XTEXT, XAAD);
  for (let length = 0; length < plain.length; length++) {
    assert.equal(open(XKEY, ZERO_NONCE, plain.subarray(0, length), XAAD), null);
  }
  assert.equal(open(XKEY, ZERO_NONCE, plain, XAAD.subarray(1)), null);
  assert.equal(open(counting(32), ZERO_NONCE, plain, XAAD), null);
});

test('agree() gives the shared secret of RFC 7748 §6.1', () => {
  const alice = importPrivateKey(
    bytes('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a'),
  );
  const bob = importPrivateKey(
    bytes('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'),
  );
  assert.equal(
    hex(alice.publicKey),
    '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a',
  );
  const shared = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742';
  assert.equal(hex(agree(alice, bob.publicKey) as Uint8Array), shared);
  assert.equal(hex(agree(bob, alice.publicKey) as Uint8Array), shared);
});

test('clamp() clears and sets the bits of RFC 7748 §5', () => {
  const clamped = clamp(new Uint8Array(32).fill(255));
  assert.deepEqual([clamped[0], clamped[31]], [248, 127]);
  assert.equal(clamp(new Uint8Array(32))[31], 64);
});

test('agree() agrees with itself from both sides and with the generator of OpenSSL', () => {
  const { privateKey, publicKey } = generateKeyPairSync('x25519');
  const raw = Uint8Array.from(publicKey.export({ format: 'der', type: 'spki' }).subarray(12));
  const own = importPrivateKey(counting(32));
  assert.deepEqual(agree({ secret: privateKey, publicKey: raw }, own.publicKey), agree(own, raw));
});

test('agree() refuses the points of small order', () => {
  const own = importPrivateKey(counting(32));
  const points = [
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0100000000000000000000000000000000000000000000000000000000000000',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ];
  for (const point of points) assert.equal(agree(own, bytes(point)), null, point);
});
