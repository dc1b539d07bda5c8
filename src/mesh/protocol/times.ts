// The times of WireGuard (paper §6.1 and §5.3), in milliseconds, as one object, so that a test can run with shorter ones.
// The limits on messages (§6.1: 2^60 and 2^64-2^13-1) need no code here: at a packet per nanosecond the 180 s of a keypair
// end at 2^38, and replay-window.ts refuses counters from 2^53 on.

export interface ProtocolTimes {
  /** The initiator of a keypair makes a new one when it sends with one of this age. */
  readonly rekeyAfterMs: number;
  /** A keypair of this age is neither sent nor received with: it is gone. */
  readonly rejectAfterMs: number;
  /** At least this between two initiations to a peer. */
  readonly rekeyTimeoutMs: number;
  /** Up to this is added before an initiation is repeated, so that two peers do not keep talking at once. */
  readonly rekeyJitterMs: number;
  /** Attempts to reach a peer end after this. */
  readonly rekeyAttemptMs: number;
  /** Data that got no answer for so long is answered by an empty packet. */
  readonly keepaliveTimeoutMs: number;
  /** At least this between two initiations that are accepted from a peer. */
  readonly initiationGapMs: number;
  /** The secret behind the cookies is changed when it is this old. */
  readonly cookieSecretMs: number;
  /** A cookie received is used so long. */
  readonly cookieMs: number;
  /** After the last excess of handshake messages mac2 is asked for so long. */
  readonly loadMs: number;
}

export const PROTOCOL_TIMES: ProtocolTimes = {
  rekeyAfterMs: 120_000,
  rejectAfterMs: 180_000,
  rekeyTimeoutMs: 5_000,
  rekeyJitterMs: 333,
  rekeyAttemptMs: 90_000,
  keepaliveTimeoutMs: 10_000,
  initiationGapMs: 20,
  cookieSecretMs: 120_000,
  cookieMs: 120_000,
  loadMs: 1_000,
};
