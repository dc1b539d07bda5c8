// Four charts of the last minutes, fed by one status a second. Each shows its newest figures in large print, or those under
// the pointer.

import { byId, h, setText } from './dom.js';
import { bytes, bytesText, decimal, milliseconds, short, timeOfDay } from './format.js';

const POINTS = 600;
const WINDOW_SECONDS = 300;
const WINDOW_SECONDS_MIN = 60;
const HEIGHT = 104;

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {string} colour name of a custom property
 * @property {(status: Api.Status) => number | null} read
 */

/**
 * @typedef {object} Chart
 * @property {string} id
 * @property {string} title
 * @property {readonly Series[]} series
 * @property {(value: number | null) => [string, string]} figure a number and its unit
 * @property {(value: number) => string} axis
 * @property {(status: Api.Status) => string} note
 */

/** @param {number | null} value @returns {[string, string]} */
const plain = (value) => [value === null ? '–' : decimal(value), ''];

/** @type {readonly Chart[]} */
const CHARTS = [
  {
    id: 'sessions',
    title: 'Open sessions',
    series: [{ label: '', colour: '--series-1', read: ({ sessions }) => sessions.current }],
    figure: plain,
    axis: short,
    note: ({ sessions }) => `of ${short(sessions.max)} at most`,
  },
  {
    id: 'connections',
    title: 'New connections',
    series: [
      { label: '', colour: '--series-1', read: ({ connections }) => connections.per_second },
    ],
    figure: (value) => [value === null ? '–' : decimal(value), '/s'],
    axis: short,
    note: ({ connections }) => `${short(connections.total)} since the start`,
  },
  {
    id: 'traffic',
    title: 'Traffic',
    series: [
      { label: 'up', colour: '--series-2', read: (status) => status.bytes.up_per_second },
      { label: 'down', colour: '--series-1', read: (status) => status.bytes.down_per_second },
    ],
    figure: (value) => {
      const [number, unit] = bytes(value ?? 0);
      return value === null ? ['–', ''] : [number, `${unit}/s`];
    },
    axis: (value) => bytesText(value),
    note: (status) => `${bytesText(status.bytes.up + status.bytes.down)} since the start`,
  },
  {
    id: 'connect',
    title: 'Connect to backends',
    series: [
      { label: 'p50', colour: '--series-1', read: ({ connect }) => connect.p50_ms },
      { label: 'p99', colour: '--series-2', read: ({ connect }) => connect.p99_ms },
    ],
    figure: (value) => [milliseconds(value), value === null ? '' : 'ms'],
    axis: short,
    note: ({ connect }) => `${decimal(connect.window_seconds)} s window`,
  },
];

