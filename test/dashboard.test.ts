// The dashboard in a real browser on a real proxy: what it draws is what the API says, its buttons change where the next
// connection goes, and it survives restarts, hostile names, phones and thousands of backends.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { readAdmin } from '../src/testing/admin-reads.ts';
import {
  type DashboardPage,
  NO_BROWSER,
  networkOf,
  newDashboard,
  PUBLIC_ADDRESSES,
  startBrowser,
  startProgram,
} from '../src/testing/browser.ts';
import { backendName, openClient } from '../src/testing/clients.ts';
import { writeMmdb } from '../src/testing/mmdb-writer.ts';
import { attempt, skipReason } from '../src/testing/netns.ts';
import { type HostPort, type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { refusedPort, sayName, sink, startBackend } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const TOKEN = 'correct-horse-battery-staple';
const HOSTILE = '<img src=x onerror="window.hit=1">';
const skip = NO_BROWSER === '' ? false : skipReason(NO_BROWSER);

let browser: Browser;
let directory: string;
before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
  if (skip === false) browser = await startBrowser(directory);
});
after(async () => {
  await browser?.close();
  rmSync(directory, { recursive: true });
});

/** The dashboard of a proxy, live, with its first backends shown. */
async function openDashboard(proxy: ProxyProcess, width = 1280): Promise<DashboardPage> {
  const dashboard = await newDashboard(browser, proxy.admin as HostPort, width);
  await dashboard.open();
  await dashboard.live();
  await dashboard.page.waitForSelector('#backends-table tbody tr');
  return dashboard;
}

/** Waits until a text of the page is this. */
async function untilText(dashboard: DashboardPage, selector: string, text: string): Promise<void> {
  let last = '';
  try {
    await until('', async () => {
      last = (await dashboard.page.locator(selector).first().innerText()).trim();
      return last === text;
    });
  } catch {
    throw new Error(`${selector} says "${last}", not "${text}"`);
  }
}

