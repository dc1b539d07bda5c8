// The admin API below /api: one object for all requests, made at the first of them or shortly after the start. admin.ts has
// checked who asks.

import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { openSnapshot, type Snapshot } from '../../route/snapshot.ts';
import { monotonicMs } from '../../sys/clock.ts';
import type { ApiSources } from './context.ts';
import { EventStreams } from './event-stream.ts';
import { Rates } from './rates.ts';
import { answerRequest } from './router.ts';
import { ROUTES } from './routes.ts';
import { statusOf } from './status.ts';

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

export class Api {
  readonly sources: ApiSources;
  readonly rates: Rates;
  readonly streams: EventStreams;
  readonly version = packageVersion();
  readonly startedAt: Date;
  #snapshot: Snapshot | null = null;

  constructor(sources: ApiSources) {
    this.sources = sources;
    this.startedAt = new Date(Date.now() - (monotonicMs() - sources.epochMs));
    const end = (): number => this.snapshot?.backendEnd ?? 0;
    this.rates = new Rates(sources.pool, sources.epochMs, end);
    this.streams = new EventStreams(sources.events, () => statusOf(this));
  }

  /** What the workers use, or take with their next batch. */
  get snapshot(): Snapshot | null {
    const buffer = this.sources.pool.common?.routing;
    if (buffer === undefined) return null;
    if (this.#snapshot?.buffer !== buffer) this.#snapshot = openSnapshot(buffer);
    return this.#snapshot;
  }

  handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    return answerRequest(this, ROUTES, request, response);
  }

  close(): void {
    this.rates.close();
    this.streams.close();
  }
}
