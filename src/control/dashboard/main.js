// The page: starts the parts, hands them what comes, and reads backends and countries every few seconds while somebody
// looks. Nothing is asked for while the page is hidden, and the event stream ends when it stays so.

import { Activity } from './activity.js';
import { ask, Problem } from './api.js';
import { Backends } from './backends.js';
import { Charts } from './charts.js';
import { byId, h, setText } from './dom.js';
import { startExplain } from './explain.js';
import { count, country, decimal, duration, plural, timeOfDay } from './format.js';
import { WorldMap } from './map.js';
import { readMap } from './map-data.js';
import { EventStream } from './stream.js';

const POLL_MS = 3000;
const TOAST_MS = 6000;
/** A glance at another tab shall leave no gap in the charts. */
const HIDDEN_MS = 60_000;
const THEME = 'edgeproxy-theme';

const charts = new Charts();
const activity = new Activity();
const backends = new Backends({ changed: () => poll(), failed: report });

/** @type {WorldMap | null} */
let map = null;
/** @type {Api.Status | null} */
let status = null;
/** The version that this page came with. */
let pageVersion = '';
let total = 0;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;

/** @param {unknown} error */
function report(error) {
  const toast = byId('toast');
  setText(toast, error instanceof Error ? error.message : String(error));
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    toast.hidden = true;
  }, TOAST_MS);
}

/** What an operator should know before anything else. @param {Api.Status} status @returns {[string, string][]} */
function noticesOf({ drain, routing, access, geo, version }) {
  /** @type {[string, string][]} */
  const found = [];
  if (drain !== null) {
    const until = timeOfDay(drain.deadline);
    found.push([
      'warn',
      `Stopping: ${plural(drain.sessions, 'session')} may finish until ${until}`,
    ]);
  }
  if (routing.last_error !== null && routing.last_error.time > routing.loaded_at) {
    found.push(['error', `routing.db cannot be read: ${routing.last_error.message}`]);
  }
  const [problem] = routing.problems;
  if (problem !== undefined) {
    const more =
      routing.problems_total > 1 ? ` (and ${count(routing.problems_total - 1)} more)` : '';
    found.push([
      'warn',
      `routing.db, ${problem.id}: ${problem.column} is ${problem.value}, ${problem.reason}${more}`,
    ]);
  }
  if (access.last_error !== null && access.last_error.time > access.loaded_at) {
    found.push(['error', `The access list cannot be read: ${access.last_error.message}`]);
  }
  if (geo.last_error !== null && geo.last_error.time > geo.loaded_at) {
    found.push(['error', `Country data cannot be read: ${geo.last_error.message}`]);
  }
  if (version !== pageVersion) found.push(['info', `Now version ${version}: reload this page`]);
  return found;
}

let noticesShown = '';

/** @param {Api.Status} status */
function showNotices(status) {
  const found = noticesOf(status);
  const key = JSON.stringify(found);
  if (key === noticesShown) return;
  noticesShown = key;
  byId('notices').replaceChildren(
    ...found.map(([level, text]) => h('p', { 'data-level': level }, text)),
  );
}

/** @param {Api.Status} now */
function showStatus(now) {
  status = now;
  pageVersion ||= now.version;
  const { pop, workers, listeners } = now;
  const place = pop.country === null ? '' : `, ${country(pop.country)}`;
  setText(byId('pop'), `${pop.region}${place}`);
  document.title = `${decimal(now.sessions.current)} · ${pop.region} · edgeproxy`;
  const engines = [...new Set(workers.map(({ engine }) => engine))].join(', ');
  const running = workers.filter(({ phase }) => phase === 'running').length;
  setText(
    byId('facts'),
    `up ${duration(now.uptime_seconds)} · ${running} of ${plural(workers.length, 'worker')} on ${engines} · routing version ${count(now.routing.version)}`,
  );
  setText(
    byId('about'),
    `edgeproxy ${now.version} · Node.js ${now.node} · process ${now.pid} · listens on ${listeners.map(({ app, address }) => `${app}@${address}`).join(', ')} · country data: ${now.geo.description}, ${now.geo.built_at.slice(0, 10)}`,
  );
  showNotices(now);
  charts.add(now);
  activity.showStatus(now);
  const apps = listeners.map(({ app }) => app).filter((app) => app !== '*');
  backends.setApps(apps);
  if (map !== null) map.pop = pop;
}