test('dashboard: rows, marks and figures are what the API says', { skip }, async () => {
  await using a = await startBackend(sink);
  await using b = await startBackend(sink);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', country: 'BR', ...a.row, weight: 2.5, softLimit: 7, hardLimit: 9 },
      { id: 'b', country: 'CL', ...b.row, app: 'mail' },
      { id: 'off', country: 'CL', port: 1, healthy: 0 },
      { id: 'zero', region: 'us', port: 1, weight: 0 },
    ],
    settings: { COUNTRY: 'AR', LISTEN_ADDR: 'web@127.0.0.1:0,mail@127.0.0.1:0' },
  });
  const sockets: Socket[] = [];
  for (const at of [0, 0, 0, 1]) {
    sockets.push(await openClient(proxy.addresses[at] as HostPort));
  }
  await using dashboard = await openDashboard(proxy);
  await untilText(dashboard, '[data-id=a] .c-load .number', '3');
  await untilText(dashboard, '[data-id=b] .c-load .number', '1');
  await untilText(dashboard, '#chart-sessions .figure b', '4');
  const { backends } = await readAdmin(proxy, '/api/backends', 'backendList');
  const shown = await dashboard.page.locator('#backends-table tbody tr').all();
  assert.equal(shown.length, backends.length);
  for (const [at, backend] of backends.entries()) {
    const text = ((await shown[at]?.innerText()) ?? '').replaceAll(/\s+/g, ' ');
    for (const part of [backend.id, backend.app, backend.region, `soft ${backend.soft_limit}`]) {
      assert.ok(text.includes(part), `${part} in ${text}`);
    }
    assert.equal(await shown[at]?.locator('.c-weight').innerText(), String(backend.weight));
  }
  assert.deepEqual(await dashboard.texts('.state'), ['serving', 'serving', 'off', 'off']);
  await untilText(dashboard, '#backends-summary', '2 of 4 take new clients');
  const marks = await dashboard.page
    .locator('#map [data-backend]')
    .evaluateAll((all) => all.map((mark) => [mark.dataset.backend, mark.dataset.state]).sort());
  assert.deepEqual(marks, [
    ['a', 'serving'],
    ['b', 'serving'],
    ['off', 'off'],
    ['zero', 'off'],
  ]);
  // The bar: three of at most nine.
  const width = await dashboard
    .row('a')
    .locator('.fill')
    .evaluate((fill) => fill.style.width);
  assert.equal(width, '33.33%');
  assert.match(await dashboard.page.locator('#map-summary').innerText(), /^4 sessions.*4 without/);
  for (const socket of sockets) socket.destroy();
  await untilText(dashboard, '[data-id=a] .c-load .number', '0');
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: the circles of countries have areas in proportion to their sessions', {
  skip,
}, async (t) => {
  const problem = attempt(PUBLIC_ADDRESSES[0], [...PUBLIC_ADDRESSES.slice(1), 'true']);
  if (problem !== '') {
    t.skip(skipReason(problem));
    return;
  }
  const file = join(directory, 'countries.mmdb');
  const countries = { '11.1.0.0/16': 'BR', '11.2.0.0/16': 'DE', '11.3.0.0/16': 'JP' };
  const networks = Object.entries(countries).map(([cidr, code]) => ({
    cidr,
    value: { country: { iso_code: code } },
  }));
  writeFileSync(file, writeMmdb(networks));
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: 9001 }],
    wrapper: PUBLIC_ADDRESSES,
    settings: { GEOIP_PATH: file, COUNTRY: 'CL' },
  });
  const tool = new URL('../src/testing/name-tool.ts', import.meta.url).pathname;
  const inside = networkOf(proxy.pid);
  const run = [...inside, process.execPath, '--disable-warning=ExperimentalWarning', tool];
  await using _backend = await startProgram([...run, 'stay', '127.0.0.1:9001=a']);
  const { host, port } = proxy.address;
  const clients = ['11.1.0.1=16', '11.2.0.1=4', '11.3.0.1=1'];
  await using _clients = await startProgram([...run, 'hold', host, String(port), ...clients]);
  const own = await startBrowser(directory, inside);
  try {
    await using dashboard = await newDashboard(own, proxy.admin as HostPort);
    await dashboard.open();
    await dashboard.live();
    const circles = dashboard.page.locator('#map circle[data-country]');
    await until('three countries', async () => (await circles.count()) === 3);
    const drawn = await circles.evaluateAll((all) =>
      all.map((circle): [string, number, number] => [
        circle.dataset.country ?? '',
        Number(circle.dataset.sessions),
        Number(circle.getAttribute('r')),
      ]),
    );
    assert.deepEqual(
      drawn.map(([country, sessions]) => [country, sessions]),
      [
        ['BR', 16],
        ['DE', 4],
        ['JP', 1],
      ],
    );
    const [br = 0, de = 0, jp = 0] = drawn.map(([, , radius]) => radius);
    assert.ok(Math.abs(br / de - 2) < 0.01 && Math.abs(br / jp - 4) < 0.02, String([br, de, jp]));
    await dashboard.page.locator('#countries summary').click();
    assert.deepEqual(await dashboard.texts('#countries tbody th'), ['Brazil', 'Germany', 'Japan']);
    assert.deepEqual(dashboard.problems, []);
  } finally {
    await own.close();
  }
});

