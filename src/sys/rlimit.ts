// Resource limits of this process (getrlimit(2)): how many descriptors it may open.

import { checked, native, nativeRefusal } from './native.ts';
import { SCRATCH_STRUCT, STRUCT_POINTER, scratchView } from './scratch.ts';

const RLIMIT_NOFILE = 7n;
const RLIMIT_MEMLOCK = 8n;

export interface ResourceLimit {
  readonly soft: number;
  readonly hard: number;
}

function readLimit(resource: bigint): ResourceLimit {
  const result = checked(native.getrlimit(resource, STRUCT_POINTER));
  if (result < 0) throw new Error(`Cannot read resource limit ${resource}: errno ${-result}`);
  return {
    soft: Number(scratchView.getBigUint64(SCRATCH_STRUCT, true)),
    hard: Number(scratchView.getBigUint64(SCRATCH_STRUCT + 8, true)),
  };
}

/** Assumed where the limit cannot be read: what macOS gives by default; Node raises the soft limit itself. */
const DESCRIPTORS_ASSUMED = 10_240;

/** The limit of open descriptors as it is. */
export function descriptorLimit(): ResourceLimit {
  if (nativeRefusal !== '') return { soft: DESCRIPTORS_ASSUMED, hard: DESCRIPTORS_ASSUMED };
  return readLimit(RLIMIT_NOFILE);
}

/** Raises the soft limit of open descriptors to the hard one and returns what is in force. */
export function raiseDescriptorLimit(): ResourceLimit {
  if (nativeRefusal !== '') return { soft: DESCRIPTORS_ASSUMED, hard: DESCRIPTORS_ASSUMED };
  const { soft, hard } = readLimit(RLIMIT_NOFILE);
  if (soft < hard) {
    scratchView.setBigUint64(SCRATCH_STRUCT, BigInt(hard), true);
    scratchView.setBigUint64(SCRATCH_STRUCT + 8, BigInt(hard), true);
    native.setrlimit(RLIMIT_NOFILE, STRUCT_POINTER);
  }
  return readLimit(RLIMIT_NOFILE);
}

/** Bytes this user may lock: io_uring rings of unprivileged users are charged to it. */
export function memoryLockLimit(): ResourceLimit {
  return readLimit(RLIMIT_MEMLOCK);
}
