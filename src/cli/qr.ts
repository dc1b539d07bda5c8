// A QR code for the terminal: two rows of it per line, dark on light whatever the colours of the terminal are.

import qrcode from 'qrcode-generator';

/** Modules of light around it: the standard wants 4, readers do with 2, and a large code must fit on the screen. */
const MARGIN = 2;
const ESCAPE = '\u001b';
/** Black on white; then as before. */
const COLOURS = `${ESCAPE}[30;107m`;
const RESET = `${ESCAPE}[0m`;
const HALVES = [' ', '▄', '▀', '█'] as const;

/** The text as lines of half blocks; ends with a line break. Throws RangeError when it is too long for a QR code. */
export function qrText(text: string): string {
  // Type 0: as large as it has to be. L: a screen is clean, and every level up makes it larger.
  const code = qrcode(0, 'L');
  code.addData(text, 'Byte');
  try {
    code.make();
  } catch (cause) {
    throw new RangeError(`A text of ${text.length} characters is too long for a QR code`, {
      cause,
    });
  }
  const size = code.getModuleCount();
  const isDark = (row: number, column: number): boolean =>
    row >= 0 && row < size && column >= 0 && column < size && code.isDark(row, column);
  const lines: string[] = [];
  for (let row = -MARGIN; row < size + MARGIN; row += 2) {
    let line = '';
    for (let column = -MARGIN; column < size + MARGIN; column++) {
      const upper = isDark(row, column) ? 2 : 0;
      line += HALVES[upper + (isDark(row + 1, column) ? 1 : 0)];
    }
    lines.push(`${COLOURS}${line}${RESET}\n`);
  }
  return lines.join('');
}
