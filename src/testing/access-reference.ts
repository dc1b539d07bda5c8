// What an access list says, read from its rows one by one: the documented rules without any of the data plane's code, for
// tests to compare with.

import { parsePrefix } from '../sys/prefix.ts';

export interface AccessRowText {
  readonly app: string;
  readonly action: string;
  readonly match: string;
}

/** `words`: IPv4 as IPv4-mapped. `country`: a code, '' for none. `app`: of the listener, `*` for any. */
export interface AccessClient {
  readonly app: string;
  readonly words: readonly number[];
  readonly country: string;
}

const IPV4_BITS = 96;

export function bitsOf(words: readonly number[]): bigint {
  return words.reduce((sum, word) => (sum << 32n) | BigInt(word >>> 0), 0n);
}

export function isIPv4(words: readonly number[]): boolean {
  return bitsOf(words) >> 32n === 0xffffn;
}

/** Length of the prefix when it holds the client, else -1. */
function matchedLength(match: string, words: readonly number[]): number {
  const prefix = parsePrefix(match);
  if (typeof prefix === 'string') return -1;
  const shift = BigInt(128 - prefix.length);
  if (bitsOf(prefix.words) >> shift !== bitsOf(words) >> shift) return -1;
  return isIPv4(words) && prefix.length < IPV4_BITS ? -1 : prefix.length;
}

/** Of rows that match alike: those of the app go first, then one that denies. */
function verdict(matching: readonly AccessRowText[]): boolean {
  const own = matching.filter(({ app }) => app !== '*');
  return (own.length > 0 ? own : matching).every(({ action }) => action === 'allow');
}

/** Whether the client may connect; every row can be read. */
export function allowedByRows(rows: readonly AccessRowText[], client: AccessClient): boolean {
  const relevant = rows.filter(({ app }) => app === '*' || app === client.app);
  const lengths = relevant.map(({ match }) => matchedLength(match, client.words));
  const longest = Math.max(-1, ...lengths);
  if (longest >= 0) return verdict(relevant.filter((_, index) => lengths[index] === longest));
  const code = client.country.toUpperCase();
  const country = relevant.filter(({ match }) => code !== '' && match.toUpperCase() === code);
  if (country.length > 0) return verdict(country);
  // The app's own rows first, and whether they allow anybody; then the same with those for all.
  for (const own of [true, false]) {
    const scope = relevant.filter(({ app }) => own === (app !== '*'));
    const everyone = scope.filter(({ match }) => match === '*');
    if (everyone.length > 0) return verdict(everyone);
    if (scope.some(({ action }) => action === 'allow')) return false;
  }
  return true;
}
