// eventfd(2): wakes a worker that is blocked in the kernel. Written by the control plane, waited for by an engine.

import { checked, native, num } from './native.ts';
import { SCRATCH_STRUCT, STRUCT_POINTER, scratchView } from './scratch.ts';

const EFD_CLOEXEC = 0o2000000n;

/** A new eventfd, or -errno. */
export function createEventfd(): number {
  return checked(native.eventfd(0n, EFD_CLOEXEC));
}

/** Adds one to the counter: whoever waits on it wakes. */
export function signalEventfd(fd: number): void {
  scratchView.setBigUint64(SCRATCH_STRUCT, 1n, true);
  native.write(num(fd), STRUCT_POINTER, 8n);
}
