// The page /metrics: made and sent in pieces, compressed where the scraper can take it. Between two pieces the main thread
// does its other work, and a scraper that reads slowly holds one piece, not the page. The process's own metrics (CPU,
// memory, event loop, garbage collection of the main thread) are prom-client's defaults.

import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate as otherWork } from 'node:timers/promises';
import { createGzip, constants as zlib } from 'node:zlib';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { exposition } from './exposition.ts';
import { type MetricsSources, metricFamilies } from './metrics.ts';

/** The clock that measures the event loop's lag wakes the main thread this often. */
const LAG_PRECISION_MS = 100;
/** Of prom-client's defaults; metrics.ts has a cheaper one. */
const REPLACED = 'process_open_fds';
const GZIP = { level: zlib.Z_BEST_SPEED };

export class MetricsPage {
  readonly #sources: MetricsSources;
  readonly #process = new Registry();

  constructor(sources: MetricsSources) {
    this.#sources = sources;
    collectDefaultMetrics({
      register: this.#process,
      eventLoopMonitoringPrecision: LAG_PRECISION_MS,
    });
    this.#process.removeSingleMetric(REPLACED);
  }

  async *#pieces(): AsyncGenerator<string> {
    for (const piece of exposition(metricFamilies(this.#sources))) {
      yield piece;
      await otherWork();
    }
    yield await this.#process.metrics();
  }

  /** Resolves when the page is sent, or the scraper has left. */
  async answer(response: ServerResponse): Promise<void> {
    const { headers } = response.req;
    const zipped = /\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))/.test(String(headers['accept-encoding']));
    response.writeHead(200, {
      'content-type': this.#process.contentType,
      vary: 'accept-encoding',
      ...(zipped ? { 'content-encoding': 'gzip' } : {}),
    });
    const pieces = Readable.from(this.#pieces(), { objectMode: false });
    try {
      if (zipped) await pipeline(pieces, createGzip(GZIP), response);
      else await pipeline(pieces, response);
    } catch (error) {
      // A scraper that stops reading is its own business.
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    }
  }
}
