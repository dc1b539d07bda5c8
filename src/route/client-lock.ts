// The bucket locks of the client table: one shared word each, 0 = free, else the owner's id, plus
// a mark when somebody sleeps on it. Critical sections take well under a microsecond, so a taker
// spins; a lock that stays taken belongs to a thread that lost its core, so then it sleeps.

import { CLIENT_LOCK_SPINS_MAX } from '../limits.ts';

const OWNER_MASK = 0xffff;
const SLEEPERS = 0x1_0000;
/** Short, because a wake-up can be lost: the mark goes when another taker overtakes a sleeper. */
const SLEEP_MS = 1;

export function lockBucket(words: Int32Array, at: number, ownerId: number): void {
  // The exchange orders the guarded words: their reads come after it.
  if (Atomics.compareExchange(words, at, 0, ownerId) !== 0) lockContended(words, at, ownerId);
}

/** For callers that may not wait: false when the lock is taken. */
export function tryLockBucket(words: Int32Array, at: number, ownerId: number): boolean {
  return Atomics.compareExchange(words, at, 0, ownerId) === 0;
}

export function unlockBucket(words: Int32Array, at: number): void {
  // Writes to the guarded words are visible to whoever sees this 0.
  const before = Atomics.exchange(words, at, 0);
  if ((before & SLEEPERS) !== 0) Atomics.notify(words, at);
}

/** Opens the lock if `ownerId`, whose thread has ended, still holds it. */
export function releaseDeadLock(words: Int32Array, at: number, ownerId: number): boolean {
  // Nobody else changes the owner of a taken lock, so load then exchange is safe.
  if ((Atomics.load(words, at) & OWNER_MASK) !== ownerId) return false;
  unlockBucket(words, at);
  return true;
}

function lockContended(words: Int32Array, at: number, ownerId: number): void {
  for (;;) {
    for (let spin = 0; spin < CLIENT_LOCK_SPINS_MAX; spin++) {
      // A plain look before the exchange keeps the cache line shared while the owner works.
      if (Atomics.load(words, at) !== 0) continue;
      if (Atomics.compareExchange(words, at, 0, ownerId) === 0) return;
    }
    const seen = Atomics.load(words, at);
    if (seen === 0) continue;
    const marked = seen | SLEEPERS;
    // The mark must be in place before the sleep, or the owner would not wake us.
    if (seen === marked || Atomics.compareExchange(words, at, seen, marked) === seen) {
      Atomics.wait(words, at, marked, SLEEP_MS);
    }
  }
}
