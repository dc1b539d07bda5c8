// Grouped horizontal bars as SVG: a bar is a median, the line at its end goes from quartile to quartile. Written by hand,
// because it is all the report needs.

import type { Spread } from '../statistics.ts';
import { short } from './text.ts';

export interface Bar {
  readonly name: string;
  readonly value: Spread;
}

export interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 760;
const LEFT = 180;
const RIGHT = 90;
const BAR = 15;
const GAP = 4;
const GROUP_HEAD = 24;
const HEAD = 46;
/** edgeproxy stands out, the others are greys and blues that can be told apart without colour by their labels. */
const COLOURS: readonly (readonly [prefix: string, colour: string])[] = [
  ['edgeproxy uring', '#d9480f'],
  ['edgeproxy', '#f59f00'],
  ['haproxy', '#4263eb'],
  ['nginx', '#2b8a3e'],
  ['node', '#868e96'],
  ['direct', '#ced4da'],
];

function colourOf(name: string): string {
  return COLOURS.find(([prefix]) => name.startsWith(prefix))?.[1] ?? '#868e96';
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>`;
}

function barShapes({ name, value }: Bar, y: number, scale: number): string[] {
  const end = LEFT + value.median * scale;
  const middle = y + BAR / 2;
  const whisker =
    value.q1 === value.q3
      ? []
      : [
          `<path d="M${(LEFT + value.q1 * scale).toFixed(1)} ${middle}H${(LEFT + value.q3 * scale).toFixed(1)}" stroke="#212529" stroke-width="1.5"/>`,
        ];
  const labelAt = Math.max(end, LEFT + value.q3 * scale) + 6;
  return [
    text(LEFT - 8, y + BAR - 3, name, 'text-anchor="end"'),
    `<rect x="${LEFT}" y="${y}" width="${Math.max(0, value.median * scale).toFixed(1)}" height="${BAR}" fill="${colourOf(name)}"/>`,
    ...whisker,
    text(Number(labelAt.toFixed(1)), y + BAR - 3, short(value.median)),
  ];
}

/** One scale for all groups, or one for each where they measure different things. */
export function barChart(
  title: string,
  unit: string,
  groups: readonly BarGroup[],
  ownScales = false,
): string {
  const mostOf = (some: readonly BarGroup[]): number =>
    Math.max(1e-9, ...some.flatMap(({ bars }) => bars.map(({ value }) => value.q3)));
  const shapes: string[] = [];
  let y = HEAD;
  for (const group of groups) {
    const scale = (WIDTH - LEFT - RIGHT) / mostOf(ownScales ? [group] : groups);
    shapes.push(text(LEFT, y + 16, group.label, 'font-weight="bold"'));
    y += GROUP_HEAD;
    for (const bar of group.bars) {
      shapes.push(...barShapes(bar, y, scale));
      y += BAR + GAP;
    }
    y += GAP * 2;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 8}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escaped(title)}">
<rect width="100%" height="100%" fill="#ffffff"/>
<g fill="#212529">
${text(16, 24, `${title}, ${unit}`, 'font-size="15" font-weight="bold"')}
${shapes.join('\n')}
</g>
</svg>
`;
}
