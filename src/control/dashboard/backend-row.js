// One row of the table of backends: made once, then only what changes is written, so that focus and selection stay where
// they are while numbers move.

import { h, setData, setText } from './dom.js';
import { count, country, decimal, milliseconds, timeOfDay } from './format.js';
import { mark, STATE_WORDS, stateOf } from './states.js';

/** @typedef {(action: string, backend: Api.Backend) => void} Act */

/** @param {string} name @param {string} label @param {...(Node | string | null)} children */
function cell(name, label, ...children) {
  return h('td', { role: 'cell', class: name, 'data-label': label }, ...children);
}

/** Sessions against the limits: the fill is what is active, the tick the soft limit, the right end the hard limit. */
class LoadBar {
  constructor() {
    this.fill = h('i', { class: 'fill' });
    this.soft = h('i', { class: 'soft' });
    this.hard = h('i', { class: 'hard' });
    this.text = h('span', { class: 'number' });
    this.limits = h('span', { class: 'limits' });
    this.bar = h('span', { class: 'bar', 'aria-hidden': 'true' }, this.fill, this.soft, this.hard);
  }

  /** @param {Api.Backend} backend */
  show({ active, soft_limit: soft, hard_limit: hard }) {
    const end = Math.max(hard, soft * 1.25, active, 1);
    const share = (/** @type {number} */ value) => `${((100 * value) / end).toFixed(2)}%`;
    this.fill.style.width = share(active);
    this.soft.style.left = share(soft);
    this.hard.hidden = hard === 0;
    this.hard.style.left = share(hard);
    const isOver = active > soft;
    setData(this.bar, 'load', hard > 0 && active >= hard ? 'full' : isOver ? 'over' : 'normal');
    setText(this.text, count(active));
    setText(this.limits, `soft ${count(soft)}${hard > 0 ? `, hard ${count(hard)}` : ''}`);
  }
}

/** Strings after which the row says why, without repeating the state. @param {Api.Backend} backend */
function reasonOf({ excluded, reason, health, breaker, drain, path }) {
  const tried = breaker.ejections > 0 ? `ejected ${breaker.ejections}×` : '';
  const checked = excluded === null && health !== null && !health.healthy ? health.reason : '';
  const said = excluded === null ? checked : excluded === 'draining' ? '' : reason;
  const ends = drain?.close_at ? `ends at ${timeOfDay(drain.close_at)}` : '';
  const isBack = excluded === null && path?.state === 'degraded';
  const back = isBack ? `one tier back, path degraded: ${path.reason}` : '';
  return [said, back, ends, tried].filter(Boolean).join('; ');
}

export class BackendRow {
  /** @param {Api.Backend} backend @param {Act} act */
  constructor(backend, act) {
    this.backend = backend;
    this.state = h('span', { class: 'state' });
    this.id = h('b', { class: 'id' });
    this.app = h('span', { class: 'sub' });
    this.place = h('span');
    this.region = h('span', { class: 'sub' });
    this.load = new LoadBar();
    this.weight = h('span', { class: 'number' });
    this.rate = h('span', { class: 'number' });
    this.connect = h('span', { class: 'number' });
    this.reason = h('span');
    this.buttons = this.#buttons(act);
    this.element = h(
      'tr',
      { role: 'row' },
      cell('c-state', 'State', this.state),
      h('th', { role: 'rowheader', scope: 'row', class: 'c-id' }, this.id, this.app),
      cell('c-place', 'Place', this.place, this.region),
      cell('c-load', 'Sessions', this.load.text, this.load.limits, this.load.bar),
      cell('c-weight n', 'Weight', this.weight),
      cell('c-rate n', 'New/s', this.rate),
      cell('c-connect n', 'Connect p50', this.connect),
      cell('c-reason', 'Why', this.reason),
      cell('c-actions', '', ...Object.values(this.buttons)),
    );
    this.show(backend);
  }

  /** @param {Act} act */
  #buttons(act) {
    const make = (/** @type {string} */ action) => {
      const button = h('button', { type: 'button', 'data-action': action });
      button.addEventListener('click', () => act(button.dataset.action ?? '', this.backend));
      return button;
    };
    return {
      enable: make('disable'),
      drain: make('drain'),
      weight: make('weight'),
    };
  }

  /** @param {Api.Backend} backend */
  show(backend) {
    this.backend = backend;
    const state = stateOf(backend);
    if (this.element.dataset.state !== state) {
      this.state.replaceChildren(mark(state), h('span', {}, STATE_WORDS[state]));
    }
    setData(this.element, 'state', state);
    setData(this.element, 'id', backend.id);
    setText(this.id, backend.id);
    setText(this.app, backend.app);
    setText(this.place, backend.located_in === null ? '–' : country(backend.located_in));
    setText(this.region, backend.region);
    this.load.show(backend);
    const isRamping = backend.effective_weight < backend.weight;
    setText(
      this.weight,
      isRamping
        ? `${decimal(backend.effective_weight)} of ${decimal(backend.weight)}`
        : decimal(backend.weight),
    );
    setText(this.rate, decimal(backend.connections.per_second));
    const { p50_ms: p50 } = backend.connect;
    setText(this.connect, p50 === null ? '–' : `${milliseconds(p50)} ms`);
    setText(this.reason, reasonOf(backend));
    this.#label(backend);
  }

  /** @param {Api.Backend} backend */
  #label(backend) {
    const { enable, drain, weight } = this.buttons;
    const say = (/** @type {HTMLButtonElement} */ button, /** @type {string} */ action) => {
      const text = action[0]?.toUpperCase() + action.slice(1);
      setText(button, text);
      setData(button, 'action', action);
      const name = `${text} ${backend.id}`;
      if (button.getAttribute('aria-label') !== name) button.setAttribute('aria-label', name);
    };
    say(enable, backend.removed ? 'restore' : backend.enabled ? 'disable' : 'enable');
    say(drain, backend.drain === null ? 'drain' : 'undrain');
    say(weight, 'weight');
    setText(weight, 'Weight…');
  }
}
