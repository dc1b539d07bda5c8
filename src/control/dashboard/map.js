// The world map: land once per size, and above it flows, client countries (area in proportion to sessions), backends and
// this POP, drawn anew from each reading. Drawn in pixels of the page, so marks keep their size on a phone.

import { byId, h, setText, svg } from './dom.js';
import { count, country, plural, short } from './format.js';
import { mark, markPath, STATE_WORDS, STATES, stateOf } from './states.js';

const RATIO = 0.47;
/** More backends at one place are one mark with their number. */
const MARKS_PER_PLACE = 5;
const COUNTRIES_MAX = 120;
const LABELS_MAX = 14;
const RADIUS_SHARE = 0.034;

/** 1, 2 or 5 times a power of ten, so that circles keep their scale while numbers wander. @param {number} value */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return power * /** @type {number} */ ([1, 2, 5, 10].find((step) => step * power >= value));
}

export class WorldMap {
  /** @param {any} world the topology */
  constructor(world) {
    this.holder = byId('map');
    const { countries } = world.objects;
    // Nobody lives in Antarctica, and it takes a fifth of the map.
    const kept = countries.geometries.filter(
      (/** @type {{ id: string }} */ { id }) => id !== '010',
    );
    this.land = topojson.feature(world, { ...countries, geometries: kept });
    this.borders = topojson.mesh(world, countries, (a, b) => a !== b);
    // Cut in the Bering Strait, so that Siberia is in one piece.
    this.projection = d3.geoNaturalEarth1().rotate([-11, 0]);
    this.path = d3.geoPath(this.projection);
    this.landLayer = svg('g', { class: 'land' });
    this.flowLayer = svg('g', { class: 'flows' });
    this.clientLayer = svg('g', { class: 'clients' });
    this.backendLayer = svg('g', { class: 'map-backends' });
    this.labelLayer = svg('g', { class: 'labels' });
    this.svg = svg(
      'svg',
      { 'aria-hidden': 'true' },
      this.landLayer,
      this.flowLayer,
      this.clientLayer,
      this.backendLayer,
      this.labelLayer,
    );
    this.holder.replaceChildren(this.svg);
    this.width = 0;
    this.scaleTop = 0;
    /** @type {readonly Api.Country[]} */
    this.countries = [];
    /** @type {import('./map-data.js').MapData | null} */
    this.data = null;
    /** @type {Api.Status['pop'] | null} */
    this.pop = null;
    this.withFlows = true;
    new ResizeObserver(() => this.#resize()).observe(this.holder);
    this.#tips();
    this.#resize();
  }

  #resize() {
    const width = Math.round(this.holder.clientWidth);
    if (width === 0 || width === this.width) return;
    this.width = width;
    const height = Math.round(width * RATIO);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.projection.fitExtent(
      [
        [2, 2],
        [width - 2, height - 2],
      ],
      this.land,
    );
    this.landLayer.replaceChildren(
      svg('path', { class: 'country', d: this.path(this.land) }),
      svg('path', { class: 'border', d: this.path(this.borders) }),
    );
    this.draw();
  }

