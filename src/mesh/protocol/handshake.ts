// The handshake of WireGuard: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (paper §5.4.2, §5.4.3 and §5.4.5). Pure: ephemeral
// keys, indices and timestamps are handed in. mac1 and mac2 belong to cookies.ts and are left zero here. Chaining keys,
// shared secrets and ephemeral keys are zeroed as soon as they have been used.

import { hashOf, kdf } from './blake2s.ts';
import { type Identity, INITIAL_CHAIN, type Remote } from './identity.ts';
import { field, INITIATION, RESPONSE, readIndex, writeIndex } from './messages.ts';
import { TAI64N_BYTES } from './tai64n.ts';
import { agree, importPrivateKey, type PrivateKey, X25519_BYTES } from './x25519.ts';
import { open, seal, TAG_BYTES, ZERO_NONCE } from './xchacha.ts';

const NOTHING = new Uint8Array(0);

/** Chaining key and hash of a handshake under way. */
class Transcript {
  #chain: Uint8Array;
  #hash: Uint8Array;

  constructor(chain: Uint8Array, hash: Uint8Array) {
    this.#chain = Uint8Array.from(chain);
    this.#hash = Uint8Array.from(hash);
  }

  copy(): Transcript {
    return new Transcript(this.#chain, this.#hash);
  }

  mixHash(data: Uint8Array): void {
    this.#hash = hashOf(this.#hash, data);
  }

  /** Mixes public input into the chaining key. */
  mixChain(input: Uint8Array): void {
    this.#replaceChain(kdf(1, this.#chain, input)[0]!);
  }

  /** Mixes the secret of two keys into the chaining key; false when there is none. */
  mixSecret(own: PrivateKey, publicKey: Uint8Array): boolean {
    const secret = agree(own, publicKey);
    if (secret === null) return false;
    this.mixChain(secret);
    secret.fill(0);
    return true;
  }

  /** A key for one message. */
  mixKey(secret: Uint8Array): Uint8Array {
    const [chain, key] = kdf(2, this.#chain, secret) as [Uint8Array, Uint8Array];
    this.#replaceChain(chain);
    return key;
  }

  mixPresharedKey(presharedKey: Uint8Array): Uint8Array {
    const [chain, temporary, key] = kdf(3, this.#chain, presharedKey) as Uint8Array[];
    this.#replaceChain(chain!);
    this.mixHash(temporary!);
    temporary!.fill(0);
    return key!;
  }

  /** Seals with a key that is used once, and mixes the result into the hash. */
  seal(key: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const sealed = seal(key, ZERO_NONCE, plaintext, this.#hash);
    key.fill(0);
    this.mixHash(sealed);
    return sealed;
  }

  open(key: Uint8Array, sealed: Uint8Array): Uint8Array | null {
    const plaintext = open(key, ZERO_NONCE, sealed, this.#hash);
    key.fill(0);
    this.mixHash(sealed);
    return plaintext;
  }

  /** Both transport keys, the initiator's sending one first. */
  split(): [Uint8Array, Uint8Array] {
    return kdf(2, this.#chain, NOTHING) as [Uint8Array, Uint8Array];
  }

  forget(): void {
    this.#chain.fill(0);
    this.#hash.fill(0);
  }

  #replaceChain(chain: Uint8Array): void {
    this.#chain.fill(0);
    this.#chain = chain;
  }
}

/** The keys of a new session; whoever takes them zeroes them. */
export interface TransportKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly remoteIndex: number;
}

/** An initiation that waits for its response. */
export interface SentInitiation {
  readonly message: Uint8Array;
  readonly localIndex: number;
  readonly ephemeral: PrivateKey;
  readonly transcript: Transcript;
}

/** An initiation whose sender is known, not yet its freshness. */
export interface OpenedInitiation {
  readonly publicKey: Uint8Array;
  readonly ephemeral: Uint8Array;
  readonly remoteIndex: number;
  readonly transcript: Transcript;
}

/** The ephemeral key from 32 random bytes, which are zeroed. */
function ephemeralKey(random: Uint8Array): PrivateKey {
  const key = importPrivateKey(random);
  random.fill(0);
  return key;
}

/** First message (paper §5.4.2), or null when the keys of this peer agree on nothing. */
export function createInitiation(
  own: Identity,
  remote: Remote,
  localIndex: number,
  timestamp: Uint8Array,
  random: Uint8Array,
): SentInitiation | null {
  if (remote.staticShared === null) return null;
  const ephemeral = ephemeralKey(random);
  const secret = agree(ephemeral, remote.publicKey);
  if (secret === null) return null;
  const message = new Uint8Array(INITIATION.bytes);
  message[0] = INITIATION.type;
  writeIndex(message, INITIATION.sender, localIndex);
  message.set(ephemeral.publicKey, INITIATION.ephemeral);
  const transcript = new Transcript(INITIAL_CHAIN, remote.initialHash);
  transcript.mixChain(ephemeral.publicKey);
  transcript.mixHash(ephemeral.publicKey);
  const staticKey = transcript.mixKey(secret);
  secret.fill(0);
  message.set(transcript.seal(staticKey, own.publicKey), INITIATION.static);
  const timestampKey = transcript.mixKey(remote.staticShared);
  message.set(transcript.seal(timestampKey, timestamp), INITIATION.timestamp);
  return { message, localIndex, ephemeral, transcript };
}

/** Whose initiation this is. Anybody who knows our public key can make one so far: nothing may be believed yet. */
export function openInitiation(own: Identity, message: Uint8Array): OpenedInitiation | null {
  const ephemeral = field(message, INITIATION.ephemeral, X25519_BYTES);
  const secret = agree(own.privateKey, ephemeral);
  if (secret === null) return null;
  const transcript = new Transcript(INITIAL_CHAIN, own.initialHash);
  transcript.mixChain(ephemeral);
  transcript.mixHash(ephemeral);
  const staticKey = transcript.mixKey(secret);
  secret.fill(0);
  const sealed = field(message, INITIATION.static, X25519_BYTES + TAG_BYTES);
  const publicKey = transcript.open(staticKey, sealed);
  if (publicKey === null) {
    transcript.forget();
    return null;
  }
  const remoteIndex = readIndex(message, INITIATION.sender);
  return { publicKey, ephemeral, remoteIndex, transcript };
}

/** The timestamp, which proves that the peer's static key made the message; null: it did not. */
export function openTimestamp(
  opened: OpenedInitiation,
  remote: Remote,
  message: Uint8Array,
): Uint8Array | null {
  if (remote.staticShared === null) return null;
  const key = opened.transcript.mixKey(remote.staticShared);
  const sealed = field(message, INITIATION.timestamp, TAI64N_BYTES + TAG_BYTES);
  return opened.transcript.open(key, sealed);
}

/** Second message (paper §5.4.3) and the keys, after openTimestamp() and the check that it is fresh. */
export function createResponse(
  opened: OpenedInitiation,
  remote: Remote,
  localIndex: number,
  random: Uint8Array,
): (TransportKeys & { readonly message: Uint8Array }) | null {
  const { transcript, remoteIndex } = opened;
  const ephemeral = ephemeralKey(random);
  const message = new Uint8Array(RESPONSE.bytes);
  message[0] = RESPONSE.type;
  writeIndex(message, RESPONSE.sender, localIndex);
  writeIndex(message, RESPONSE.receiver, remoteIndex);
  message.set(ephemeral.publicKey, RESPONSE.ephemeral);
  transcript.mixChain(ephemeral.publicKey);
  transcript.mixHash(ephemeral.publicKey);
  const agreed =
    transcript.mixSecret(ephemeral, opened.ephemeral) &&
    transcript.mixSecret(ephemeral, remote.publicKey);
  if (!agreed) {
    transcript.forget();
    return null;
  }
  const key = transcript.mixPresharedKey(remote.presharedKey);
  message.set(transcript.seal(key, NOTHING), RESPONSE.empty);
  const [receiveKey, sendKey] = transcript.split();
  transcript.forget();
  return { message, sendKey, receiveKey, remoteIndex };
}

/** The keys that a response gives, or null when it is not authentic: then `sent` goes on waiting. */
export function openResponse(
  own: Identity,
  remote: Remote,
  sent: SentInitiation,
  message: Uint8Array,
): TransportKeys | null {
  const ephemeral = field(message, RESPONSE.ephemeral, X25519_BYTES);
  const transcript = sent.transcript.copy();
  transcript.mixChain(ephemeral);
  transcript.mixHash(ephemeral);
  const agreed =
    transcript.mixSecret(sent.ephemeral, ephemeral) &&
    transcript.mixSecret(own.privateKey, ephemeral);
  let keys: TransportKeys | null = null;
  if (agreed) {
    const key = transcript.mixPresharedKey(remote.presharedKey);
    if (transcript.open(key, field(message, RESPONSE.empty, TAG_BYTES)) !== null) {
      const [sendKey, receiveKey] = transcript.split();
      keys = { sendKey, receiveKey, remoteIndex: readIndex(message, RESPONSE.sender) };
    }
  }
  transcript.forget();
  return keys;
}

/** Zeroes what is left of an initiation that is no longer waited for. */
export function forgetInitiation(sent: SentInitiation): void {
  sent.transcript.forget();
}
