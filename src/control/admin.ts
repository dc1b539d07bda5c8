// The HTTP server of the control plane: /metrics, /healthz and /readyz. It serves nothing that changes anything. When its
// address is taken (an older process that is still draining, say) the proxy runs on and the address is tried again.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { MetricsSources } from './metrics.ts';

const RETRY_MS = 1000;

export interface AdminOptions extends MetricsSources {
  /** null: no server. */
  readonly listen: Config['metricsListen'];
  readonly logger: Logger;
  /** False while draining: load balancers in front look at /readyz. */
  readonly isReady: () => boolean;
}

export interface AdminServer {
  /** Real address, or where it will be once that is free. */
  readonly address: string;
  close(): void;
}

type Handler = (response: ServerResponse) => Promise<void> | void;

function plainText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(`${text}\n`);
}

function createRoutes(options: AdminOptions): Map<string, Handler> {
  let registry: import('prom-client').Registry | null = null;
  const metrics: Handler = async (response) => {
    if (registry === null) {
      // Loaded at the first scrape: it would cost the start some 10 ms.
      const { createMetrics } = await import('./metrics.ts');
      registry = createMetrics(options);
    }
    response.writeHead(200, { 'content-type': registry.contentType });
    response.end(await registry.metrics());
  };
  return new Map<string, Handler>([
    ['/metrics', metrics],
    ['/healthz', (response) => plainText(response, 200, 'ok')],
    [
      '/readyz',
      (response) => {
        const ready = options.isReady();
        plainText(response, ready ? 200 : 503, ready ? 'ready' : 'draining');
      },
    ],
  ]);
}

async function answer(
  routes: Map<string, Handler>,
  request: IncomingMessage,
  response: ServerResponse,
  logger: Logger,
): Promise<void> {
  const path = (request.url ?? '/').split('?', 1)[0] as string;
  const handler = routes.get(path);
  if (handler === undefined) {
    plainText(response, 404, `Not found; there are ${[...routes.keys()].join(', ')}`);
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    plainText(response, 405, 'Only GET and HEAD are allowed');
  } else {
    try {
      await handler(response);
    } catch (error) {
      logger.error('An admin request failed', { path, reason: errorMessage(error) });
      if (!response.headersSent) plainText(response, 500, 'Internal error');
      else response.destroy();
    }
  }
}

/** Resolves once the server listens, or once it is clear that the address is taken. */
export async function startAdmin(options: AdminOptions): Promise<AdminServer | null> {
  const { listen, logger } = options;
  if (listen === null) return null;
  const routes = createRoutes(options);
  const server = createServer((request, response) => {
    void answer(routes, request, response, logger);
  });
  const { host, port } = listen;
  const text = (bound: number): string => `${listen.family === 6 ? `[${host}]` : host}:${bound}`;
  let retry: NodeJS.Timeout | undefined;
  let reported = false;
  await new Promise<void>((resolve) => {
    server.on('error', (error) => {
      if (!reported) {
        const reason = errorMessage(error);
        logger.error('Metrics cannot be served yet, trying again', { address: text(port), reason });
      }
      reported = true;
      retry = setTimeout(() => server.listen(port, host), RETRY_MS);
      resolve();
    });
    server.on('listening', () => {
      if (reported) logger.info('Metrics are served now', { address: text(port) });
      resolve();
    });
    server.listen(port, host);
  });
  const bound = (server.address() as AddressInfo | null)?.port ?? port;
  return {
    address: text(bound),
    close: () => {
      clearTimeout(retry);
      server.close();
      server.closeAllConnections();
    },
  };
}
