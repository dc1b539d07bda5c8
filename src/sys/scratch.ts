// One page of native memory per thread for the small structures that calls pass by pointer (options, addresses, limits).
// Contents are valid only within one call: no function here or above keeps anything in it.

import { mapMemory } from './memory.ts';
import { nativeRefusal } from './native.ts';

const PAGE_BYTES = 4096;
const page =
  nativeRefusal === ''
    ? mapMemory(PAGE_BYTES, 'the scratch page')
    : { address: 0n, bytes: PAGE_BYTES, buffer: new ArrayBuffer(PAGE_BYTES) };

/** Byte offsets of the areas; each is used by one kind of call. */
export const SCRATCH_VALUE = 0;
export const SCRATCH_SOCKADDR = 64;
export const SCRATCH_LENGTH = 128;
export const SCRATCH_CLOCK = 192;
export const SCRATCH_STRUCT = 256;

export const scratchView = new DataView(page.buffer);
export const scratchWords = new Int32Array(page.buffer);
export const VALUE_POINTER = page.address + BigInt(SCRATCH_VALUE);
export const SOCKADDR_POINTER = page.address + BigInt(SCRATCH_SOCKADDR);
export const LENGTH_POINTER = page.address + BigInt(SCRATCH_LENGTH);
export const CLOCK_POINTER = page.address + BigInt(SCRATCH_CLOCK);
export const STRUCT_POINTER = page.address + BigInt(SCRATCH_STRUCT);
