// The box that says where a client would go, and why not elsewhere.

import { ask } from './api.js';
import { byId, h } from './dom.js';
import { count, country, hundredths } from './format.js';
import { mark, stateOf } from './states.js';

const CANDIDATES = 20;
const TIERS = ['0 country', '1 region', '2 this POP', '3 elsewhere', '4 after all others'];

/** @param {Api.Explanation} explanation */
function sentence({ ip, country: code, country_reason: why, region, choice, reason, app }) {
  const from =
    code === null
      ? `${ip} is in no known country${why === null ? '' : ` (${why})`}`
      : `${ip} is in ${country(code)}${region === null ? '' : `, region ${region}`}`;
  const asked = app === '*' ? '' : ` and asks for ${app}`;
  return choice === null
    ? [`${from}${asked}. It would be turned away: ${reason}.`]
    : [`${from}${asked}. It goes to `, h('b', {}, choice), `: ${reason}.`];
}

/** @param {Api.Explanation['candidates'][number]} candidate @param {string | null} choice */
function row(candidate, choice) {
  const { id, excluded, region, country: code, tier, score, distance_km: km } = candidate;
  const state = stateOf({ excluded: /** @type {Api.Backend['excluded']} */ (excluded || null) });
  const isChosen = id === choice;
  return h(
    'tr',
    { 'data-id': id, 'data-chosen': isChosen, 'data-state': state },
    h(
      'th',
      { scope: 'row' },
      mark(state),
      h('span', {}, id),
      isChosen ? h('span', { class: 'chosen' }, 'chosen') : null,
    ),
    h('td', {}, code === null ? region : `${country(code)}, ${region}`),
    h('td', {}, TIERS[tier] ?? String(tier)),
    h('td', { class: 'n' }, score === null ? '–' : hundredths(score)),
    h('td', { class: 'n' }, km === null ? '–' : count(km)),
    h('td', { class: 'n' }, `${count(candidate.active)} / ${count(candidate.soft_limit)}`),
    h('td', {}, candidate.reason),
  );
}

/** @param {Api.Explanation} explanation */
function table({ candidates, choice, total }) {
  const head = ['Backend', 'Place', 'Tier', 'Score', 'Distance, km', 'Sessions / soft', 'Why'];
  const numeric = new Set(['Score', 'Distance, km', 'Sessions / soft']);
  return [
    h(
      'div',
      { class: 'scroll' },
      h(
        'table',
        {},
        h(
          'thead',
          {},
          h(
            'tr',
            {},
            ...head.map((text) =>
              h('th', { scope: 'col', class: numeric.has(text) ? 'n' : null }, text),
            ),
          ),
        ),
        h('tbody', {}, ...candidates.map((candidate) => row(candidate, choice))),
      ),
    ),
    total > candidates.length
      ? h(
          'p',
          { class: 'empty' },
          `The best ${count(candidates.length)} of ${count(total)} backends.`,
        )
      : null,
  ];
}

/** @param {Api.Explanation} explanation */
function notes({ access, binding, note }) {
  const bound =
    binding === null
      ? 'The client is not bound to a backend.'
      : `The client is bound to ${binding.backend}${binding.usable ? '' : ', which cannot take it now'}.`;
  // Only where a row of the list decides is there something to say.
  const list = access.row === null ? '' : `Access list: ${access.reason}. `;
  return h('p', { class: 'empty' }, `${list}${bound} ${note}.`);
}

export function startExplain() {
  const form = /** @type {HTMLFormElement} */ (byId('explain-form'));
  const output = byId('explanation');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const data = new FormData(form);
    const query = new URLSearchParams({ limit: String(CANDIDATES) });
    for (const [name, value] of data) {
      if (String(value).trim() !== '') query.set(name, String(value).trim());
    }
    try {
      const explanation = /** @type {Api.Explanation} */ (await ask(`/api/explain?${query}`));
      const parts = [
        h('p', { class: 'sentence' }, ...sentence(explanation)),
        ...table(explanation),
        notes(explanation),
      ];
      output.replaceChildren(...parts.filter((part) => part !== null));
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      output.replaceChildren(h('p', { class: 'failure' }, text));
    }
  });
}