/** What a custom property comes to in the colours of now: a canvas knows neither. @param {string} name */
function colour(name) {
  const probe = document.body.appendChild(h('i', { hidden: true }));
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** @param {number} seconds */
function agoText(seconds) {
  const rounded = Math.round(seconds);
  if (rounded === 0) return 'now';
  return rounded % 60 === 0 ? `−${rounded / 60} min` : `−${rounded} s`;
}

class ChartCard {
  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
    /** @type {(number | null)[][]} */
    this.values = chart.series.map(() => []);
    /** @type {number[]} */
    this.times = [];
    this.note = '';
    /** @type {number | null} */
    this.pointed = null;
    this.figures = chart.series.map(({ label }, at) => {
      const number = h('b', {}, '–');
      const unit = h('span', { class: 'unit' });
      const swatch =
        label === '' ? null : h('i', { class: `swatch s${at}`, 'aria-hidden': 'true' });
      const name = label === '' ? null : h('span', { class: 'label' }, label);
      return { number, unit, box: h('span', { class: 'figure' }, swatch, name, number, unit) };
    });
    this.noteElement = h('p', { class: 'note' });
    this.plot = h('div', { class: 'plot', role: 'img' });
    this.element = h(
      'article',
      { class: 'card chart', id: `chart-${chart.id}` },
      h('h2', {}, chart.title),
      h('p', { class: 'figures' }, ...this.figures.map(({ box }) => box)),
      this.noteElement,
      this.plot,
    );
    /** @type {import('uplot') | null} */
    this.uplot = null;
  }

  /** @param {Api.Status} status */
  add(status) {
    this.times.push(Date.parse(status.time) / 1000);
    for (const [at, { read }] of this.chart.series.entries()) this.values[at]?.push(read(status));
    for (const list of [this.times, ...this.values]) if (list.length > POINTS) list.shift();
    this.note = this.chart.note(status);
    this.#showFigures();
    this.uplot?.setData(this.#data(), true);
  }

  /** A break in the lines. */
  gap() {
    const last = this.times.at(-1);
    if (last === undefined || this.values[0]?.at(-1) === null) return;
    this.times.push(last + 1);
    for (const list of this.values) list.push(null);
  }

  /** @returns {import('uplot').AlignedData} */
  #data() {
    return /** @type {import('uplot').AlignedData} */ ([this.times, ...this.values]);
  }

  #showFigures() {
    const at = this.pointed ?? this.times.length - 1;
    const said = this.chart.series.map(({ label }, series) => {
      const [number, unit] = this.chart.figure(this.values[series]?.[at] ?? null);
      const figure = /** @type {(typeof this.figures)[number]} */ (this.figures[series]);
      setText(figure.number, number);
      setText(figure.unit, unit);
      return `${label} ${number} ${unit}`;
    });
    setText(
      this.noteElement,
      this.pointed === null ? this.note : `at ${timeOfDay((this.times[at] ?? 0) * 1000)}`,
    );
    this.plot.setAttribute('aria-label', `${this.chart.title}: ${said.join(', ')}`);
  }

  /** Again after a change of colours. */
  draw() {
    this.uplot?.destroy();
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--grid'), width: 1 } };
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    this.uplot = new uPlot(
      {
        width: Math.max(120, this.plot.clientWidth),
        height: HEIGHT,
        padding: [6, 16, 0, 0],
        legend: { show: false },
        cursor: {
          y: false,
          drag: { x: false, y: false },
          sync: { key: 'edgeproxy' },
          points: { size: 6 },
        },
        scales: {
          x: { range: (_plot, _min, max) => [max - this.#window(), max] },
          y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
        },
        axes: [
          {
            ...axis,
            font,
            size: 20,
            gap: 2,
            ticks: { show: false },
            grid: { show: false },
            splits: () => this.#ticks().map((ago) => (this.times.at(-1) ?? 0) - ago),
            values: (_plot, splits) => splits.map((at) => agoText((this.times.at(-1) ?? 0) - at)),
          },
          {
            ...axis,
            font,
            size: 54,
            gap: 4,
            space: 26,
            ticks: { show: false },
            values: (_plot, splits) => splits.map((value) => this.chart.axis(value)),
          },
        ],
        series: [{}, ...this.chart.series.map((series, at) => this.#series(series, at))],
        hooks: {
          setCursor: [
            (plot) => {
              this.pointed = plot.cursor.idx ?? null;
              this.#showFigures();
            },
          ],
        },
      },
      this.#data(),
      this.plot,
    );
  }

  /** Seconds from left to right: what there is, within bounds. */
  #window() {
    const seen = (this.times.at(-1) ?? 0) - (this.times[0] ?? 0);
    return Math.min(WINDOW_SECONDS, Math.max(WINDOW_SECONDS_MIN, seen));
  }

  /** In seconds ago. */
  #ticks() {
    const step = this.#window() > 150 ? 60 : this.#window() > 75 ? 30 : 15;
    return [0, 1, 2, 3, 4].map((at) => at * step).filter((ago) => ago < this.#window() - step / 3);
  }

  /** @param {Series} series @param {number} at @returns {import('uplot').Series} */
  #series({ colour: name }, at) {
    const stroke = colour(name);
    const fill =
      at === 0 && this.chart.series.length === 1
        ? { fill: stroke.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.14)') }
        : {};
    // Dashes tell two lines apart without their colours.
    const dash = name === '--series-2' ? { dash: [5, 3] } : {};
    return { stroke, width: 1.75, points: { show: false }, spanGaps: false, ...fill, ...dash };
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width > 0 && this.uplot?.width !== width) this.uplot?.setSize({ width, height: HEIGHT });
  }
}

export class Charts {
  constructor() {
    this.cards = CHARTS.map((chart) => new ChartCard(chart));
    byId('charts').append(...this.cards.map(({ element }) => element));
    for (const card of this.cards) card.draw();
    new ResizeObserver(() => {
      for (const card of this.cards) card.resize();
    }).observe(byId('charts'));
  }

  /** @param {Api.Status} status */
  add(status) {
    for (const card of this.cards) card.add(status);
  }

  gap() {
    for (const card of this.cards) card.gap();
  }

  redraw() {
    for (const card of this.cards) card.draw();
  }
}
