// The one source of chance of a simulation: the small fast counting generator sfc32 (Chris Doty-Humphrey, PractRand),
// started from one seed. Everything random in a run is drawn from one of these, in an order that replays.

export class SimRandom {
  readonly #state = new Int32Array(4);

  constructor(seed: number) {
    this.#state[0] = seed | 0;
    this.#state[1] = 0x9e37_79b9 ^ Math.floor(seed / 0x1_0000_0000);
    this.#state[2] = 0x243f_6a88;
    this.#state[3] = 1;
    for (let round = 0; round < 16; round++) this.next();
  }

  /** 32 random bits, unsigned. */
  next(): number {
    const state = this.#state;
    const b = state[1];
    const c = state[2];
    const result = (state[0] + b + state[3]) | 0;
    state[3]++;
    state[0] = b ^ (b >>> 9);
    state[1] = (c + (c << 3)) | 0;
    state[2] = (((c << 21) | (c >>> 11)) + result) | 0;
    return result >>> 0;
  }

  /** 0 to `end` - 1. */
  below(end: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * end);
  }

  /** `low` to `high`, whole numbers, both included. */
  whole(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** `low` to `high`, with a fraction. */
  between(low: number, high: number): number {
    return low + (this.next() / 0x1_0000_0000) * (high - low);
  }

  chance(probability: number): boolean {
    return this.next() < probability * 0x1_0000_0000;
  }

  /** `low` to `high`, each magnitude as likely as the next: small ones are common, large ones occur. */
  spread(low: number, high: number): number {
    return Math.floor(low * (high / low) ** (this.next() / 0x1_0000_0000));
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[this.below(values.length)] as Value;
  }
}