  /** Names what is under the pointer. */
  #tips() {
    const tip = byId('tip');
    this.svg.addEventListener('pointermove', (event) => {
      const target = /** @type {Element} */ (event.target).closest('[data-tip]');
      tip.hidden = target === null;
      if (target === null) return;
      setText(tip, target.getAttribute('data-tip') ?? '');
      const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
      tip.style.translate = `${left}px ${event.clientY + 14}px`;
    });
    this.svg.addEventListener('pointerleave', () => {
      tip.hidden = true;
    });
  }

  /** @param {{ latitude: number | null, longitude: number | null }} place @returns {[number, number] | null} */
  #at({ latitude, longitude }) {
    if (latitude === null || longitude === null) return null;
    return this.projection([longitude, latitude]);
  }

  draw() {
    if (this.width === 0) return;
    this.#drawClients();
    this.#drawBackends();
    this.#drawFlows();
    this.#drawLegend();
  }

  get radiusMax() {
    return Math.max(13, this.width * RADIUS_SHARE);
  }

  /** @param {number} sessions */
  radius(sessions) {
    return this.radiusMax * Math.sqrt(sessions / this.scaleTop);
  }

  #drawClients() {
    const busy = this.countries.filter(({ sessions }) => sessions > 0);
    const shown = busy.filter((entry) => entry.latitude !== null).slice(0, COUNTRIES_MAX);
    const most = roundUp(shown[0]?.sessions ?? 1);
    // Down only when a third of it is enough, or two sizes would alternate.
    if (most > this.scaleTop || most * 3 < this.scaleTop) this.scaleTop = most;
    const circles = [];
    const labels = [];
    for (const entry of shown) {
      const at = this.#at(entry);
      if (at === null) continue;
      const [x, y] = at;
      const r = this.radius(entry.sessions);
      const tip = `${country(entry.country)}: ${plural(entry.sessions, 'session')}`;
      circles.push(
        svg('circle', {
          cx: x.toFixed(1),
          cy: y.toFixed(1),
          r: r.toFixed(2),
          'data-tip': tip,
          'data-country': entry.country,
          'data-sessions': entry.sessions,
        }),
      );
      if (labels.length < LABELS_MAX && this.width > 520) {
        labels.push(this.#label(`${entry.country} ${short(entry.sessions)}`, x, y + r + 12));
      }
    }
    this.clientLayer.replaceChildren(...circles);
    this.labelLayer.replaceChildren(...this.#apart(labels));
    const total = this.countries.reduce((sum, { sessions }) => sum + sessions, 0);
    const nowhere = busy.find((entry) => entry.country === null)?.sessions ?? 0;
    setText(
      byId('map-summary'),
      `${plural(total, 'session')} from ${plural(busy.filter((entry) => entry.country !== null).length, 'country', 'countries')}` +
        (nowhere > 0 ? `, ${count(nowhere)} without a country` : ''),
    );
  }

  /** @param {string} text @param {number} x @param {number} y */
  #label(text, x, y) {
    return {
      x,
      y,
      width: text.length * 6.2,
      element: svg('text', { x: x.toFixed(1), y: y.toFixed(1) }, text),
    };
  }

  /** Those that do not lie on an earlier one. @param {{ x: number, y: number, width: number, element: SVGElement }[]} labels */
  #apart(labels) {
    /** @type {typeof labels} */
    const kept = [];
    for (const label of labels) {
      const isFree = kept.every(
        ({ x, y, width }) =>
          Math.abs(x - label.x) > (width + label.width) / 2 + 4 || Math.abs(y - label.y) > 13,
      );
      if (isFree) kept.push(label);
    }
    return kept.map(({ element }) => element);
  }

  #drawBackends() {
    const groups = [];
    for (const place of this.data?.places ?? []) {
      const at = this.#at(place);
      if (at === null) continue;
      groups.push(
        place.total > MARKS_PER_PLACE || place.backends.length === 0
          ? this.#cluster(place, at)
          : this.#marks(place, at),
      );
    }
    const at = this.pop === null ? null : this.#at(this.pop);
    if (at !== null && this.pop !== null) groups.push(this.#pin(this.pop, at));
    this.backendLayer.replaceChildren(...groups);
  }

  /** @param {import('./map-data.js').Place} place @param {[number, number]} at */
  #marks({ backends }, [x, y]) {
    const sorted = [...backends].sort((a, b) => (a.id < b.id ? -1 : 1));
    return svg(
      'g',
      {},
      ...sorted.map((backend, index) => {
        const state = stateOf(backend);
        const left = x + (index - (sorted.length - 1) / 2) * 15;
        const tip = `${backend.id}: ${STATE_WORDS[state]}, ${plural(backend.active, 'session')}`;
        return svg(
          'g',
          {
            transform: `translate(${left.toFixed(1)} ${y.toFixed(1)})`,
            'data-tip': tip,
            'data-backend': backend.id,
            'data-state': state,
          },
          markPath(state),
        );
      }),
    );
  }

  /** A box with how many there are; its bar shows how many of them are out. @param {import('./map-data.js').Place} place @param {[number, number]} at */
  #cluster({ name, total, out, sessions, backends }, [x, y]) {
    const text = short(total);
    const width = Math.max(24, text.length * 7 + 12);
    const worst = backends.map(stateOf).sort((a, b) => STATES.indexOf(b) - STATES.indexOf(a))[0];
    const tip = `${name}: ${plural(total, 'backend')}, ${count(out)} out of rotation, ${plural(sessions, 'session')}`;
    const bad = (width - 6) * (out / Math.max(1, total));
    return svg(
      'g',
      {
        class: 'cluster',
        transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
        'data-tip': tip,
        'data-cluster': name,
        'data-total': total,
      },
      svg('rect', { class: 'box', x: -width / 2, y: -10, width, height: 20, rx: 4 }),
      svg('text', { y: 2 }, text),
      svg('rect', { class: 'good', x: -width / 2 + 3, y: 5, width: width - 6, height: 2.5 }),
      svg('rect', {
        class: `bad ${worst ?? ''}`,
        x: width / 2 - 3 - bad,
        y: 5,
        width: bad,
        height: 2.5,
      }),
    );
  }

  /** @param {NonNullable<WorldMap['pop']>} pop @param {[number, number]} at */
  #pin({ region, country: code }, [x, y]) {
    return svg(
      'g',
      {
        class: 'pin',
        transform: `translate(${x.toFixed(1)} ${(y - 8).toFixed(1)})`,
        'data-tip': `This POP: region ${region}${code === null ? '' : `, ${country(code)}`}`,
      },
      svg('path', { d: 'M0 0C-2 -6 -8 -9 -8 -15A8 8 0 1 1 8 -15C8 -9 2 -6 0 0Z' }),
      svg('circle', { cy: -15, r: 3 }),
    );
  }

  /** From countries to this POP, and on to the backends in use. Curves of the page: great circles would leave the map. */
  #drawFlows() {
    const here = this.pop === null ? null : this.#at(this.pop);
    if (!this.withFlows || here === null) {
      this.flowLayer.replaceChildren();
      return;
    }
    const [x, y] = here;
    /** @param {readonly (Api.Country | import('./map-data.js').Place)[]} ends @param {string} kind */
    const lines = (ends, kind) => {
      const busy = ends.filter(({ sessions }) => sessions > 0).slice(0, COUNTRIES_MAX);
      const most = Math.max(1, ...busy.map(({ sessions }) => sessions));
      return busy.flatMap((end) => {
        const at = this.#at(end);
        if (at === null || (at[0] === x && at[1] === y)) return [];
        const bend = Math.hypot(at[0] - x, at[1] - y) * (kind === 'in' ? 0.2 : 0.12);
        const middle = `${((at[0] + x) / 2).toFixed(1)} ${((at[1] + y) / 2 - bend).toFixed(1)}`;
        return svg('path', {
          class: kind,
          d: `M${at[0].toFixed(1)} ${at[1].toFixed(1)}Q${middle} ${x.toFixed(1)} ${y.toFixed(1)}`,
          'stroke-width': (0.75 + 2.25 * Math.sqrt(end.sessions / most)).toFixed(2),
        });
      });
    };
    this.flowLayer.replaceChildren(
      ...lines(this.countries, 'in'),
      ...lines(this.data?.places ?? [], 'out'),
    );
  }

  #drawLegend() {
    const legend = byId('legend');
    const key = `${this.scaleTop} ${Math.round(this.radiusMax)}`;
    if (legend.dataset.key === key) return;
    legend.dataset.key = key;
    const half = this.scaleTop / 2;
    const sizes = half < 5 ? [this.scaleTop] : [half / 5, half];
    legend.replaceChildren(
      h('span', {}, pinGlyph(), 'this POP'),
      ...STATES.map((state) => h('span', {}, mark(state), STATE_WORDS[state])),
      ...sizes.map((sessions) =>
        h(
          'span',
          {},
          this.#circleGlyph(sessions),
          `${short(sessions)} ${sessions === 1 ? 'session' : 'sessions'}`,
        ),
      ),
    );
  }

  /** @param {number} sessions */
  #circleGlyph(sessions) {
    const r = this.radius(sessions);
    const size = Math.ceil(2 * r + 2);
    return svg(
      'svg',
      {
        class: 'clients',
        width: size,
        height: size,
        viewBox: `${-size / 2} ${-size / 2} ${size} ${size}`,
        'aria-hidden': 'true',
      },
      svg('circle', { r }),
    );
  }
}

function pinGlyph() {
  return svg(
    'svg',
    { class: 'pin', width: 12, height: 16, viewBox: '-9 -24 18 25', 'aria-hidden': 'true' },
    svg('path', { d: 'M0 0C-2 -6 -8 -9 -8 -15A8 8 0 1 1 8 -15C8 -9 2 -6 0 0Z' }),
    svg('circle', { cy: -15, r: 3 }),
  );
}
