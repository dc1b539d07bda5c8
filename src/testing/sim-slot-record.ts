// What the checks of a simulation remember of the session in each slot.

/** Backends that a session may try, at most. */
export const TRIES_MAX = 8;

/** What the checks remember of the session in a slot. */
export class SlotRecord {
  /** Last time an event moved bytes; last time it brought some from a peer that counts as activity. */
  readonly movedAt: Float64Array;
  readonly receivedAt: Float64Array;
  /** When an end of stream was handed out, Infinity = not yet. */
  readonly halfAt: Float64Array;
  readonly connectAt: Float64Array;
  readonly connectResult: Int32Array;
  /** Backend indexes tried by the session, 8 per slot. */
  readonly tried: Int32Array;
  readonly tries: Uint8Array;
  readonly judged: Uint8Array;

  constructor(slots: number) {
    this.movedAt = new Float64Array(slots);
    this.receivedAt = new Float64Array(slots);
    this.halfAt = new Float64Array(slots).fill(Number.POSITIVE_INFINITY);
    this.connectAt = new Float64Array(slots);
    this.connectResult = new Int32Array(slots);
    this.tried = new Int32Array(slots * TRIES_MAX);
    this.tries = new Uint8Array(slots);
    this.judged = new Uint8Array(slots);
  }
}
