// io_uring by plain native calls: set-up with the best flags the kernel takes, enter, buffer ring registration, and a
// refusal that says which of sysctl, seccomp, old kernel or memory limit it was and what to do about it.

import { readFileSync } from 'node:fs';
import { EACCES, EINVAL, ENOMEM, ENOSYS, EPERM, errnoName } from './errno.ts';
import { type Mapping, mapDescriptor, unmap } from './memory.ts';
import { checked, native, nativeRefusal, num } from './native.ts';
import { memoryLockLimit } from './rlimit.ts';
import { SCRATCH_STRUCT, STRUCT_POINTER, scratchView } from './scratch.ts';
import { closeDescriptor } from './socket.ts';
import {
  CQ_OFF_CQES,
  CQ_OFF_HEAD,
  CQ_OFF_RING_MASK,
  CQ_OFF_TAIL,
  CQE_WORDS,
  IORING_ENTER_GETEVENTS,
  IORING_OFF_SQ_RING,
  IORING_OFF_SQES,
  IORING_REGISTER_PBUF_RING,
  IORING_SETUP_CLAMP,
  IORING_SETUP_COOP_TASKRUN,
  IORING_SETUP_CQSIZE,
  IORING_SETUP_DEFER_TASKRUN,
  IORING_SETUP_SINGLE_ISSUER,
  IORING_SETUP_SUBMIT_ALL,
  PARAMS_BYTES,
  PARAMS_CQ_ENTRIES,
  PARAMS_CQ_OFF,
  PARAMS_FLAGS,
  PARAMS_SQ_ENTRIES,
  PARAMS_SQ_OFF,
  SQ_OFF_ARRAY,
  SQ_OFF_HEAD,
  SQ_OFF_RING_MASK,
  SQ_OFF_TAIL,
  SQE_WORDS,
  SYS_IO_URING_ENTER,
  SYS_IO_URING_REGISTER,
  SYS_IO_URING_SETUP,
} from './uring-abi.ts';

/** Below this many entries a ring is not worth having: the batches get too small. */
const SQ_ENTRIES_MIN = 128;
const COMMON_FLAGS =
  IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SINGLE_ISSUER;

/** An open ring; the indexes point into `words` (the shared ring header, 32-bit words). */
export interface Ring {
  readonly fd: number;
  readonly fdArgument: bigint;
  readonly sqEntries: number;
  readonly words: Int32Array;
  readonly sqes: Int32Array;
  readonly sqHead: number;
  readonly sqTail: number;
  readonly sqMask: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly cqMask: number;
  readonly cqes: number;
  readonly mappings: readonly Mapping[];
}

function setup(entries: number, flags: number): number {
  for (let offset = 0; offset < PARAMS_BYTES; offset += 4) {
    scratchView.setUint32(SCRATCH_STRUCT + offset, 0);
  }
  scratchView.setUint32(SCRATCH_STRUCT + PARAMS_CQ_ENTRIES, entries * 4, true);
  scratchView.setUint32(SCRATCH_STRUCT + PARAMS_FLAGS, flags, true);
  return checked(native.syscall(SYS_IO_URING_SETUP, num(entries), STRUCT_POINTER, 0n, 0n, 0n));
}

/** DEFER_TASKRUN (6.1), else COOP_TASKRUN with SINGLE_ISSUER (6.0); fewer entries when memory is limited. */
function setupBest(entries: number): number {
  let result = -EINVAL;
  for (const taskRun of [IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_COOP_TASKRUN]) {
    for (let count = entries; count >= SQ_ENTRIES_MIN; count >>= 1) {
      result = setup(count, COMMON_FLAGS | taskRun);
      if (result !== -ENOMEM) break;
    }
    if (result !== -EINVAL) break;
  }
  return result;
}

