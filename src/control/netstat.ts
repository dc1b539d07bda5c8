// Counters of the kernel's TCP from /proc/net/netstat: connections that found the accept queue of a listener full. They
// are of the whole network namespace, not of this process.

import { readFileSync } from 'node:fs';

/** TcpExt counters by name; empty where there is no such file. */
export function readTcpCounters(
  read = () => readFileSync('/proc/net/netstat', 'utf8'),
): ReadonlyMap<string, number> {
  let lines: string[];
  try {
    lines = read().split('\n');
  } catch {
    return new Map();
  }
  // Two lines each: names, then values.
  const [names = '', values = ''] = lines.filter((line) => line.startsWith('TcpExt:'));
  const numbers = values.split(' ').map(Number);
  return new Map(names.split(' ').map((name, at) => [name, numbers[at] ?? 0]));
}
