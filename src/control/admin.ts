// The HTTP server of the control plane: /metrics, /healthz, /readyz, the API below /api (api/server.ts), and the dashboard
// (dashboard.ts). It decides who may ask for what. When its address is taken (an older process that is still draining,
// say) the proxy runs on and the address is tried again.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errorMessage } from '../base/errors.ts';
import { type Authorize, bearerCheck, sameSiteCheck } from './api/access.ts';
import type { ApiSources } from './api/context.ts';
import { sendProblem } from './api/router.ts';
import type { Api } from './api/server.ts';

const RETRY_MS = 1000;
/** The API is loaded this long after the start, so that its rates have begun when someone asks. */
const API_LOAD_MS = 1000;
/** Event streams, scrapes and a few people; what comes above waits or is refused by the kernel. */
const CONNECTIONS_MAX = 256;
const HEADER_BYTES_MAX = 16_384;
const HEADERS_MS = 5000;
const REQUEST_MS = 10_000;

export interface AdminOptions extends ApiSources {
  /** null: none is needed. */
  readonly token: string | null;
}

export interface AdminServer {
  /** Real address, or where it will be once that is free. */
  readonly address: string;
  close(): void;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void> | void;

/** A page that is read only. */
interface Page {
  readonly authorize: Authorize;
  readonly handle: Handler;
}

const anybody: Authorize = () => null;

function plainText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(`${text}\n`);
}

/** Loads the API once, at the first call. */
function apiLoader(options: AdminOptions): { load(): Promise<Api>; close(): void } {
  let loading: Promise<Api> | null = null;
  let api: Api | null = null;
  let closed = false;
  const load = async (): Promise<Api> => {
    const { Api } = await import('./api/server.ts');
    api = new Api(options);
    if (closed) api.close();
    return api;
  };
  return {
    load: () => {
      loading ??= load();
      return loading;
    },
    close: () => {
      closed = true;
      api?.close();
    },
  };
}

function metricsHandler(options: AdminOptions): Handler {
  let page: Promise<import('./metrics-page.ts').MetricsPage> | null = null;
  return async (_request, response) => {
    // Loaded at the first scrape: it would cost the start some 10 ms.
    page ??= import('./metrics-page.ts').then(({ MetricsPage }) => new MetricsPage(options));
    await (await page).answer(response);
  };
}

function createPages(options: AdminOptions, authorize: Authorize): Map<string, Page> {
  const { config, token } = options;
  const metrics = token === null || config.metricsPublic ? anybody : authorize;
  return new Map<string, Page>([
    ['/metrics', { authorize: metrics, handle: metricsHandler(options) }],
    [
      '/healthz',
      { authorize: anybody, handle: (_request, response) => plainText(response, 200, 'ok') },
    ],
    [
      '/readyz',
      {
        authorize: anybody,
        handle: (_request, response) => {
          const ready = options.isReady();
          plainText(response, ready ? 200 : 503, ready ? 'ready' : 'draining');
        },
      },
    ],
  ]);
}

/** The dashboard is code only, the same for everybody. */
function isDashboard(path: string): boolean {
  return path === '/' || path.startsWith('/assets/');
}

/** Answers one request: a page, or the API. */
function createAnswer(options: AdminOptions, loadApi: () => Promise<Api>): Handler {
  const authorize = options.token === null ? sameSiteCheck : bearerCheck(options.token);
  const pages = createPages(options, authorize);
  return async (request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0] as string;
    const page = pages.get(path);
    const isApi = path === '/api' || path.startsWith('/api/');
    const problem = (page?.authorize ?? (isApi ? authorize : anybody))(request);
    if (problem !== null) sendProblem(request, response, problem);
    else if (isApi) await (await loadApi()).handle(request, response);
    else if (page === undefined && !isDashboard(path)) {
      const paths = ['/', ...pages.keys(), '/api'].join(', ');
      plainText(response, 404, `Not found; there are ${paths}`);
    } else if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      plainText(response, 405, 'Only GET and HEAD are allowed');
    } else if (page !== undefined) await page.handle(request, response);
    else await (await import('./dashboard.ts')).serveDashboard(request, response, path);
  };
}

/** Resolves once the server listens, or once it is clear that the address is taken. */
async function listen(server: Server, options: AdminOptions): Promise<AdminServer> {
  const { logger, config } = options;
  const { host, port, family } = config.metricsListen as NonNullable<typeof config.metricsListen>;
  const text = (bound: number): string => `${family === 6 ? `[${host}]` : host}:${bound}`;
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

export async function startAdmin(options: AdminOptions): Promise<AdminServer | null> {
  const { config, logger } = options;
  if (config.metricsListen === null) return null;
  const api = apiLoader(options);
  const answer = createAnswer(options, api.load);
  const limits = {
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    connectionsCheckingInterval: 1000,
  };
  const server = createServer(limits, async (request, response) => {
    try {
      await answer(request, response);
    } catch (error) {
      logger.error('An admin request failed', { path: request.url, reason: errorMessage(error) });
      if (!response.headersSent) plainText(response, 500, 'Internal error');
      else response.destroy();
    }
  });
  server.maxConnections = CONNECTIONS_MAX;
  const admin = await listen(server, options);
  // What is wrong with it, the first request will say.
  const loading = setTimeout(() => api.load().catch(() => {}), API_LOAD_MS).unref();
  return {
    address: admin.address,
    close: () => {
      clearTimeout(loading);
      api.close();
      admin.close();
    },
  };
}