/** Opens a ring for the calling thread, or returns -errno (see `explainRefusal`). */
export function openRing(entries: number): Ring | number {
  const fd = setupBest(entries);
  if (fd < 0) return fd;
  const param = (offset: number): number => scratchView.getUint32(SCRATCH_STRUCT + offset, true);
  const sq = (offset: number): number => param(PARAMS_SQ_OFF + offset);
  const cq = (offset: number): number => param(PARAMS_CQ_OFF + offset);
  const sqEntries = param(PARAMS_SQ_ENTRIES);
  const cqEntries = param(PARAMS_CQ_ENTRIES);
  const layout = {
    sqHead: sq(SQ_OFF_HEAD) / 4,
    sqTail: sq(SQ_OFF_TAIL) / 4,
    sqMask: sq(SQ_OFF_RING_MASK) / 4,
    sqArray: sq(SQ_OFF_ARRAY) / 4,
    cqHead: cq(CQ_OFF_HEAD) / 4,
    cqTail: cq(CQ_OFF_TAIL) / 4,
    cqMask: cq(CQ_OFF_RING_MASK) / 4,
    cqes: cq(CQ_OFF_CQES) / 4,
  };
  const ringBytes = Math.max(
    (layout.sqArray + sqEntries) * 4,
    (layout.cqes + cqEntries * CQE_WORDS) * 4,
  );
  const header = mapDescriptor(fd, ringBytes, IORING_OFF_SQ_RING, 'the io_uring header');
  const entryMap = mapDescriptor(
    fd,
    sqEntries * SQE_WORDS * 4,
    IORING_OFF_SQES,
    'io_uring entries',
  );
  const words = new Int32Array(header.buffer);
  for (let index = 0; index < sqEntries; index++) words[layout.sqArray + index] = index;
  return {
    fd,
    fdArgument: BigInt(fd),
    sqEntries,
    words,
    sqes: new Int32Array(entryMap.buffer),
    sqHead: layout.sqHead,
    sqTail: layout.sqTail,
    sqMask: words[layout.sqMask],
    cqHead: layout.cqHead,
    cqTail: layout.cqTail,
    cqMask: words[layout.cqMask],
    cqes: layout.cqes,
    mappings: [header, entryMap],
  };
}

/** Closes the ring: the kernel cancels what is in flight. Its views must not be used any more. */
export function closeRing(ring: Ring): void {
  closeDescriptor(ring.fd);
  for (const mapping of ring.mappings) unmap(mapping);
}

/** io_uring_enter(2): submits `toSubmit` entries and waits for `minComplete`; entries taken, or -errno. */
export function enterRing(ring: Ring, toSubmit: number, minComplete: number): number {
  return checked(
    native.syscall(
      SYS_IO_URING_ENTER,
      ring.fdArgument,
      num(toSubmit),
      num(minComplete),
      IORING_ENTER_GETEVENTS,
      0n,
    ),
  );
}

/** Registers a provided-buffer ring (5.19) of `entries` (a power of two, at most 32768) at `address`; 0 or -errno. */
export function registerBufferRing(
  ring: Ring,
  address: bigint,
  entries: number,
  group: number,
): number {
  for (let offset = 0; offset < 40; offset += 4) scratchView.setUint32(SCRATCH_STRUCT + offset, 0);
  scratchView.setBigUint64(SCRATCH_STRUCT, address, true);
  scratchView.setUint32(SCRATCH_STRUCT + 8, entries, true);
  scratchView.setUint16(SCRATCH_STRUCT + 12, group, true);
  const operation = IORING_REGISTER_PBUF_RING;
  return checked(
    native.syscall(SYS_IO_URING_REGISTER, ring.fdArgument, operation, STRUCT_POINTER, 1n, 0n),
  );
}

function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

/** Why the kernel refused a ring with `result` (-errno), and what the operator can do. One line. */
export function explainRefusal(result: number): string {
  const name = errnoName(result);
  const disabled = readProc('/proc/sys/kernel/io_uring_disabled');
  const seccomp = /^Seccomp:\s*([12])/m.test(readProc('/proc/self/status'));
  if (result === -EPERM || result === -EACCES) {
    if (disabled === '2') {
      return `io_uring is switched off on this host (${name}, kernel.io_uring_disabled=2); to allow it: sysctl -w kernel.io_uring_disabled=0`;
    }
    if (disabled === '1') {
      return `io_uring is kept to one group of users (${name}, kernel.io_uring_disabled=1); add this user's group to kernel.io_uring_group, or sysctl -w kernel.io_uring_disabled=0`;
    }
    return `io_uring is refused (${name})${seccomp ? ' by a seccomp filter, as containers have by default; run with a profile that allows io_uring_setup, io_uring_enter and io_uring_register' : ' by a security policy of this host'}`;
  }
  if (result === -ENOSYS) {
    return `io_uring is missing (${name})${seccomp ? ': a seccomp filter hides it, or the kernel' : ': the kernel'} is too old or built without it; it needs Linux 6.0 or newer`;
  }
  if (result === -EINVAL) {
    return `io_uring of this kernel is too old (${name}): it needs Linux 6.0 or newer`;
  }
  if (result === -ENOMEM) {
    const { soft } = memoryLockLimit();
    return `io_uring got no memory (${name}): RLIMIT_MEMLOCK is ${soft} bytes; set LimitMEMLOCK=infinity (systemd) or ulimit -l unlimited`;
  }
  return `io_uring cannot be set up (${name})`;
}

/** Tries a small ring with all that the engine needs; '' when it works, else the explained reason. */
export function uringRefusal(): string {
  if (nativeRefusal !== '') return nativeRefusal;
  const ring = openRing(SQ_ENTRIES_MIN);
  if (typeof ring === 'number') return explainRefusal(ring);
  closeRing(ring);
  return '';
}