test('dashboard: a button takes a backend out, after a question, and back in', {
  skip,
}, async () => {
  await using a = await startBackend(sayName('a'));
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, weight: 1000 },
      { id: 'b', ...b.row },
    ],
  });
  assert.equal(await backendName(proxy.address), 'a');
  await using dashboard = await openDashboard(proxy);
  const { page } = dashboard;
  const button = dashboard.row('a').getByRole('button', { name: 'Disable a' });
  await button.click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  assert.equal(await backendName(proxy.address), 'a', 'nothing happens without a yes');
  // The whole way by keyboard: from the filter through the rows to the button, and through the question.
  await page.locator('#backends-filter [name=excluded]').focus();
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate('document.activeElement.ariaLabel'), 'Disable a');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog[open]');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await untilText(dashboard, '[data-id=a] .state', 'off');
  await untilText(dashboard, '[data-id=a] .c-reason', 'disabled');
  assert.equal(await backendName(proxy.address), 'b');
  await untilText(dashboard, '#backends-summary', '1 of 2 take new clients');
  await page.waitForSelector('#events [data-type=backend_edited]');
  await dashboard.row('a').getByRole('button', { name: 'Enable a' }).click();
  await untilText(dashboard, '[data-id=a] .state', 'serving');
  await dashboard.row('a').getByRole('button', { name: 'Weight a' }).click();
  await page.getByRole('dialog').getByRole('spinbutton').fill('0.5');
  await page.keyboard.press('Enter');
  await untilText(dashboard, '[data-id=a] .c-weight', '0.5');
  const { weight } = await readAdmin(proxy, '/api/backends/a', 'backend');
  assert.equal(weight, 0.5);
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: a drain sends new clients elsewhere and ends at its time', { skip }, async () => {
  await using a = await startBackend(sink);
  await using b = await startBackend(sayName('b'));
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...a.row, weight: 1000 },
      { id: 'b', ...b.row },
    ],
  });
  const client = await openClient(proxy.address);
  await a.next(0);
  await using dashboard = await openDashboard(proxy);
  const { page } = dashboard;
  const drain = (): Promise<void> =>
    dashboard.row('a').getByRole('button', { name: 'Drain a', exact: true }).click();
  const yes = page.getByRole('dialog').getByRole('button', { name: 'Drain' });
  await drain();
  await yes.click();
  await untilText(dashboard, '[data-id=a] .state', 'draining');
  assert.equal(await backendName(proxy.address, { from: '127.0.0.2' }), 'b');
  await page.waitForSelector('#map [data-backend=a][data-state=draining]');
  await dashboard.row('a').getByRole('button', { name: 'Undrain a' }).click();
  await untilText(dashboard, '[data-id=a] .state', 'serving');
  assert.equal(a.sockets.size, 1, 'the session is still there');
  await drain();
  await page.getByRole('dialog').getByRole('spinbutton').fill('0');
  await yes.click();
  await until('the end of the session', () => a.sockets.size === 0);
  await page.waitForSelector('#events [data-type=drain_empty]');
  client.destroy();
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: the explain box says country, choice and why the others lose', {
  skip,
}, async () => {
  await using proxy = await startProxy({
    backends: [
      { id: 'br', country: 'BR', port: 1 },
      { id: 'us', region: 'us', country: 'US', port: 1 },
      { id: 'out', country: 'BR', port: 1, healthy: 0 },
    ],
  });
  await using dashboard = await openDashboard(proxy);
  const { page } = dashboard;
  await page.fill('#explain-form [name=ip]', '200.160.2.3');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#explanation tbody tr');
  const answer = await readAdmin(proxy, '/api/explain?ip=200.160.2.3', 'explanation');
  assert.equal(answer.choice, 'br');
  const said = await page.locator('#explanation .sentence').innerText();
  assert.equal(said, `200.160.2.3 is in Brazil, region sa. It goes to br: ${answer.reason}.`);
  const rows = await page
    .locator('#explanation tbody tr')
    .evaluateAll((all) =>
      all.map((row) => [row.dataset.id, row.hasAttribute('data-chosen'), row.cells[2]?.innerText]),
    );
  assert.deepEqual(rows, [
    ['br', true, '0 country'],
    ['us', false, '3 elsewhere'],
    ['out', false, '0 country'],
  ]);
  const reasons = await dashboard.texts('#explanation tbody td:last-child');
  assert.deepEqual(
    reasons,
    answer.candidates.map(({ reason }) => reason),
  );
  await page.fill('#explain-form [name=ip]', 'not an address');
  await page.keyboard.press('Enter');
  assert.match(await page.locator('#explanation .failure').innerText(), /IPv4 or IPv6/);
  // The refusal, which is what was wanted, is an error to the console.
  assert.ok(dashboard.problems.every((problem) => problem.includes('400')));
});

