// The one door to native code: libc through node:ffi, every function declared so that V8 calls it directly.
//
// A function whose 2 to 6 parameters are all 'pointer' has no validating JavaScript wrapper: 4 to 8 ns a call in optimised
// code, no allocation (measured on Node 26.10; any integer-typed parameter costs 24 to 550 ns). So integers travel as
// BigInts made by num(), and functions of one parameter are padded with a dummy one (harmless in the C calling
// conventions of Linux x86-64 and arm64). `nativeIsDirect()` tells whether this Node still does it.

type FfiModule = typeof import('node:ffi');

const POINTER = 'pointer';
const TWO = [POINTER, POINTER] as const;
const THREE = [POINTER, POINTER, POINTER] as const;
const FOUR = [POINTER, POINTER, POINTER, POINTER] as const;
const FIVE = [POINTER, POINTER, POINTER, POINTER, POINTER] as const;
const SIX = [POINTER, POINTER, POINTER, POINTER, POINTER, POINTER] as const;

const DEFINITIONS = {
  __errno_location: { arguments: [], return: POINTER },
  accept4: { arguments: FOUR, return: 'int32' },
  bind: { arguments: THREE, return: 'int32' },
  clock_gettime: { arguments: TWO, return: 'int32' },
  close: { arguments: TWO, return: 'int32' },
  connect: { arguments: THREE, return: 'int32' },
  epoll_create1: { arguments: TWO, return: 'int32' },
  epoll_ctl: { arguments: FOUR, return: 'int32' },
  epoll_wait: { arguments: FOUR, return: 'int32' },
  eventfd: { arguments: TWO, return: 'int32' },
  fcntl: { arguments: THREE, return: 'int32' },
  getpagesize: { arguments: [], return: 'int32' },
  getpeername: { arguments: THREE, return: 'int32' },
  getrlimit: { arguments: TWO, return: 'int32' },
  getsockname: { arguments: THREE, return: 'int32' },
  getsockopt: { arguments: FIVE, return: 'int32' },
  listen: { arguments: TWO, return: 'int32' },
  madvise: { arguments: THREE, return: 'int32' },
  mmap: { arguments: SIX, return: POINTER },
  munmap: { arguments: TWO, return: 'int32' },
  pipe2: { arguments: TWO, return: 'int32' },
  read: { arguments: THREE, return: 'int32' },
  recv: { arguments: FOUR, return: 'int32' },
  send: { arguments: FOUR, return: 'int32' },
  setns: { arguments: TWO, return: 'int32' },
  setrlimit: { arguments: TWO, return: 'int32' },
  setsockopt: { arguments: FIVE, return: 'int32' },
  shutdown: { arguments: TWO, return: 'int32' },
  socket: { arguments: THREE, return: 'int32' },
  splice: { arguments: SIX, return: 'int32' },
  syscall: { arguments: SIX, return: 'int32' },
  write: { arguments: THREE, return: 'int32' },
} as const;

/** Parameters are all pointers, see above. */
interface Definition {
  readonly arguments: readonly 'pointer'[];
  readonly return: 'int32' | 'pointer';
}
type Arguments<Types extends readonly unknown[]> = { readonly [Index in keyof Types]: bigint };
/** A call with fewer arguments than parameters ends the process when V8 optimises it. */
type Functions<D extends Readonly<Record<string, Definition>>> = {
  readonly [K in keyof D]: (
    ...args: Arguments<D[K]['arguments']>
  ) => D[K]['return'] extends 'pointer' ? bigint : number;
};
type Native = Functions<typeof DEFINITIONS>;

/** Loads node:ffi without its once-per-thread ExperimentalWarning; other warnings still show. */
function loadFfi(): FfiModule | undefined {
  const emitWarning = process.emitWarning;
  const silent = (warning: string | Error, ...rest: unknown[]): void => {
    const text = String(warning);
    if (/FFI/.test(text) && /experimental/i.test(text)) return;
    (emitWarning as (...args: unknown[]) => void).call(process, warning, ...rest);
  };
  process.emitWarning = silent as typeof process.emitWarning;
  try {
    return process.getBuiltinModule('node:ffi') as FfiModule | undefined;
  } catch {
    return undefined;
  } finally {
    process.emitWarning = emitWarning;
  }
}