/** @param {Api.Countries} answer */
function showCountries({ countries }) {
  if (map !== null) map.countries = countries;
  const body = /** @type {Element} */ (byId('countries').querySelector('tbody'));
  body.replaceChildren(
    ...countries.map((entry) =>
      h(
        'tr',
        { 'data-country': entry.country },
        h('th', { scope: 'row' }, country(entry.country)),
        h('td', {}, entry.region ?? '–'),
        h('td', { class: 'n' }, count(entry.sessions)),
        h('td', { class: 'n' }, decimal(entry.connections_per_second)),
        h('td', { class: 'n' }, count(entry.connections)),
      ),
    ),
  );
}

/** @param {import('./map-data.js').MapData} data */
function showBackendsOf(data) {
  if (map !== null) map.data = data;
  const taking = data.total - data.out;
  setText(byId('backends-summary'), `${count(taking)} of ${count(data.total)} take new clients`);
}

const stream = new EventStream({
  message: (event, data) => {
    if (event === 'status') showStatus(data);
    else if (event === 'event') activity.add(data);
    else if (event === 'gap') {
      const { missed } = /** @type {Api.Gap} */ (data);
      charts.gap();
      activity.note(
        missed === null ? 'the proxy was started again' : `${count(missed)} events missed`,
      );
    }
  },
  state: (state, text) => {
    if (document.body.dataset.connection === state && state === 'live') return;
    if (state === 'reconnecting') charts.gap();
    const button = byId('connection');
    button.dataset.state = state;
    document.body.dataset.connection = state;
    button.title = state === 'reconnecting' || state === 'refused' ? 'Try now' : '';
    setText(/** @type {Element} */ (button.querySelector('span')), text);
    if (state === 'live') poll();
  },
});

/** @type {ReturnType<typeof setTimeout> | undefined} */
let pollTimer;
let polls = 0;

/** Reads what the stream does not bring, now and then every few seconds. */
async function poll() {
  clearTimeout(pollTimer);
  const turn = ++polls;
  if (document.hidden || document.body.dataset.connection !== 'live') return;
  try {
    const reads = [ask('/api/countries').then(showCountries), backends.update()];
    await Promise.all(reads);
    total = status?.routing.backends ?? 0;
    showBackendsOf(await readMap(total, backends.whole));
    map?.draw();
  } catch (error) {
    // Without a connection the stream says so; a token is asked for once.
    if (error instanceof Problem && error.status !== 401) report(error);
  }
  if (turn === polls) pollTimer = setTimeout(poll, POLL_MS);
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let hiddenTimer;

function watchVisibility() {
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(() => stream.pause(), HIDDEN_MS);
    else {
      stream.open();
      poll();
    }
  });
}

function startTheme() {
  const select = /** @type {HTMLSelectElement} */ (byId('theme'));
  select.value = localStorage.getItem(THEME) ?? '';
  select.addEventListener('change', () => {
    if (select.value === '') {
      localStorage.removeItem(THEME);
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem(THEME, select.value);
      document.documentElement.dataset.theme = select.value;
    }
    charts.redraw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => charts.redraw());
}

async function startMap() {
  const answer = await fetch(new URL('countries.json', import.meta.url));
  map = new WorldMap(await answer.json());
  map.pop = status?.pop ?? null;
  byId('arcs').addEventListener('change', (event) => {
    if (map === null) return;
    map.withFlows = /** @type {HTMLInputElement} */ (event.target).checked;
    map.draw();
  });
  poll();
}

byId('connection').addEventListener('click', () => {
  const { state } = byId('connection').dataset;
  if (state === 'reconnecting' || state === 'refused') stream.retryNow();
});
startTheme();
startExplain();
watchVisibility();
stream.open();
startMap().catch(report);
