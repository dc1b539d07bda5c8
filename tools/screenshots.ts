// Makes docs/images/dashboard-*.png: a proxy with backends on four continents, live load from addresses that a country
// database of its own puts all over the world, and the dashboard in a headless Chromium. It runs itself again in a network
// namespace that has these addresses on its loopback interface, so it needs root.
// `node tools/screenshots.ts [directory] [seconds] [phone]`

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { crc32, deflateSync, inflateSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { askAdmin } from '../src/testing/admin-client.ts';
import { openClient } from '../src/testing/clients.ts';
import { writeMmdb } from '../src/testing/mmdb-writer.ts';
import { type HostPort, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { refusedPort, startBackend, type TestBackend } from '../src/testing/test-backends.ts';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const DIRECTORY = process.argv[2] ?? fileURLToPath(new URL('../docs/images', import.meta.url));
const SECONDS = Number(process.argv[3] ?? 100);

/** Sessions by country of the client; the n-th country's addresses are 11.(n + 1).0.0/16. */
const CLIENTS: Readonly<Record<string, number>> = {
  BR: 96,
  AR: 34,
  CL: 22,
  CO: 18,
  PE: 9,
  US: 58,
  MX: 21,
  CA: 12,
  ES: 13,
  PT: 11,
  FR: 9,
  DE: 16,
  GB: 14,
  IT: 6,
  NG: 5,
  ZA: 8,
  IN: 12,
  JP: 9,
  ID: 5,
  AU: 7,
  EG: 3,
}; // prettier-ignore

const BACKENDS = [
  { id: 'gru-1', region: 'sa', country: 'BR', softLimit: 80, hardLimit: 140 },
  { id: 'gru-2', region: 'sa', country: 'BR', softLimit: 80, hardLimit: 140, weight: 1.5 },
  { id: 'eze-1', region: 'sa', country: 'AR', softLimit: 40, hardLimit: 60 },
  { id: 'scl-1', region: 'sa', country: 'CL', softLimit: 18, hardLimit: 22 },
  { id: 'iad-1', region: 'us', country: 'US', softLimit: 80, hardLimit: 120 },
  { id: 'iad-2', region: 'us', country: 'US', softLimit: 80, hardLimit: 120 },
  { id: 'fra-1', region: 'eu', country: 'DE', softLimit: 60, hardLimit: 100 },
  { id: 'lhr-1', region: 'eu', country: 'GB', softLimit: 40, hardLimit: 60 },
  { id: 'sin-1', region: 'ap', country: 'SG', softLimit: 50, hardLimit: 80 },
] as const;
const DEAD = { id: 'mad-1', region: 'eu', country: 'ES', softLimit: 40, hardLimit: 60 };
const REQUEST = Buffer.alloc(700, 'x');

/** More than it was asked, as servers do. */
function answer(socket: Socket): void {
  socket.on('data', () => socket.write(Buffer.alloc(2000 + 3000 * Math.random())));
  socket.on('end', () => socket.end());
}

function countryDatabase(path: string): void {
  const networks = Object.keys(CLIENTS).map((code, index) => ({
    cidr: `11.${index + 1}.0.0/16`,
    value: { country: { iso_code: code } },
  }));
  writeFileSync(path, writeMmdb(networks));
}

/** One client that asks now and then, until the end. */
async function longSession(at: HostPort, from: string, open: Set<Socket>): Promise<void> {
  const socket = await openClient(at, { from }).catch(() => null);
  if (socket === null) return;
  open.add(socket);
  socket.resume();
  const timer = setInterval(() => socket.write(REQUEST), 250 + 250 * Math.random());
  socket.once('close', () => {
    clearInterval(timer);
    open.delete(socket);
  });
}

/** Short sessions in waves, so that the charts have something to show. */
async function shortSessions(at: HostPort, isOver: () => boolean): Promise<void> {
  const shares = Object.values(CLIENTS).flatMap((count, index) => Array(count).fill(index + 1));
  for (let turn = 0; !isOver(); turn++) {
    const pause = 26 - 12 * Math.sin(turn / 190) - 6 * Math.sin(turn / 37);
    await delay(pause);
    if (turn % 12 === 0) (await openClient(at, { from: '11.1.250.1' }).catch(() => null))?.end();
    const network = shares[Math.floor(Math.random() * shares.length)] as number;
    const from = `11.${network}.${1 + (turn % 200)}.${1 + Math.floor(turn / 200)}`;
    const socket = await openClient(at, { from }).catch(() => null);
    socket?.resume();
    socket?.write(REQUEST);
    setTimeout(() => socket?.end(), 300 + 1500 * Math.random());
  }
}

async function load(proxy: ProxyProcess, isOver: () => boolean): Promise<Set<Socket>> {
  const open = new Set<Socket>();
  let country = 0;
  for (const count of Object.values(CLIENTS)) {
    country++;
    for (let client = 1; client <= count; client++) {
      const start = Math.random() * SECONDS * 500;
      const from = `11.${country}.0.${client}`;
      setTimeout(() => void longSession(proxy.address, from, open), start).unref();
    }
  }
  void shortSessions(proxy.address, isOver);
  return open;
}

/** Value of a filtered byte's prediction, by PNG filter type: left, up, upper left. */
const PREDICT = [
  () => 0,
  (left: number) => left,
  (_left: number, up: number) => up,
  (left: number, up: number) => (left + up) >> 1,
  (left: number, up: number, corner: number) => {
    const [a, b] = [Math.abs(up - corner), Math.abs(left - corner)];
    const c = Math.abs(left + up - 2 * corner);
    return a <= b && a <= c ? left : b <= c ? up : corner;
  },
] as const;

/** The same image, a quarter smaller: flat areas compress better without the filters that Chromium chooses. */
function shrink(png: Buffer): Buffer {
  const chunks: { type: string; data: Buffer }[] = [];
  for (let at = 8; at < png.length; at += png.readUInt32BE(at) + 12) {
    const data = png.subarray(at + 8, at + 8 + png.readUInt32BE(at));
    chunks.push({ type: png.toString('latin1', at + 4, at + 8), data });
  }
  const header = chunks[0]?.data as Buffer;
  const pixel = header[9] === 6 ? 4 : 3;
  const line = 1 + header.readUInt32BE(0) * pixel;
  const parts = chunks.filter(({ type }) => type === 'IDAT').map(({ data }) => data);
  const raw = inflateSync(Buffer.concat(parts));
  for (let start = 0; start < raw.length; start += line) {
    const predict = PREDICT[raw[start] as number] as (typeof PREDICT)[4];
    raw[start] = 0;
    for (let at = start + 1; at < start + line; at++) {
      const isFirst = at - start <= pixel;
      const left = isFirst ? 0 : (raw[at - pixel] as number);
      const up = start === 0 ? 0 : (raw[at - line] as number);
      const corner = isFirst || start === 0 ? 0 : (raw[at - line - pixel] as number);
      raw[at] = (raw[at] as number) + predict(left, up, corner);
    }
  }
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const whole = Buffer.alloc(body.length + 8);
    whole.writeUInt32BE(data.length, 0);
    body.copy(whole, 4);
    whole.writeUInt32BE(crc32(body), body.length + 4);
    return whole;
  };
  return Buffer.concat([
    png.subarray(0, 8),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(raw, { level: 9, memLevel: 9 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

async function shoot(proxy: ProxyProcess, backends: readonly TestBackend[]): Promise<void> {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  let over = false;
  const open = await load(proxy, () => over);
  try {
    const { host, port } = proxy.admin as HostPort;
    const pages = await Promise.all(
      (['light', 'dark'] as const).map(async (colorScheme) => {
        const page = await browser.newPage({
          colorScheme,
          viewport: { width: 1280, height: 1300 },
        });
        await page.goto(`http://${host}:${port}/`);
        return { page, colorScheme };
      }),
    );
    await delay(SECONDS * 600);
    const at = '/api/backends/';
    await askAdmin(proxy, `${at}lhr-1`, { method: 'PATCH', body: { enabled: false } });
    await askAdmin(proxy, `${at}iad-2/drain`, { method: 'PUT', body: { timeout_seconds: 3600 } });
    await delay(SECONDS * 400);
    mkdirSync(DIRECTORY, { recursive: true });
    for (const { page, colorScheme } of pages) {
      await page.bringToFront();
      await page.fill('input[name=ip]', '11.14.9.9');
      await page.click('#explain-form button');
      await page.waitForSelector('.sentence');
      await page.evaluate('document.activeElement?.blur()');
      await delay(1500);
      const path = join(DIRECTORY, `dashboard-${colorScheme}.png`);
      await page.evaluate('scrollTo(0, 0)');
      const table = await page.locator('#backends').boundingBox();
      const height = Math.ceil((table?.y ?? 0) + (table?.height ?? 0)) + 14;
      const clip = { x: 0, y: 0, width: 1280, height };
      writeFileSync(path, shrink(await page.screenshot({ fullPage: true, clip })));
    }
    if (process.argv.includes('phone')) {
      const page = pages[0]?.page;
      await page?.setViewportSize({ width: 360, height: 740 });
      await delay(1500);
      await page?.screenshot({ path: join(DIRECTORY, 'dashboard-phone.png'), fullPage: true });
    }
  } finally {
    over = true;
    await browser.close();
    for (const socket of open) socket.destroy();
    for (const backend of backends) await backend[Symbol.asyncDispose]();
  }
}

async function main(): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'edgeproxy-screenshots-'));
  const geo = join(work, 'countries.mmdb');
  countryDatabase(geo);
  const backends = await Promise.all(BACKENDS.map(() => startBackend(answer)));
  const rows = BACKENDS.map((row, at) => ({ ...row, ...(backends[at] as TestBackend).row }));
  const proxy = await startProxy({
    backends: [...rows, { ...DEAD, port: await refusedPort() }],
    settings: {
      REGION: 'sa',
      COUNTRY: 'BR',
      GEOIP_PATH: geo,
      HEALTH_CHECK_ENABLED: 'true',
      // One address is too eager.
      RATE_LIMIT_ENABLED: 'true',
      RATE_LIMIT_MAX_REQUESTS: 20,
      RATE_LIMIT_WINDOW_SECS: 10,
    },
  });
  try {
    await shoot(proxy, backends);
  } finally {
    await proxy[Symbol.asyncDispose]();
    rmSync(work, { recursive: true });
  }
}

/** Every address of 11.0.0.0/8 is this machine's in there. */
const SETUP = 'ip link set lo up && ip route add local 11.0.0.0/8 dev lo && exec "$@"';

if (process.env.IN_NAMESPACE === '1') await main();
else {
  const args = ['-n', 'sh', '-c', SETUP, 'sh', process.execPath, ...process.argv.slice(1)];
  const env = { ...process.env, IN_NAMESPACE: '1' };
  process.exitCode = spawnSync('unshare', args, { stdio: 'inherit', env }).status ?? 1;
}
