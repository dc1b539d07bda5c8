// Settings as command-line flags. `run` is parsed without commander when its command line is plain:
// loading commander costs about 15 ms, a fifth of the start budget. Whatever is not plain goes to
// commander, so that help and errors have one source; a test checks that both read the same line
// alike.

import { type ConfigFlags, flagAttribute, flagName, isSwitch, SETTING_KEYS } from '../config.ts';

/**
 * Flags of a `run` line made only of `--name value` and `--name=value`; null when it is anything
 * else.
 */
export function plainRunFlags(argv: readonly string[]): ConfigFlags | null {
  const attributes = new Map([['config', 'config']]);
  for (const key of SETTING_KEYS) {
    if (!isSwitch(key)) attributes.set(flagName(key), flagAttribute(key));
  }
  const flags: Record<string, string> = {};
  for (let at = 0; at < argv.length; at++) {
    const match = /^--([a-z0-9-]+)(?:=(.*))?$/s.exec(argv[at] as string);
    const attribute = match && attributes.get(match[1] as string);
    if (!match || !attribute) return null;
    const value = match[2] ?? argv[++at];
    if (value === undefined || value.startsWith('-')) return null;
    flags[attribute] = value;
  }
  return flags;
}
