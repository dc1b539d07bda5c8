// Numbers, units, times and names as people read them.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const hundredth = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const countryNames = new Intl.DisplayNames('en', { type: 'region' });
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

/** @param {number} value */
export function count(value) {
  return whole.format(value);
}

/** @param {number} value */
export function decimal(value) {
  const size = Math.abs(value);
  return (size >= 100 ? whole : size >= 10 ? tenth : hundredth).format(value);
}

/** For scores, whose whole part is the tier. @param {number} value */
export function hundredths(value) {
  return value.toFixed(2);
}

/** For axes and chips: 1.2k. @param {number} value */
export function short(value) {
  for (const [unit, size] of /** @type {const} */ ([
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3],
  ])) {
    if (Math.abs(value) >= size) return `${decimal(value / size)}${unit}`;
  }
  return decimal(value);
}

/** Powers of ten, as networks are measured. @param {number} value @returns {[string, string]} */
export function bytes(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  let left = value;
  for (; left >= 999.5 && at < units.length - 1; at++) left /= 1000;
  return [decimal(left), /** @type {string} */ (units[at])];
}

/** @param {number} value */
export function bytesText(value) {
  return bytes(value).join(' ');
}

/** @param {number | null} value */
export function milliseconds(value) {
  return value === null ? '–' : decimal(value);
}

/** @param {number} seconds */
export function duration(seconds) {
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

/** @param {string | number} time */
export function timeOfDay(time) {
  return clock.format(new Date(time));
}

/** @param {string | null} code */
export function country(code) {
  if (code === null) return 'no country';
  try {
    return countryNames.of(code) ?? code;
  } catch {
    return code;
  }
}

/** `client_gone` as words. @param {string} name */
export function words(name) {
  return name.replaceAll('_', ' ');
}

/** @param {number} value @param {string} one @param {string} [many] */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}
