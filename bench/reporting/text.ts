// Figures and tables as Markdown has them.

import type { Spread } from '../statistics.ts';

/** Three significant digits: more would claim a precision that no run has. */
export function short(value: number): string {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

/** `0.87 (0.84–0.9)`: median and quartiles. */
export function spreadText({ median, q1, q3 }: Spread): string {
  return q1 === q3 ? short(median) : `${short(median)} (${short(q1)}–${short(q3)})`;
}

export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
