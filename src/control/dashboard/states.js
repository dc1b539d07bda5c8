// What a backend's state is in one word, and its mark: colours and shapes both, so that either is enough.

import { svg } from './dom.js';

/** @typedef {'serving' | 'full' | 'draining' | 'failing' | 'off'} State */

/** Worst last: marks of several backends show the worst on top. @type {readonly State[]} */
export const STATES = ['serving', 'off', 'draining', 'full', 'failing'];

/** @type {Readonly<Record<State, string>>} */
export const STATE_WORDS = {
  serving: 'serving',
  full: 'full',
  draining: 'draining',
  failing: 'failing',
  off: 'off',
};

/** @type {Readonly<Record<string, State>>} */
const BY_EXCLUSION = {
  removed: 'off',
  disabled: 'off',
  'weight 0': 'off',
  draining: 'draining',
  'hard limit': 'full',
  health: 'failing',
  breaker: 'failing',
  path: 'failing',
  'no index': 'failing',
};

/** @param {Pick<Api.Backend, 'excluded'>} backend @returns {State} */
export function stateOf({ excluded }) {
  return excluded === null ? 'serving' : (BY_EXCLUSION[excluded] ?? 'failing');
}

/** Around 0, 0, with a radius of 6. @type {Readonly<Record<State, string>>} */
const SHAPES = {
  serving: 'M-5 -5H5V5H-5Z',
  full: 'M-6 0L-3 -5.5H3L6 0L3 5.5H-3Z',
  draining: 'M0 -6.5L6.5 0L0 6.5L-6.5 0Z',
  failing: 'M0 -6.5L6.5 5.5H-6.5Z',
  off: 'M-4.5 -4.5H4.5V4.5H-4.5ZM-4.5 4.5L4.5 -4.5',
};

/** A path for a mark at 0, 0. @param {State} state */
export function markPath(state) {
  return svg('path', { d: SHAPES[state], class: `mark ${state}` });
}

/** A mark beside text. @param {State} state */
export function mark(state) {
  return svg(
    'svg',
    { class: 'glyph', viewBox: '-8 -8 16 16', width: 14, height: 14, 'aria-hidden': 'true' },
    markPath(state),
  );
}
