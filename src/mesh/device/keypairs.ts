// The keypairs in shared memory, from the main thread's side: written whole before they can be found, unlinked before they
// are zeroed, and zeroed only when no data thread can still be using them.

import type { Arena } from '../../sys/arena.ts';
import type { KeyPair } from '../protocol/port.ts';
import { resetReplayWindow } from '../protocol/replay-window.ts';
import {
  currentWord,
  firstKeypair,
  KEYPAIR_COUNTER,
  KEYPAIR_EXPIRES,
  KEYPAIR_LOCAL_INDEX,
  KEYPAIR_PEER,
  KEYPAIR_RECEIVE_KEY,
  KEYPAIR_REMOTE_INDEX,
  KEYPAIR_SEND_KEY,
  KEYPAIR_STATE,
  KEYPAIR_USED,
  KEYPAIRS_EACH,
  keypairAt,
  linkKeypair,
  RECEIVE_SEQUENCE,
  replayWord,
  SEND_SEQUENCE,
  unlinkKeypair,
} from './tables.ts';

const FREE = 0;
const LINKED = 1;
/** Unlinked, and perhaps still in use. */
const LEAVING = 2;
const KEY_BYTES = 32;
const SWEEP_MS = 2;
const SEQUENCES = [SEND_SEQUENCE, RECEIVE_SEQUENCE] as const;

interface Leaving {
  readonly keypair: number;
  /** The threads' sequence words after the unlinking; an odd one has to change. */
  readonly seen: readonly number[];
}

export class Keypairs {
  readonly #arena: Arena;
  #leaving: Leaving[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** False when there is no place for it: the peer then has no such keypair. */
  install(peer: number, pair: KeyPair): boolean {
    const { words, floats, bytes } = this.#arena;
    const keypair = this.#findFree(peer);
    if (keypair < 0) return false;
    const at = keypairAt(keypair);
    words[(at + KEYPAIR_LOCAL_INDEX) >> 2] = pair.localIndex;
    words[(at + KEYPAIR_REMOTE_INDEX) >> 2] = pair.remoteIndex;
    words[(at + KEYPAIR_PEER) >> 2] = peer;
    floats[(at + KEYPAIR_EXPIRES) >> 3] = pair.expiresAtMs;
    words[(at + KEYPAIR_USED) >> 2] = pair.role === 'next' ? 0 : 1;
    bytes.set(pair.sendKey, at + KEYPAIR_SEND_KEY);
    bytes.set(pair.receiveKey, at + KEYPAIR_RECEIVE_KEY);
    floats[(at + KEYPAIR_COUNTER) >> 3] = 0;
    resetReplayWindow(words, replayWord(keypair));
    words[(at + KEYPAIR_STATE) >> 2] = LINKED;
    if (!linkKeypair(this.#arena, pair.localIndex, keypair)) {
      this.#zero(keypair);
      return false;
    }
    if (pair.role === 'current') Atomics.store(words, currentWord(peer), keypair + 1);
    return true;
  }

  #findFree(peer: number): number {
    this.#sweep();
    const first = firstKeypair(peer);
    for (let keypair = first; keypair < first + KEYPAIRS_EACH; keypair++) {
      if (this.#arena.words[(keypairAt(keypair) + KEYPAIR_STATE) >> 2] === FREE) return keypair;
    }
    return -1;
  }

  #find(peer: number, localIndex: number): number {
    const { words } = this.#arena;
    const first = firstKeypair(peer);
    for (let keypair = first; keypair < first + KEYPAIRS_EACH; keypair++) {
      const at = keypairAt(keypair);
      if (words[(at + KEYPAIR_STATE) >> 2] !== LINKED) continue;
      if (words[(at + KEYPAIR_LOCAL_INDEX) >> 2] === (localIndex | 0)) return keypair;
    }
    return -1;
  }

  promote(peer: number, localIndex: number): void {
    const keypair = this.#find(peer, localIndex);
    if (keypair >= 0) Atomics.store(this.#arena.words, currentWord(peer), keypair + 1);
  }

  /** Packets that are being sealed or opened at this moment may still be; later ones not. */
  remove(peer: number, localIndex: number): void {
    const { words } = this.#arena;
    const keypair = this.#find(peer, localIndex);
    if (keypair < 0) return;
    if (words[currentWord(peer)] === keypair + 1) Atomics.store(words, currentWord(peer), 0);
    unlinkKeypair(this.#arena, localIndex, keypair);
    words[(keypairAt(keypair) + KEYPAIR_STATE) >> 2] = LEAVING;
    // After the unlinking: a thread that makes its word odd from now on does not find the keypair.
    const seen = SEQUENCES.map((word) => Atomics.load(words, word));
    this.#leaving.push({ keypair, seen });
    this.#sweep();
  }

  /** The local index, unsigned. */
  localIndex(keypair: number): number {
    return this.#arena.unsigned[(keypairAt(keypair) + KEYPAIR_LOCAL_INDEX) >> 2] as number;
  }

  #sweep(): void {
    const { words } = this.#arena;
    this.#leaving = this.#leaving.filter(({ keypair, seen }) => {
      const isInUse = SEQUENCES.some((word, index) => {
        const sequence = seen[index] as number;
        return (sequence & 1) !== 0 && Atomics.load(words, word) === sequence;
      });
      if (!isInUse) this.#zero(keypair);
      return isInUse;
    });
    if (this.#leaving.length === 0 || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#sweep();
    }, SWEEP_MS);
  }

  #zero(keypair: number): void {
    const { bytes, words } = this.#arena;
    const at = keypairAt(keypair);
    bytes.fill(0, at + KEYPAIR_SEND_KEY, at + KEYPAIR_RECEIVE_KEY + KEY_BYTES);
    words[(at + KEYPAIR_STATE) >> 2] = FREE;
  }
}
