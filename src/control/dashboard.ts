// The dashboard's files: the page at `/`, and below /assets/DIGEST/ its style, modules, libraries and map, from the list
// here and from nowhere else. All are read and compressed once, when first asked for. DIGEST is over all of them, so
// browsers may keep them for ever. They hold no data of the proxy: that comes from the API, which asks for the token.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

const ASSETS = '/assets/';
const PAGE = 'index.html';
/** Stands in the page where the digest goes. */
const DIGEST_MARK = 'DIGEST';

const OWN_FILES = [
  PAGE,
  'style.css',
  'icon.svg',
  'theme.js',
  'main.js',
  'api.js',
  'stream.js',
  'dom.js',
  'format.js',
  'dialogs.js',
  'states.js',
  'charts.js',
  'map.js',
  'map-data.js',
  'backends.js',
  'backend-row.js',
  'activity.js',
  'explain.js',
] as const;

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  json: 'application/json; charset=utf-8',
  svg: 'image/svg+xml',
};

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
const PAGE_POLICY = [
  "default-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "object-src 'none'",
].join('; ');

interface Asset {
  readonly type: string;
  readonly plain: Buffer;
  readonly zipped: Buffer;
}

interface Dashboard {
  readonly digest: string;
  readonly assets: ReadonlyMap<string, Asset>;
}

/** Where each file is, by the name it is served under; libraries as their packages bring them. */
function assetUrls(): Map<string, URL> {
  const geo = import.meta.resolve('d3-geo');
  // Installed for d3-geo, wherever npm put it.
  const array = pathToFileURL(createRequire(geo).resolve('d3-array'));
  const uplot = import.meta.resolve('uplot');
  return new Map([
    ...OWN_FILES.map((name): [string, URL] => [
      name,
      new URL(`./dashboard/${name}`, import.meta.url),
    ]),
    ['d3-array.js', new URL('./d3-array.min.js', array)],
    ['d3-geo.js', new URL('./d3-geo.min.js', geo)],
    [
      'topojson-client.js',
      new URL('./topojson-client.min.js', import.meta.resolve('topojson-client')),
    ],
    ['uplot.js', new URL('./uPlot.iife.min.js', uplot)],
    ['uplot.css', new URL('./uPlot.min.css', uplot)],
    ['countries.json', new URL(import.meta.resolve('world-atlas/countries-110m.json'))],
  ]);
}

async function assetOf(name: string, plain: Buffer): Promise<Asset> {
  const type = TYPES[name.slice(name.lastIndexOf('.') + 1)] as string;
  // In zlib's own thread. Browsers take brotli over HTTPS only, and this is mostly plain HTTP.
  return { type, plain, zipped: await promisify(gzip)(plain, { level: 9 }) };
}

async function readDashboard(): Promise<Dashboard> {
  const files = await Promise.all(
    [...assetUrls()].map(async ([name, url]) => [name, await readFile(url)] as const),
  );
  const hash = createHash('sha256');
  for (const [name, bytes] of files) hash.update(`${name} ${bytes.length} `).update(bytes);
  const digest = hash.digest('hex').slice(0, 16);
  const assets = await Promise.all(
    files.map(async ([name, bytes]) => {
      const plain =
        name === PAGE ? Buffer.from(bytes.toString().replaceAll(DIGEST_MARK, digest)) : bytes;
      return [name, await assetOf(name, plain)] as const;
    }),
  );
  return { digest, assets: new Map(assets) };
}

let reading: Promise<Dashboard> | null = null;

/** The file that a path asks for; undefined: there is none, or it is of another version. */
function findAsset({ digest, assets }: Dashboard, path: string): Asset | undefined {
  if (path === '/') return assets.get(PAGE);
  const prefix = `${ASSETS}${digest}/`;
  const name = path.slice(prefix.length);
  return path.startsWith(prefix) && name !== PAGE ? assets.get(name) : undefined;
}

/** Answers GET and HEAD of `/` and of what is below /assets/. */
export async function serveDashboard(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  reading ??= readDashboard();
  const dashboard = await reading.catch((error) => {
    reading = null;
    throw error;
  });
  const asset = findAsset(dashboard, path);
  const headers: Record<string, string> = {
    'x-content-type-options': 'nosniff',
    'content-security-policy': PAGE_POLICY,
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
  };
  if (asset === undefined) {
    response.writeHead(404, { ...headers, 'content-type': 'text/plain; charset=utf-8' });
    response.end('Not found; the dashboard is at /\n');
    return;
  }
  const isPage = path === '/';
  headers.etag = `"${dashboard.digest}"`;
  headers['cache-control'] = isPage ? 'no-cache' : 'public, max-age=31536000, immutable';
  headers.vary = 'accept-encoding';
  if (request.headers['if-none-match']?.includes(headers.etag)) {
    response.writeHead(304, headers).end();
    return;
  }
  const isZipped = /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))/i.test(
    String(request.headers['accept-encoding'] ?? ''),
  );
  if (isZipped) headers['content-encoding'] = 'gzip';
  const body = isZipped ? asset.zipped : asset.plain;
  headers['content-type'] = asset.type;
  headers['content-length'] = String(body.length);
  // Node leaves the body of an answer to HEAD out.
  response.writeHead(200, headers).end(body);
}
