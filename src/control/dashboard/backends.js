// The table of backends: a page of what the API finds, filtered there, and the actions of its rows.

import { ask, change } from './api.js';
import { BackendRow } from './backend-row.js';
import { askDrain, askWeight, confirm } from './dialogs.js';
import { byId, h, setText } from './dom.js';
import { count } from './format.js';

const PAGE_ROWS = 50;
const TYPING_MS = 200;

/** @typedef {() => ReturnType<typeof change>} Change */

/**
 * What a button does, after the question before what takes a backend out; null: not wanted.
 * @type {Readonly<Record<string, (backend: Api.Backend) => Promise<Change | null>>>}
 */
const ACTIONS = {
  enable:
    async ({ id }) =>
    () =>
      change('PATCH', id, '', { enabled: true }),
  restore:
    async ({ id }) =>
    () =>
      change('PATCH', id, '', { removed: false }),
  undrain:
    async ({ id }) =>
    () =>
      change('DELETE', id, '/drain'),
  disable: async ({ id, active }) => {
    const text = `New clients go elsewhere at once, those that are bound to it too. ${stay(active)}`;
    const isMeant = await confirm(`Disable ${id}?`, text, 'Disable');
    return isMeant ? () => change('PATCH', id, '', { enabled: false }) : null;
  },
  drain: async ({ id, active }) => {
    const text = `It takes no new sessions, and the events say when it is empty. ${stay(active)}`;
    const plan = await askDrain(id, text);
    return plan === null ? null : () => change('PUT', id, '/drain', plan);
  },
  weight: async (backend) => {
    const weight = await askWeight(backend.id, backend.weight);
    return weight === null ? null : () => change('PATCH', backend.id, '', { weight });
  },
};

/** @param {number} active */
function stay(active) {
  if (active === 0) return 'No session is open there.';
  return active === 1 ? 'Its one session stays open.' : `Its ${count(active)} sessions stay open.`;
}

export class Backends {
  /** @param {{ changed: () => void, failed: (error: unknown) => void }} owner */
  constructor(owner) {
    this.owner = owner;
    this.body = /** @type {HTMLTableSectionElement} */ (
      byId('backends-table').querySelector('tbody')
    );
    this.form = /** @type {HTMLFormElement} */ (byId('backends-filter'));
    this.offset = 0;
    /** @type {Map<string, BackendRow>} */
    this.rows = new Map();
    /** The answer shown, if nothing is filtered. @type {Api.BackendList | null} */
    this.whole = null;
    this.asked = 0;
    this.#nameRoles();
    this.#listen();
  }

  /** What rows that are cards on a phone would lose in some browsers. */
  #nameRoles() {
    const table = byId('backends-table');
    table.setAttribute('role', 'table');
    for (const part of table.querySelectorAll('thead, tbody'))
      part.setAttribute('role', 'rowgroup');
    for (const row of table.querySelectorAll('tr')) row.setAttribute('role', 'row');
    for (const head of table.querySelectorAll('th')) head.setAttribute('role', 'columnheader');
  }

  #listen() {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let typing;
    const restart = () => {
      this.offset = 0;
      this.owner.changed();
    };
    this.form.addEventListener('submit', (event) => event.preventDefault());
    this.form.addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(restart, TYPING_MS);
    });
    const turn = (/** @type {number} */ by) => () => {
      this.offset = Math.max(0, this.offset + by);
      this.owner.changed();
    };
    byId('previous').addEventListener('click', turn(-PAGE_ROWS));
    byId('next').addEventListener('click', turn(PAGE_ROWS));
  }

  /** @param {readonly string[]} apps */
  setApps(apps) {
    const select = /** @type {HTMLSelectElement} */ (this.form.elements.namedItem('app'));
    const known = new Set([...select.options].map(({ value }) => value));
    for (const app of apps) if (!known.has(app)) select.append(h('option', { value: app }, app));
  }

  #query() {
    const query = new URLSearchParams({ limit: String(PAGE_ROWS), offset: String(this.offset) });
    for (const [name, value] of new FormData(this.form)) {
      if (value !== '') query.set(name, String(value));
    }
    return { query, isFiltered: query.size > 2 };
  }

  /** Reads the page again. */
  async update() {
    const asked = ++this.asked;
    const { query, isFiltered } = this.#query();
    const list = /** @type {Api.BackendList} */ (await ask(`/api/backends?${query}`));
    // Another filter was chosen meanwhile.
    if (asked !== this.asked) return;
    if (list.backends.length === 0 && list.total > 0) {
      this.offset = Math.floor((list.total - 1) / PAGE_ROWS) * PAGE_ROWS;
      await this.update();
      return;
    }
    this.whole = isFiltered ? null : list;
    this.#show(list, isFiltered);
  }

  /** @param {Api.BackendList} list @param {boolean} isFiltered */
  #show({ backends, total, offset }, isFiltered) {
    const ids = new Set(backends.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    backends.forEach((backend, at) => {
      let row = this.rows.get(backend.id);
      if (row === undefined) {
        row = new BackendRow(backend, (action, target) => this.#act(action, target));
        this.rows.set(backend.id, row);
      } else row.show(backend);
      if (this.body.children[at] !== row.element) {
        this.body.insertBefore(row.element, this.body.children[at] ?? null);
      }
    });
    const empty = byId('backends-empty');
    empty.hidden = total > 0;
    setText(empty, isFiltered ? 'No backend is like that.' : 'There are no backends yet.');
    byId('pages').hidden = total <= PAGE_ROWS;
    setText(
      byId('page'),
      `${count(offset + 1)} to ${count(offset + backends.length)} of ${count(total)}`,
    );
    /** @type {HTMLButtonElement} */ (byId('previous')).disabled = offset === 0;
    /** @type {HTMLButtonElement} */ (byId('next')).disabled = offset + backends.length >= total;
  }

  /** @param {string} action @param {Api.Backend} backend */
  async #act(action, backend) {
    try {
      const apply = (await ACTIONS[action]?.(backend)) ?? null;
      if (apply === null) return;
      const { backend: now } = await apply();
      if (now !== null) this.rows.get(now.id)?.show(now);
      this.owner.changed();
    } catch (error) {
      this.owner.failed(error);
    }
  }
}
