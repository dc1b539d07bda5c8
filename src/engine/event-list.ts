// The completions that an engine has made and not handed out yet: two arrays that change places, so that the batch handed
// out stays valid while the next one fills. They grow when one moment makes many events, as a stop with many sessions does.

import {
  EVENT_BUFFER,
  EVENT_ENDPOINT,
  EVENT_GENERATION,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
} from './proactor.ts';

/** Events before the first growth: every ready socket's operations of a usual wait, with a wide margin. */
const EVENTS_MIN = 4096;

export class EventList {
  #filling = new Int32Array(EVENTS_MIN * EVENT_WORDS);
  #spare = new Int32Array(EVENTS_MIN * EVENT_WORDS);
  count = 0;

  add(
    operation: number,
    endpoint: number,
    generation: number,
    result: number,
    buffer: number,
    more: number,
  ): void {
    const at = this.count++ * EVENT_WORDS;
    if (at === this.#filling.length) this.#grow();
    const events = this.#filling;
    events[at + EVENT_OP] = operation;
    events[at + EVENT_ENDPOINT] = endpoint;
    events[at + EVENT_GENERATION] = generation;
    events[at + EVENT_RESULT] = result;
    events[at + EVENT_BUFFER] = buffer;
    events[at + EVENT_MORE] = more;
  }

  #grow(): void {
    const larger = new Int32Array(this.#filling.length * 2);
    larger.set(this.#filling);
    this.#filling = larger;
  }

  /** Hands out the `count` events added since; valid until the next call. */
  take(): Int32Array<ArrayBuffer> {
    const handedOut = this.#filling;
    this.#filling = this.#spare;
    this.#spare = handedOut;
    this.count = 0;
    return handedOut;
  }
}
