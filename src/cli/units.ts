// Numbers for people, in few columns: 1234567 as 1.2M, bytes as 1.2 MB, seconds as 3h12m.

const STEPS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

function scaled(value: number, step: number): { text: string; prefix: string } {
  let rest = value;
  let at = 0;
  // What would be written as four digits goes to the next prefix.
  while (rest >= 999.5 && at < STEPS.length - 1) {
    rest /= step;
    at++;
  }
  const digits = at === 0 && Number.isInteger(rest) ? 0 : rest < 9.95 ? 1 : 0;
  return { text: rest.toFixed(digits), prefix: STEPS[at] as string };
}

/** 5 columns at most: `0`, `2.4`, `987`, `1.2k`, `34M`. */
export function countText(value: number): string {
  const { text, prefix } = scaled(value, 1000);
  return text + prefix;
}

/** Decimal, as lines are sold: `0 B`, `1.2 kB`, `34 MB`. */
export function bytesText(bytes: number): string {
  const { text, prefix } = scaled(Math.round(bytes), 1000);
  return `${text} ${prefix}B`;
}

/** `0.75`, `12.3`, `480`; `-` for null. */
export function msText(ms: number | null): string {
  if (ms === null) return '-';
  return ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
}

/** The two largest units: `7s`, `3m12s`, `5h03m`, `2d04h`. */
export function durationText(seconds: number): string {
  const whole = Math.floor(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(whole / unit)) as [
    number,
    number,
    number,
  ];
  if (days > 0) return `${days}d${two(hours % 24)}h`;
  if (hours > 0) return `${hours}h${two(minutes % 60)}m`;
  return minutes > 0 ? `${minutes}m${two(whole % 60)}s` : `${whole}s`;
}