test('dashboard: names from data are text, whatever they are', { skip }, async () => {
  await using a = await startBackend(sayName('a'));
  await using proxy = await startProxy({
    backends: [
      { id: HOSTILE, ...a.row },
      { id: 'bad', port: 99_999, region: '"><script>window.hit=1</script>' },
    ],
  });
  await using dashboard = await openDashboard(proxy);
  const { page } = dashboard;
  assert.deepEqual(await dashboard.texts('#backends-table .id'), [HOSTILE]);
  assert.match(await page.locator('#notices').innerText(), /routing\.db, bad/);
  await page.fill('#explain-form [name=ip]', '200.160.2.3');
  await page.keyboard.press('Enter');
  assert.ok((await page.locator('#explanation .sentence').innerText()).includes(HOSTILE));
  await page.getByRole('button', { name: `Disable ${HOSTILE}` }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Disable' }).click();
  await page.waitForSelector('#events [data-type=backend_edited]');
  await page.locator('#map [data-backend]').hover();
  assert.ok((await page.locator('#tip').innerText()).includes(HOSTILE));
  assert.equal(await page.locator('main img, main script, #tip img, #notices script').count(), 0);
  assert.equal(await page.evaluate('window.hit'), undefined);
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: the token is asked for once, kept for the tab, and a wrong one is told', {
  skip,
}, async () => {
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: 1 }],
    settings: { ADMIN_TOKEN: TOKEN },
  });
  await using dashboard = await newDashboard(browser, proxy.admin as HostPort);
  await dashboard.open();
  const { page } = dashboard;
  const input = page.locator('dialog input[name=token]');
  await input.fill(`${TOKEN}-wrong`);
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog >> text=not accepted');
  await input.fill(TOKEN);
  await page.keyboard.press('Enter');
  await dashboard.live();
  await page.waitForSelector('[data-id=a]');
  assert.equal(await page.locator('dialog').count(), 0, 'one question for all requests');
  await page.reload();
  await dashboard.live();
  await page.waitForSelector('[data-id=a]');
  assert.equal(await page.locator('dialog').count(), 0);
  assert.equal(await page.evaluate('localStorage.length'), 0);
  assert.ok(!page.url().includes(TOKEN));
  assert.ok(dashboard.problems.every((problem) => problem.includes('401')));
  // A token that is no longer right: several requests find out at once, there is one question.
  let refused = 0;
  page.on('response', (response) => {
    if (response.status() === 401) refused++;
  });
  await page.evaluate(`sessionStorage.setItem('edgeproxy-token', '${TOKEN}-old')`);
  await until('refusals', () => refused >= 2);
  await input.first().fill(TOKEN);
  assert.equal(await page.locator('dialog').count(), 1);
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog', { state: 'detached' });
  // Another tab does not have it.
  await using other = await newDashboard(browser, proxy.admin as HostPort);
  await other.open();
  await other.page.locator('dialog').getByRole('button', { name: 'Cancel' }).click();
  await other.page.waitForSelector('body[data-connection="refused"]');
});

test('dashboard: it reconnects by itself when the proxy is started again', { skip }, async () => {
  const port = await refusedPort();
  const options = {
    backends: [{ id: 'a', port: 1 }],
    directory: mkdtempSync(join(directory, 'restart-')),
    settings: { METRICS_LISTEN_ADDR: `127.0.0.1:${port}` },
  };
  const first = await startProxy(options);
  await using dashboard = await openDashboard(first);
  const { page } = dashboard;
  await first[Symbol.asyncDispose]();
  await page.waitForSelector('body[data-connection="reconnecting"]');
  assert.match(await page.locator('#connection').innerText(), /^Reconnecting/);
  await using second = await startProxy(options);
  assert.notEqual(first.pid, second.pid);
  await dashboard.live();
  await until('the new process', async () =>
    (await page.locator('#about').innerText()).includes(`process ${second.pid}`),
  );
  assert.match((await dashboard.texts('#events .between')).join(), /started again/);
  assert.equal((await dashboard.texts('#events [data-type=started]')).length, 2);
  assert.deepEqual(
    dashboard.problems.filter((problem) => !/ERR_CONNECTION|ERR_INCOMPLETE/.test(problem)),
    [],
  );
});

