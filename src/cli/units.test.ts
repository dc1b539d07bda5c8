// Numbers for people: the edges where a unit changes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytesText, countText, durationText, msText } from './units.ts';

test('countText() takes five columns at most and rounds into the next unit', () => {
  const cases = [0, 2.4, 9.96, 987, 999.4, 999.5, 1234, 34_000_000, 9.99e14];
  assert.deepEqual(cases.map(countText), [
    ...['0', '2.4', '10', '987', '999', '1.0k', '1.2k', '34M', '999T'],
  ]);
});

test('bytesText() counts in thousands', () => {
  assert.deepEqual([0, 999, 1000, 1_234_567].map(bytesText), ['0 B', '999 B', '1.0 kB', '1.2 MB']);
});

test('msText() keeps three digits, and says - for none', () => {
  assert.deepEqual([0.754, 12.34, 480.4, null].map(msText), ['0.75', '12.3', '480', '-']);
});

test('durationText() says the two largest units', () => {
  const cases = [7.9, 60, 192, 18_180, 187_200];
  assert.deepEqual(cases.map(durationText), ['7s', '1m00s', '3m12s', '5h03m', '2d04h']);
});
