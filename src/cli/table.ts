// Aligned text tables for the terminal. No cell is cut: an id must be copyable, so a long one makes
// a wide table.

const GAP = '  ';

/**
 * Rows below a header, numbers (columns in `right`) to the right, nothing after the last cell of a
 * line.
 */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  right: ReadonlySet<string> = new Set(),
): string {
  const widths = header.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    header
      .map((name, column) => {
        const cell = cells[column] ?? '';
        const width = widths[column] as number;
        return right.has(name) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join(GAP)
      .trimEnd();
  return `${[header, ...rows].map(line).join('\n')}\n`;
}
