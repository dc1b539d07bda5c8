// Sockets in another network namespace: a socket belongs for ever to the namespace its thread was in when it was made
// (network_namespaces(7)), so the thread goes there by setns(2) for one call and comes back.

import { closeSync, openSync } from 'node:fs';
import { checked, native, num } from './native.ts';

const CLONE_NEWNET = 0x4000_0000n;

function enter(fd: number): void {
  const result = checked(native.setns(num(fd), CLONE_NEWNET));
  if (result < 0) throw new Error(`Cannot enter a network namespace: errno ${-result}`);
}

/** What `work` returns, run in the network namespace `name` (ip-netns(8)). Must not wait: the whole thread is there. */
export function inNamespace<Result>(name: string, work: () => Result): Result {
  const own = openSync('/proc/thread-self/ns/net', 'r');
  const other = openSync(`/run/netns/${name}`, 'r');
  try {
    enter(other);
    try {
      return work();
    } finally {
      enter(own);
    }
  } finally {
    closeSync(other);
    closeSync(own);
  }
}
