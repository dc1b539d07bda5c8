// What a process may do as root (capabilities(7)): reduced for a whole process by taking the rest out of the bounding set and
// executing the program once more, because Linux keeps capabilities by thread and Node has threads before any of our code
// runs. Also: no core dumps, no looking into the process' memory (prctl(2), PR_SET_DUMPABLE).

import { readFileSync } from 'node:fs';
import { forbidNewPrivileges } from './accounts.ts';
import { bindNative, checked, native } from './native.ts';
import { SCRATCH_STRUCT, STRUCT_POINTER, scratchView } from './scratch.ts';

export const CAP_NET_BIND_SERVICE = 10;
export const CAP_NET_ADMIN = 12;
const PR_SET_DUMPABLE = 4n;
const PR_CAPBSET_DROP = 24n;
const RLIMIT_CORE = 4n;
const CAPABILITIES_MAX = 63;
const FIVE = ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'] as const;

const calls = () => bindNative({ prctl: { arguments: FIVE, return: 'int32' } });

/** Capabilities in force in this thread that are not in `kept`. */
export function excessCapabilities(kept: readonly number[]): number[] {
  const status = readFileSync('/proc/self/status', 'utf8');
  const set = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const all = Array.from({ length: CAPABILITIES_MAX + 1 }, (_, number) => number);
  return all.filter((number) => (set >> BigInt(number)) & 1n && !kept.includes(number));
}

/** Takes capabilities from every program executed from now on, for ever; false: this process may not. */
export function dropFromBoundingSet(capabilities: readonly number[]): boolean {
  const { prctl } = calls();
  const results = capabilities.map((number) => prctl(PR_CAPBSET_DROP, BigInt(number), 0n, 0n, 0n));
  return results.every((result) => result === 0);
}

/** No core dumps, no debugger of the same user, no gain of privileges by executing a program. */
export function protectMemory(): number {
  scratchView.setBigUint64(SCRATCH_STRUCT, 0n, true);
  scratchView.setBigUint64(SCRATCH_STRUCT + 8, 0n, true);
  native.setrlimit(RLIMIT_CORE, STRUCT_POINTER);
  forbidNewPrivileges();
  return checked(calls().prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n));
}
