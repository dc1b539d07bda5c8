// Endpoints that wait for their turn, first come first served, each in the queue at most once.

export class EndpointQueue {
  count = 0;
  readonly #ring: Int32Array;
  readonly #isWaiting: Uint8Array;
  #head = 0;

  constructor(endpoints: number) {
    this.#ring = new Int32Array(endpoints);
    this.#isWaiting = new Uint8Array(endpoints);
  }

  add(endpoint: number): void {
    if (this.#isWaiting[endpoint] === 1) return;
    this.#isWaiting[endpoint] = 1;
    this.#ring[(this.#head + this.count) % this.#ring.length] = endpoint;
    this.count++;
  }

  /** The next one; the caller has seen that `count` is above 0. */
  take(): number {
    const endpoint = this.#ring[this.#head];
    this.#head = (this.#head + 1) % this.#ring.length;
    this.count--;
    this.#isWaiting[endpoint] = 0;
    return endpoint;
  }
}
