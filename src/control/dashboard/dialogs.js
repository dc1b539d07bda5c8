// Questions to the person: the token, whether to take a backend out, a weight. Each resolves once, with null or false when
// it is dismissed.

import { byId, h } from './dom.js';

/**
 * @template Value
 * @param {HTMLElement[]} content
 * @param {{ label: string, danger?: boolean }} action
 * @param {() => Value | null} read null: what is entered cannot be used, the dialog stays
 * @returns {Promise<Value | null>}
 */
function open(content, { label, danger = false }, read) {
  const { promise, resolve } = /** @type {PromiseWithResolvers<Value | null>} */ (
    Promise.withResolvers()
  );
  const confirm = h(
    'button',
    { type: 'submit', class: danger ? 'primary danger' : 'primary' },
    label,
  );
  const cancel = h('button', { type: 'button' }, 'Cancel');
  const form = h('form', {}, ...content, h('div', { class: 'actions' }, cancel, confirm));
  const [title] = content;
  if (title !== undefined) title.id = 'dialog-title';
  const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' }, form);
  const close = (/** @type {Value | null} */ value) => {
    dialog.close();
    dialog.remove();
    resolve(value);
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const value = read();
    if (value !== null) close(value);
  });
  cancel.addEventListener('click', () => close(null));
  dialog.addEventListener('cancel', (event) => {
    event.preventDefault();
    close(null);
  });
  byId('dialogs').append(dialog);
  dialog.showModal();
  return promise;
}

/** @param {boolean} isAgain the one before was refused @returns {Promise<string | null>} */
export function askToken(isAgain) {
  const input = h('input', {
    type: 'password',
    autocomplete: 'off',
    required: true,
    minlength: 16,
    spellcheck: 'false',
    name: 'token',
  });
  return open(
    [
      h('h2', {}, 'Token needed'),
      h(
        'p',
        {},
        isAgain
          ? 'That token is not accepted. '
          : 'This proxy lets only those in who know its token (EDGEPROXY_ADMIN_TOKEN). ',
        'It is kept in this tab until the tab is closed.',
      ),
      h('label', {}, 'Token ', input),
    ],
    { label: 'Use it' },
    () => input.value.trim() || null,
  );
}

/**
 * @param {string} title
 * @param {string} text
 * @param {string} label
 * @returns {Promise<boolean>}
 */
export async function confirm(title, text, label) {
  const content = [h('h2', {}, title), h('p', {}, text)];
  return (await open(content, { label, danger: true }, () => true)) ?? false;
}

/**
 * @param {string} id
 * @param {string} text
 * @returns {Promise<{ timeout_seconds?: number } | null>}
 */
export function askDrain(id, text) {
  const input = h('input', {
    type: 'number',
    min: 0,
    max: 525_600,
    step: 'any',
    name: 'minutes',
    placeholder: 'never',
    inputmode: 'decimal',
  });
  return open(
    [
      h('h2', {}, `Drain ${id}?`),
      h('p', {}, text),
      h('label', {}, 'End what is left after so many minutes ', input),
    ],
    { label: 'Drain', danger: true },
    () => (input.value === '' ? {} : { timeout_seconds: Math.round(input.valueAsNumber * 60) }),
  );
}

/** @param {string} id @param {number} weight @returns {Promise<number | null>} */
export function askWeight(id, weight) {
  const input = h('input', {
    type: 'number',
    min: 0,
    step: 'any',
    required: true,
    value: weight,
    name: 'weight',
    inputmode: 'decimal',
  });
  return open(
    [
      h('h2', {}, `Weight of ${id}`),
      h(
        'p',
        {},
        'Twice the weight takes twice the clients. 0 takes no new clients and keeps those that are bound.',
      ),
      h('label', {}, 'Weight ', input),
    ],
    { label: 'Set weight' },
    () => (input.value === '' || !(input.valueAsNumber >= 0) ? null : input.valueAsNumber),
  );
}
