// The Prometheus text format (version 0.0.4), written in pieces: a scrape of many backends is megabytes, and neither its
// text nor the time to make it may stand in one piece before the main thread's other work.

type FamilyType = 'counter' | 'gauge' | 'histogram';

export interface Family {
  readonly type: FamilyType;
  readonly name: string;
  readonly help: string;
  /** Texts of one or more whole lines each. */
  readonly lines: () => Iterable<string>;
}

/** Some 500 lines: half a millisecond. */
const PIECE_CHARACTERS = 32_768;

function valueText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  if (Number.isNaN(value)) return 'NaN';
  return value > 0 ? '+Inf' : '-Inf';
}

/** `name="value"` with what the format wants escaped. */
export function labelText(name: string, value: string): string {
  const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return `${name}="${escaped}"`;
}

/** One line; `labels` are joined by commas, '' for none. */
export function sampleLine(name: string, labels: string, value: number): string {
  return `${name}${labels === '' ? '' : `{${labels}}`} ${valueText(value)}\n`;
}

/** The lines of one histogram. `countOf` tells how many fell into each bucket; there is one more than bounds. */
export function histogramLines(
  name: string,
  labels: string,
  bounds: readonly number[],
  countOf: (bucket: number) => number,
  sum: number,
): string {
  const before = labels === '' ? '' : `${labels},`;
  let text = '';
  let count = 0;
  for (let bucket = 0; bucket <= bounds.length; bucket++) {
    count += countOf(bucket);
    text += sampleLine(`${name}_bucket`, `${before}le="${bounds[bucket] ?? '+Inf'}"`, count);
  }
  return text + sampleLine(`${name}_sum`, labels, sum) + sampleLine(`${name}_count`, labels, count);
}

/** The whole text, in pieces. */
export function* exposition(families: Iterable<Family>): Generator<string> {
  let piece = '';
  for (const { type, name, help, lines } of families) {
    piece += `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n`;
    piece += `# TYPE ${name} ${type}\n`;
    for (const line of lines()) {
      piece += line;
      if (piece.length < PIECE_CHARACTERS) continue;
      yield piece;
      piece = '';
    }
  }
  if (piece !== '') yield piece;
}
