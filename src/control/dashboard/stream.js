// The event stream, by fetch: EventSource cannot send a token. Reconnects with a growing delay and resumes after the event
// seen last.

import { Problem, request } from './api.js';

const DELAY_MS = [500, 1000, 2000, 4000, 8000, 15_000];
/** A status comes every second: without one for this long the connection is dead, whatever TCP believes. */
const SILENCE_MS = 6000;
const RECENT = 50;

/**
 * @typedef {object} Listener
 * @property {(event: string, data: any) => void} message
 * @property {(state: 'live' | 'connecting' | 'reconnecting' | 'refused' | 'paused', text: string) => void} state
 */

export class EventStream {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener;
    this.lastId = '';
    this.attempt = 0;
    /** @type {AbortController | null} */
    this.controller = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.retry = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.silence = undefined;
  }

  get isOpen() {
    return this.controller !== null || this.retry !== undefined;
  }

  open() {
    if (!this.isOpen) this.#connect();
  }

  /** Ends it; `open` resumes where it was. */
  pause() {
    this.#stop();
    this.listener.state('paused', 'Paused');
  }

  /** Tries at once instead of at the end of the delay. */
  retryNow() {
    this.#stop();
    this.#connect();
  }

  #stop() {
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.retry = undefined;
    this.controller?.abort();
    this.controller = null;
  }

  async #connect() {
    const controller = new AbortController();
    this.controller = controller;
    this.retry = undefined;
    if (this.attempt === 0 && this.lastId === '') this.listener.state('connecting', 'Connecting');
    /** @type {unknown} */
    let failure = null;
    try {
      await this.#read(controller);
    } catch (error) {
      failure = error;
    }
    clearTimeout(this.silence);
    // Paused, or replaced by another connection.
    if (this.controller !== controller) return;
    this.controller = null;
    if (failure instanceof Problem && (failure.status === 401 || failure.status === 403)) {
      this.listener.state('refused', failure.message);
      return;
    }
    this.#later();
  }

  #later() {
    const delay = /** @type {number} */ (DELAY_MS[Math.min(this.attempt, DELAY_MS.length - 1)]);
    this.attempt++;
    this.listener.state('reconnecting', `Reconnecting, attempt ${this.attempt}`);
    this.retry = setTimeout(() => this.#connect(), delay);
  }

  /** @param {AbortController} controller */
  #watch(controller) {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => controller.abort(), SILENCE_MS);
  }

  /** @param {AbortController} controller */
  async #read(controller) {
    const isResumed = this.lastId !== '';
    const response = await request(`/api/events?recent=${isResumed ? 0 : RECENT}`, {
      headers: isResumed ? { 'last-event-id': this.lastId } : {},
      signal: controller.signal,
    });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      this.#watch(controller);
      const chunk = await reader?.read();
      if (chunk === undefined || chunk.done) return;
      const blocks = (rest + chunk.value).split('\n\n');
      rest = /** @type {string} */ (blocks.pop());
      for (const block of blocks) this.#take(block);
    }
  }

  /** @param {string} block */
  #take(block) {
    let event = 'message';
    let data = '';
    for (const line of block.split('\n')) {
      const colon = line.indexOf(': ');
      const value = line.slice(colon + 2);
      if (line.startsWith('id: ')) this.lastId = value;
      else if (line.startsWith('event: ')) event = value;
      else if (line.startsWith('data: ')) data += value;
    }
    if (data === '') return;
    if (event === 'status') {
      this.attempt = 0;
      this.listener.state('live', 'Live');
    }
    this.listener.message(event, JSON.parse(data));
  }
}