function bind<D extends Readonly<Record<string, Definition>>>(
  module: FfiModule,
  definitions: D,
  library: string | null = 'libc.so.6',
): Functions<D> {
  const { functions } = module.dlopen(library as string, definitions as never);
  return functions as unknown as Functions<D>;
}

/** Why native code cannot be used here, or '' when it can. Set once at load. */
export let nativeRefusal = '';

function openLibc(module: FfiModule | undefined): Native | undefined {
  if (process.platform !== 'linux') {
    nativeRefusal = `the data plane needs Linux, this is ${process.platform}`;
    return undefined;
  }
  if (module === undefined) {
    nativeRefusal = `this Node.js (${process.version}) has no node:ffi; it needs 26.9 or newer`;
    return undefined;
  }
  try {
    return bind(module, DEFINITIONS);
  } catch (error) {
    nativeRefusal = `libc.so.6 cannot be opened: ${error instanceof Error ? error.message : error}`;
    return undefined;
  }
}

const ffi = loadFfi();
const libc = openLibc(ffi);

/** libc, or an object whose every use throws: callers check `nativeRefusal` first. */
export const native: Native =
  libc ??
  (new Proxy(
    {},
    {
      get() {
        throw new Error(`Cannot call native code: ${nativeRefusal}`);
      },
    },
  ) as Native);

/** Further functions of libc, for what is rarely done: each costs every thread that binds it some 20 µs. */
export function bindNative<D extends Readonly<Record<string, Definition>>>(
  definitions: D,
): Functions<D> {
  if (ffi === undefined || libc === undefined) {
    throw new Error(`Cannot call native code: ${nativeRefusal}`);
  }
  return bind(ffi, definitions);
}

/** Functions that Node itself exports (its OpenSSL), or null when one of them is missing in this build. */
export function bindOwn<D extends Readonly<Record<string, Definition>>>(
  definitions: D,
): Functions<D> | null {
  if (ffi === undefined || libc === undefined) return null;
  try {
    return bind(ffi, definitions, null);
  } catch {
    return null;
  }
}

/** Where the bytes of a view are. The owner keeps the view's buffer; shared buffers do not move. */
export function addressOf(view: Uint8Array): bigint {
  if (ffi === undefined) throw new Error(`Cannot view native memory: ${nativeRefusal}`);
  return ffi.getRawPointer(view);
}

const numLow = new Uint32Array(2);
const numWide = new BigUint64Array(numLow.buffer);

/**
 * A whole number from 0 to 2^32 - 1 as a native argument. Going through memory instead of BigInt() lets the optimising
 * compiler pass the 64 bits on without ever making a BigInt. (Little-endian; the high word stays 0.)
 */
export function num(value: number): bigint {
  numLow[0] = value;
  return numWide[0];
}

/** All bits set: -1 for int parameters (libc reads the low 32 bits). */
export const MINUS_ONE = 0xffff_ffff_ffff_ffffn;

/** The address is per thread, so each worker's own instance of this module asks for its own. */
const errnoWord =
  libc === undefined || ffi === undefined
    ? new Int32Array(1)
    : new Int32Array(ffi.toArrayBuffer(libc.__errno_location(), 4, false));

/** -errno of the native call just made. Read it before anything allocates: a garbage collection's own calls overwrite it. */
function lastErrno(): number {
  return -(errnoWord[0] as number);
}

/** The result of a call that reports failure by -1, as the kernel has it: negative is -errno. */
export function checked(result: number): number {
  return result === -1 ? lastErrno() : result;
}

/** A view over native memory; nothing frees or moves it. The owner must outlive every view (see memory.ts). */
export function viewNative(address: bigint, bytes: number): ArrayBuffer {
  if (ffi === undefined) throw new Error(`Cannot view native memory: ${nativeRefusal}`);
  return ffi.toArrayBuffer(address, bytes, false);
}

/** Names of functions that Node wraps in JavaScript (slow, allocating) although none should be. */
export function wrappedNatives(): string[] {
  return Object.entries(native)
    .filter(([, fn]) => !String(fn).includes('[native code]'))
    .map(([name]) => name);
}
