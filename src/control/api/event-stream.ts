// GET /api/events: events as they happen, as server-sent events, and the status once a second. Reconnecting clients say
// which event they saw last and get what came since. A subscriber that does not read is cut off, not waited for.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type * as v from 'valibot';
import type { ControlEvent, EventBus } from '../events.ts';
import { ApiProblem } from './problem.ts';
import type { eventsQuery } from './request-schemas.ts';
import type * as schemas from './response-schemas.ts';
import type { ApiRequest } from './router.ts';

type Query = v.InferOutput<typeof eventsQuery>;

const SUBSCRIBERS_MAX = 32;
/** About a minute of status events, or the whole ring of events, wait for a slow reader. */
const UNREAD_BYTES_MAX = 524_288;
const STATUS_MS = 1000;
/** Comments, where there is no status: proxies in between close what is silent. */
const KEEPALIVE_TICKS = 15;

interface Subscriber {
  readonly response: ServerResponse;
  readonly wantsStatus: boolean;
}

export class EventStreams {
  readonly #bus: EventBus;
  readonly #status: () => unknown;
  readonly #subscribers = new Set<Subscriber>();
  readonly #unsubscribe: () => void;
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;

  constructor(bus: EventBus, status: () => unknown) {
    this.#bus = bus;
    this.#status = status;
    this.#unsubscribe = bus.subscribe((event) => {
      if (this.#subscribers.size === 0) return;
      const text = this.#eventText(event);
      for (const subscriber of this.#subscribers) this.#write(subscriber, text);
    });
  }

  /** Throws an ApiProblem when there are too many. */
  open(request: IncomingMessage, response: ServerResponse, query: Query): void {
    if (this.#subscribers.size >= SUBSCRIBERS_MAX) {
      const detail = `${SUBSCRIBERS_MAX} event streams are open, which is the most there may be`;
      throw new ApiProblem('too-many-subscribers', detail, { headers: { 'retry-after': '5' } });
    }
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      // nginx would collect events until its buffer is full.
      'x-accel-buffering': 'no',
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    const subscriber = { response, wantsStatus: query.status };
    this.#subscribers.add(subscriber);
    response.once('close', () => this.#remove(subscriber));
    this.#write(subscriber, this.#firstText(request, query.recent));
    if (query.status) this.#write(subscriber, this.#statusText());
    this.#timer ??= setInterval(() => this.#tick(), STATUS_MS).unref();
  }

  /**
   * What came after the event that the client saw last or, without one, the last `recent` events; and the place from which
   * to go on, should the stream break before the next event.
   */
  #firstText({ headers }: IncomingMessage, recent: number): string {
    const { runId, lastSequence } = this.#bus;
    const seen = headers['last-event-id'];
    const match = /^([0-9a-f]{8})-(\d{1,15})$/.exec(String(seen ?? ''));
    const isOurs = match?.[1] === runId;
    const from = seen === undefined ? Math.max(0, lastSequence - recent) : 0;
    const { events, missed } = this.#bus.since(isOurs ? Number(match?.[2]) : from);
    const texts = [`retry: 2000\nid: ${runId}-${lastSequence}\n\n`];
    if (seen !== undefined && (!isOurs || missed > 0)) {
      // Those of another run of the program cannot be counted.
      const gap: v.InferOutput<typeof schemas.gap> = { missed: isOurs ? missed : null };
      texts.push(`event: gap\ndata: ${JSON.stringify(gap)}\n\n`);
    }
    texts.push(...events.map((event) => this.#eventText(event)));
    return texts.join('');
  }

  #eventText({ sequence, time, level, type, message, fields }: ControlEvent): string {
    const data: schemas.EventData = { time, level, type, message, fields };
    return `id: ${this.#bus.runId}-${sequence}\nevent: event\ndata: ${JSON.stringify(data)}\n\n`;
  }

  #statusText(): string {
    return `event: status\ndata: ${JSON.stringify(this.#status())}\n\n`;
  }

  #tick(): void {
    this.#ticks++;
    let status: string | null = null;
    for (const subscriber of this.#subscribers) {
      if (subscriber.wantsStatus) {
        status ??= this.#statusText();
        this.#write(subscriber, status);
      } else if (this.#ticks % KEEPALIVE_TICKS === 0) this.#write(subscriber, ':\n\n');
    }
  }

  #write(subscriber: Subscriber, text: string): void {
    const { response } = subscriber;
    if (response.writableLength + text.length <= UNREAD_BYTES_MAX) response.write(text);
    else {
      this.#remove(subscriber);
      response.destroy();
    }
  }

  #remove(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    if (this.#subscribers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  close(): void {
    this.#unsubscribe();
    for (const { response } of this.#subscribers) response.destroy();
  }
}

export function getEvents({ api, request, response, query }: ApiRequest<Query, undefined>): null {
  api.streams.open(request, response, query);
  return null;
}
