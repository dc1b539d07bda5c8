// Why connections were turned away, how sessions ended, and the events.

import { byId, h, setText } from './dom.js';
import { count, plural, short, timeOfDay, words } from './format.js';

const EVENTS_MAX = 200;
/** What a field says that the message or the time says already. */
const FIELDS_HIDDEN = new Set(['event', 'level', 'message', 'time']);

/** Good, by the names of close reasons; the others are somebody's failure. */
const PLAIN_ENDS = new Set(['completed', 'idle_timeout', 'shutdown']);

/** Rows of a name, a bar and a number, the highest first. */
class BarTable {
  /** @param {string} id */
  constructor(id) {
    this.body = /** @type {HTMLTableSectionElement} */ (byId(id).querySelector('tbody'));
    /** @type {Map<string, { row: HTMLElement, fill: HTMLElement, number: HTMLElement }>} */
    this.rows = new Map();
  }

  /** @param {string} name */
  #row(name) {
    const fill = h('i');
    const number = h('td', { class: 'n' });
    const row = h(
      'tr',
      { 'data-name': name, 'data-plain': PLAIN_ENDS.has(name) ? '' : null },
      h('th', { scope: 'row' }, words(name)),
      h('td', {}, h('span', { class: 'bar', 'aria-hidden': 'true' }, fill)),
      number,
    );
    this.rows.set(name, { row, fill, number });
    return { row, fill, number };
  }

  /** @param {Readonly<Record<string, number>>} counts */
  show(counts) {
    const sorted = Object.entries(counts)
      .filter(([, value]) => value > 0)
      .sort((a, b) => b[1] - a[1]);
    const most = Math.max(1, sorted[0]?.[1] ?? 0);
    sorted.forEach(([name, value], at) => {
      const { row, fill, number } = this.rows.get(name) ?? this.#row(name);
      fill.style.width = `${((100 * value) / most).toFixed(2)}%`;
      setText(number, count(value));
      if (this.body.children[at] !== row)
        this.body.insertBefore(row, this.body.children[at] ?? null);
    });
    while (this.body.children.length > sorted.length) this.body.lastElementChild?.remove();
  }
}

export class Activity {
  constructor() {
    this.rejections = new BarTable('rejections');
    this.ends = new BarTable('ends');
    this.list = byId('events');
    // It scrolls, so keys must reach it.
    this.list.tabIndex = 0;
  }

  /** @param {Api.Status} status */
  showStatus({ rejected, rejected_per_second: rate, ended }) {
    this.rejections.show(rejected);
    this.ends.show(ended);
    const sum = (/** @type {Readonly<Record<string, number>>} */ counts) =>
      Object.values(counts).reduce((total, value) => total + value, 0);
    const turned = sum(rejected);
    setText(
      byId('rejections-note'),
      turned === 0 ? 'none since the start' : `${short(rate)}/s, ${count(turned)} since the start`,
    );
    setText(byId('ends-note'), plural(sum(ended), 'session'));
  }

  /** @param {Api.Event} event */
  add({ time, level, type, message, fields }) {
    const said = Object.entries(fields)
      .filter(([name, value]) => !FIELDS_HIDDEN.has(name) && value !== null && value !== '')
      .map(([name, value]) => {
        const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
        return h('span', {}, h('em', {}, words(name)), ` ${text}`);
      });
    this.#prepend(
      h(
        'li',
        { 'data-level': level, 'data-type': type },
        h('time', { datetime: time }, timeOfDay(time)),
        h('span', { class: 'level', title: level }, level),
        h('span', { class: 'message' }, message, ' ', h('span', { class: 'fields' }, ...said)),
      ),
    );
  }

  /** @param {string} text */
  note(text) {
    this.#prepend(h('li', { class: 'between' }, text));
  }

  /** @param {HTMLElement} item */
  #prepend(item) {
    this.list.prepend(item);
    while (this.list.children.length > EVENTS_MAX) this.list.lastElementChild?.remove();
  }
}
