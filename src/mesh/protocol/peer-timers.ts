// The timers of one peer (paper §6), pure: what happened is told to them, and they say when what is due. Infinity: off.
// The rules are those of the WireGuard of the Linux kernel, which the paper describes.

import type { ProtocolTimes } from './times.ts';

const OFF = Number.POSITIVE_INFINITY;

export class PeerTimers {
  readonly #times: ProtocolTimes;
  readonly #jitter: () => number;
  /** The initiation is to be repeated: it had no response (§6.4). */
  retransmitMs = OFF;
  /** Data came and nothing was sent since: an empty packet tells the peer that we live (§6.5). */
  keepaliveMs = OFF;
  /** More data came while `keepaliveMs` was running. */
  #keepaliveAgain = false;
  /** Data was sent and nothing came since: a new handshake is tried (§6.5). */
  silenceMs = OFF;
  /** The tunnel was silent both ways for the peer's persistent keepalive interval. */
  persistentMs = OFF;
  /** 0 = off. */
  persistentIntervalMs = 0;

  /** `jitter` gives 0 to 1, less than 1. */
  constructor(times: ProtocolTimes, jitter: () => number) {
    this.#times = times;
    this.#jitter = jitter;
  }

  deadline(): number {
    return Math.min(this.retransmitMs, this.keepaliveMs, this.silenceMs, this.persistentMs);
  }

  /** Data was sent that nothing has answered. */
  sentData(now: number): void {
    if (this.silenceMs !== OFF) return;
    const { keepaliveTimeoutMs, rekeyTimeoutMs } = this.#times;
    this.silenceMs = this.#jittered(now + keepaliveTimeoutMs + rekeyTimeoutMs);
  }

  /** Data was received that nothing has answered. */
  receivedData(now: number): void {
    if (this.keepaliveMs === OFF) this.keepaliveMs = now + this.#times.keepaliveTimeoutMs;
    else this.#keepaliveAgain = true;
  }

  /** Anything authenticated was sent. */
  sent(now: number): void {
    this.keepaliveMs = OFF;
    this.#keepaliveAgain = false;
    this.traversed(now);
  }

  /** Anything authenticated was received. */
  received(now: number): void {
    this.silenceMs = OFF;
    this.traversed(now);
  }

  /** The persistent keepalive counts from now. */
  traversed(now: number): void {
    this.persistentMs = this.persistentIntervalMs > 0 ? now + this.persistentIntervalMs : OFF;
  }

  /** The keepalive that was due is being sent. */
  keepaliveFired(now: number): void {
    this.keepaliveMs = this.#keepaliveAgain ? now + this.#times.keepaliveTimeoutMs : OFF;
    this.#keepaliveAgain = false;
  }

  initiated(now: number): void {
    this.retransmitMs = this.#jittered(now + this.#times.rekeyTimeoutMs);
  }

  /** An initiation is wanted, yet not before this time. */
  initiateAfter(timeMs: number): void {
    if (this.retransmitMs === OFF) this.retransmitMs = this.#jittered(timeMs);
  }

  completed(): void {
    this.retransmitMs = OFF;
  }

  gaveUp(): void {
    this.retransmitMs = OFF;
    this.keepaliveMs = OFF;
    this.#keepaliveAgain = false;
  }

  #jittered(timeMs: number): number {
    return timeMs + this.#jitter() * this.#times.rekeyJitterMs;
  }
}
