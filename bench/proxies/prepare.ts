// What every proxy under test is given: the addresses of the load backend by service, and how many connections it must hold.

import type { LoadRun, PreparedProxy, Service } from '../../src/testing/load-run.ts';
import { BACKEND_HOSTS } from '../../src/testing/load-run.ts';

export interface ProxyNeeds {
  /** Addresses of the echo service; four when left out. */
  readonly hosts?: readonly string[];
  readonly descriptors: number;
}

export interface ProxyKind {
  readonly name: string;
  /** Null: no process, the load goes to the backend itself. */
  prepare(run: LoadRun, needs: ProxyNeeds): Promise<PreparedProxy> | null;
}

/** The addresses that serve `service`: all of them lead to the one load backend. */
export function hostsOf(service: Service, { hosts }: ProxyNeeds): readonly string[] {
  return service === 'echo' && hosts !== undefined ? hosts : BACKEND_HOSTS;
}

/** `count` loopback addresses that no client and no other service has. */
export function manyHosts(count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    return `127.${200 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
  });
}
