// Native memory with an owner: anonymous or file-backed mappings that the kernel and typed arrays see at one address.
// A mapping lives until `release`; no view of it may be used after that. Pages cost memory only once touched.

import { MINUS_ONE, native, nativeRefusal, viewNative } from './native.ts';

const PROT_READ_WRITE = 3n;
const MAP_SHARED_POPULATE = 0x8001n;
const MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x4022n;
const MAP_FAILED = MINUS_ONE;
const MADV_DONTNEED = 4n;
const PAGE_BYTES = 4096;

export class Mapping {
  readonly address: bigint;
  readonly bytes: number;
  #buffer: ArrayBuffer | null = null;
  #view: Uint8Array | null = null;

  constructor(address: bigint, bytes: number) {
    this.address = address;
    this.bytes = bytes;
  }

  /**
   * Made when first asked for: V8 counts all its bytes, touched or not, as memory that a garbage collection could free, and
   * for the 256 MB of a worker's buffers it makes one at once, 4 to 6 ms.
   */
  get buffer(): ArrayBuffer {
    this.#buffer ??= viewNative(this.address, this.bytes);
    return this.#buffer;
  }

  /** All bytes of it, always the same object. */
  get view(): Uint8Array {
    this.#view ??= new Uint8Array(this.buffer);
    return this.#view;
  }
}

function map(bytes: number, flags: bigint, fd: bigint, offset: bigint, what: string): Mapping {
  if (nativeRefusal !== '') throw new Error(`Cannot map ${what}: ${nativeRefusal}`);
  const address = native.mmap(0n, BigInt(bytes), PROT_READ_WRITE, flags, fd, offset);
  if (address === MAP_FAILED || address === -1n) {
    throw new Error(`Cannot map ${bytes} bytes for ${what}: mmap failed`);
  }
  return new Mapping(address, bytes);
}

/** Zeroed private memory of at least `bytes` (rounded up to pages), untouched pages cost nothing. */
export function mapMemory(bytes: number, what: string): Mapping {
  const rounded = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
  return map(rounded, MAP_PRIVATE_ANONYMOUS_NORESERVE, MINUS_ONE, 0n, what);
}

/** Maps `bytes` of `fd` at `offset`, shared with the kernel (an io_uring ring). */
export function mapDescriptor(fd: number, bytes: number, offset: number, what: string): Mapping {
  return map(bytes, MAP_SHARED_POPULATE, BigInt(fd), BigInt(offset), what);
}

export function unmap(mapping: Mapping): void {
  native.munmap(mapping.address, BigInt(mapping.bytes));
}

/** Size of a page here: 4 KiB, on some arm64 kernels 16 or 64 KiB. */
export function pageBytes(): number {
  return native.getpagesize();
}

/** Gives the pages of a range back to the kernel; they read as zero afterwards. Whole pages: madvise(2) rounds up. */
export function discardPages(mapping: Mapping, offset: number, bytes: number): void {
  native.madvise(mapping.address + BigInt(offset), BigInt(bytes), MADV_DONTNEED);
}

/** The low and high 32 bits of an address, as signed words for an Int32Array over a submission entry. */
export function addressLow(address: bigint): number {
  return Number(address & 0xffff_ffffn) | 0;
}
export function addressHigh(address: bigint): number {
  return Number((address >> 32n) & 0xffff_ffffn) | 0;
}
