// Memory that threads, the kernel and WebAssembly see at one address: a shared WebAssembly memory. Whoever makes it hands
// `memory` to the threads; each opens its own views. Native addresses are made through a pair of words, not by BigInt
// arithmetic, so that the optimising compiler passes them on without allocating (see num() in native.ts).

import { addressOf } from './native.ts';

export const PAGE_BYTES = 65_536;
/** Memories are placed anywhere; one that crosses a 4 GiB boundary is not usable here and another is asked for. */
const TRIES_MAX = 8;

/** The part of WebAssembly that is used here (the type library of browsers has the rest). */
export interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
}
interface WebAssemblyApi {
  Memory: new (options: { initial: number; maximum: number; shared: boolean }) => SharedMemory;
  Module: new (bytes: Uint8Array) => object;
  Instance: new (
    module: object,
    imports: object,
  ) => { readonly exports: Readonly<Record<string, unknown>> };
}
export const wasm = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;

export interface Arena {
  readonly memory: SharedMemory;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly unsigned: Uint32Array;
  readonly floats: Float64Array;
  readonly wide: BigUint64Array;
  readonly view: DataView;
  /** Low word of the address of byte 0. */
  readonly base: number;
  /** The address being made: low and high word, and the same as one number. */
  readonly pointerWords: Uint32Array;
  readonly pointer: BigUint64Array;
}

function crossesBoundary(memory: SharedMemory): boolean {
  const low = Number(addressOf(new Uint8Array(memory.buffer)) & 0xffff_ffffn);
  return low + memory.buffer.byteLength > 0xffff_ffff;
}

/** Zeroed memory of `pages` of 64 KiB; pages never touched cost nothing. */
export function createSharedMemory(pages: number): SharedMemory {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const memory = new wasm.Memory({ initial: pages, maximum: pages, shared: true });
    if (!crossesBoundary(memory)) return memory;
  }
  throw new Error(`Cannot place ${pages * PAGE_BYTES} bytes of shared memory`);
}

/** This thread's views of it. */
export function openArena(memory: SharedMemory): Arena {
  const { buffer } = memory;
  const bytes = new Uint8Array(buffer);
  const address = addressOf(bytes);
  const pointerWords = new Uint32Array(2);
  pointerWords[1] = Number(address >> 32n);
  return {
    memory,
    bytes,
    words: new Int32Array(buffer),
    unsigned: new Uint32Array(buffer),
    floats: new Float64Array(buffer),
    wide: new BigUint64Array(buffer),
    view: new DataView(buffer),
    base: Number(address & 0xffff_ffffn),
    pointerWords,
    pointer: new BigUint64Array(pointerWords.buffer),
  };
}

/** The native address of byte `offset`, as an argument of the call being made. */
export function pointerTo(arena: Arena, offset: number): bigint {
  arena.pointerWords[0] = arena.base + offset;
  return arena.pointer[0];
}
