// When the device is under load (paper §5.3), and how many handshake messages an address may then send: 20 a second, 5 at
// once, as in the WireGuard of the Linux kernel. IPv6 addresses count by their /64. The table of addresses is bounded;
// when it is full of addresses in use, further ones are refused: they all have shown that they are real, by mac2.

import { ENDPOINT_BYTES } from './port.ts';

/** Handshakes are about a millisecond each: so many a second, with so many at once, are taken without asking for mac2. */
const LOAD_PER_SEC = 250;
const LOAD_BURST = 500;
const SOURCE_PER_SEC = 20;
const SOURCE_BURST = 5;
const SOURCES_MAX = 16_384;
/** A full table is searched for addresses that have been quiet at most this often. */
const SWEEP_MS = 1_000;
const MS_PER_SEC = 1_000;

/** A bucket as the one time at which it is full again: the generic cell rate algorithm (ITU-T I.371). */
function isWithin(now: number, fullMs: number, gapMs: number, burst: number): boolean {
  return fullMs - now <= (burst - 1) * gapMs;
}

/** Counts handshake messages whose mac1 is right. */
export class LoadMeter {
  readonly #loadMs: number;
  #fullMs = Number.NEGATIVE_INFINITY;
  #loadedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(loadMs: number) {
    this.#loadMs = loadMs;
  }

  /** One more message: whether the device is under load. */
  isLoaded(now: number): boolean {
    const gapMs = MS_PER_SEC / LOAD_PER_SEC;
    if (isWithin(now, this.#fullMs, gapMs, LOAD_BURST)) {
      this.#fullMs = Math.max(this.#fullMs, now) + gapMs;
    } else {
      this.#loadedUntilMs = now + this.#loadMs;
    }
    return now < this.#loadedUntilMs;
  }
}

/** The addresses that sent handshake messages with the right mac2 under load. */
export class SourceLimits {
  /** When the bucket of an address is full again. */
  readonly #fullMs = new Map<string, number>();
  #sweptMs = Number.NEGATIVE_INFINITY;

  /** One more message from this endpoint: whether it may be handled. */
  allows(now: number, source: Uint8Array): boolean {
    const gapMs = MS_PER_SEC / SOURCE_PER_SEC;
    const name = sourceName(source);
    const fullMs = this.#fullMs.get(name);
    if (fullMs === undefined && !this.#hasRoom(now)) return false;
    if (fullMs !== undefined && !isWithin(now, fullMs, gapMs, SOURCE_BURST)) return false;
    this.#fullMs.set(name, Math.max(fullMs ?? now, now) + gapMs);
    return true;
  }

  #hasRoom(now: number): boolean {
    if (this.#fullMs.size < SOURCES_MAX) return true;
    if (now - this.#sweptMs < SWEEP_MS) return false;
    this.#sweptMs = now;
    for (const [name, fullMs] of this.#fullMs) if (fullMs <= now) this.#fullMs.delete(name);
    return this.#fullMs.size < SOURCES_MAX;
  }
}

/** The address of an endpoint as a key: an IPv4 address, or the /64 of an IPv6 one. */
function sourceName(source: Uint8Array): string {
  const address = Buffer.from(source.buffer, source.byteOffset, ENDPOINT_BYTES - 2);
  const isV4 = address.readUInt32BE(8) === 0xffff && address.readBigUInt64BE(0) === 0n;
  return address.toString('latin1', 0, isV4 ? 16 : 8);
}