test('dashboard: no width makes it scroll sideways', { skip }, async () => {
  const long = 'a-backend-with-a-name-that-is-as-long-as-names-of-machines-in-clouds-are.example';
  await using proxy = await startProxy({
    backends: [
      { id: long, port: 1, country: 'BR' },
      { id: 'x'.repeat(128), port: 1, healthy: 0 },
    ],
  });
  await using dashboard = await openDashboard(proxy, 360);
  const { page } = dashboard;
  await page.fill('#explain-form [name=ip]', '200.160.2.3');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#explanation tbody tr');
  for (const width of [360, 620, 768, 1121, 1440]) {
    await page.setViewportSize({ width, height: 800 });
    const wide = await page.evaluate('document.documentElement.scrollWidth');
    assert.ok(Number(wide) <= width, `${wide} of ${width}`);
  }
  for (const theme of ['dark', 'light']) {
    await page.selectOption('#theme', theme);
    const scheme = await page.evaluate('getComputedStyle(document.documentElement).colorScheme');
    assert.equal(scheme, theme);
  }
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: thousands of backends are pages of a table and clusters on the map', {
  skip,
}, async () => {
  const regions = ['sa', 'us', 'eu'];
  await using proxy = await startProxy({
    backends: Array.from({ length: 3000 }, (_, at) => ({
      id: `b${String(at).padStart(4, '0')}`,
      region: regions[at % 3] as string,
      port: 1,
      healthy: at < 30 ? 0 : 1,
    })),
  });
  await using dashboard = await openDashboard(proxy);
  const { page } = dashboard;
  await untilText(dashboard, '#page', '1 to 50 of 3,000');
  await page.waitForSelector('#map [data-cluster]');
  const clusters = page.locator('#map [data-cluster]');
  assert.deepEqual(await clusters.evaluateAll((all) => all.map((mark) => mark.dataset.total)), [
    '1000',
    '1000',
    '1000',
  ]);
  assert.equal(await page.locator('#map [data-backend]').count(), 0);
  await page.click('#next');
  await untilText(dashboard, '#page', '51 to 100 of 3,000');
  await page.fill('#backends-filter [name=match]', 'b299');
  await untilText(dashboard, '[data-id] .id', 'b2990');
  assert.equal(await page.locator('#backends-table tbody tr').count(), 10);
  await page.fill('#backends-filter [name=match]', '');
  await page.selectOption('#backends-filter [name=excluded]', 'true');
  await until('those that are out', async () => {
    return (await page.locator('#backends-table tbody tr').count()) === 30;
  });
  await untilText(dashboard, '#backends-summary', '2,970 of 3,000 take new clients');
  assert.deepEqual(dashboard.problems, []);
});

test('dashboard: nothing is asked for while nobody looks', { skip }, async () => {
  await using proxy = await startProxy({ backends: [{ id: 'a', port: 1 }] });
  await using dashboard = await openDashboard(proxy);
  const { page, requests } = dashboard;
  const reads = () => requests.filter((path) => path === '/api/backends').length;
  await until('a second reading', () => reads() >= 2);
  const look = (isHidden: boolean) =>
    page.evaluate(`Object.defineProperty(document, 'hidden', { value: ${isHidden}, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'))`);
  await look(true);
  const before = reads();
  // The stream goes on for a while, so its seconds tell that time has passed: more than a reading takes.
  const facts = new Set<string>();
  const passed = async () => facts.add(await page.innerText('#facts')).size > 8;
  await until('some seconds', passed, 60_000);
  assert.ok(reads() <= before + 1, 'one may have been on its way');
  await look(false);
  await until('a reading', () => reads() > before + 1);
});
