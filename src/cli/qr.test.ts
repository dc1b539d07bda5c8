// The QR code of the terminal against what the standard fixes: finder patterns, timing pattern, margin.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { qrText } from './qr.ts';

const MARGIN = 2;

/** Modules, true for dark, without the margin. */
function modulesOf(text: string): boolean[][] {
  const lines = stripVTControlCharacters(text).trimEnd().split('\n');
  const rows = lines.flatMap((line) => [
    [...line].map((half) => half === '▀' || half === '█'),
    [...line].map((half) => half === '▄' || half === '█'),
  ]);
  const size = (rows[0]?.length ?? 0) - MARGIN * 2;
  return rows.slice(MARGIN, MARGIN + size).map((row) => row.slice(MARGIN, MARGIN + size));
}

const FINDER = ['#######', '#.....#', '#.###.#', '#.###.#', '#.###.#', '#.....#', '#######'];

test('qrText() has the finder patterns in three corners and the timing pattern between them', () => {
  const modules = modulesOf(qrText(`[Interface]\n${'PrivateKey = x'.repeat(20)}`));
  const size = modules.length;
  assert.equal((size - 17) % 4, 0);
  for (const [top, left] of [
    [0, 0],
    [0, size - 7],
    [size - 7, 0],
  ] as const) {
    const seen = FINDER.map((_, row) =>
      [...FINDER].map((_, column) => (modules[top + row]?.[left + column] ? '#' : '.')).join(''),
    );
    assert.deepEqual(seen, FINDER);
  }
  const timing = modules[6]?.slice(8, size - 8) ?? [];
  assert.ok(timing.every((isDark, at) => isDark === (at % 2 === 0)));
});

test('qrText() is light all around, and refuses what no code can hold', () => {
  const lines = stripVTControlCharacters(qrText('x')).split('\n');
  assert.match(lines[0] ?? '', /^ +$/);
  assert.throws(() => qrText('x'.repeat(3000)), RangeError);
});
