// The submission side of one ring: entries are written as integers in a typed array over the kernel's queue, and handed to
// the kernel by one native call per batch. Identity is the caller's: user_data's low word is the endpoint, the high word
// whatever `identity` says. What an entry points to (addresses, a timeout) lives in an area of its own until submission.

import { assert } from '../base/assert.ts';
import { EAGAIN, EBUSY, EINTR, errnoName } from '../sys/errno.ts';
import { addressHigh, addressLow, type Mapping, mapMemory, unmap } from '../sys/memory.ts';
import { encodeSockaddrWords, SOCKADDR_STRIDE } from '../sys/sockaddr.ts';
import { enterRing, type Ring } from '../sys/uring.ts';
import * as abi from '../sys/uring-abi.ts';

const NO_OFFSET = -1;
const TIMER_AREA = 0;
const WAKE_AREA = 16;
const AREA_BYTES = 64;
/** Tries to hand a full queue over while the kernel is short of memory; then the worker ends. */
const FULL_ATTEMPTS = 100;
/** The identity of entries whose completion says nothing: their success is not reported at all. */
export const OP_IGNORED = 16;

export class UringEntries {
  readonly #ring: Ring;
  readonly #words: Int32Array;
  readonly #sqes: Int32Array;
  /** Timer and wake words, then one socket address per entry (copied by the kernel at submission). */
  readonly #area: Mapping;
  readonly #areaView: DataView;
  readonly #areaWords: Int32Array;
  readonly #areaLow: number;
  readonly #areaHigh: number;
  #tail: number;
  #toSubmit = 0;

  constructor(ring: Ring) {
    this.#ring = ring;
    this.#words = ring.words;
    this.#sqes = ring.sqes;
    this.#tail = ring.words[ring.sqTail];
    this.#area = mapMemory(AREA_BYTES + ring.sqEntries * SOCKADDR_STRIDE, 'uring addresses');
    this.#areaView = new DataView(this.#area.buffer);
    this.#areaWords = new Int32Array(this.#area.buffer);
    this.#areaLow = addressLow(this.#area.address);
    this.#areaHigh = addressHigh(this.#area.address);
  }

  /** A zeroed entry: the offset of its first word. When the queue is full, what is queued is submitted first. */
  #entry(opcodeWord: number, fd: number, endpoint: number, identity: number): number {
    if (this.#toSubmit === this.#ring.sqEntries) this.#makeRoom();
    const sqes = this.#sqes;
    const at = (this.#tail & this.#ring.sqMask) * abi.SQE_WORDS;
    this.#tail = (this.#tail + 1) | 0;
    this.#toSubmit++;
    sqes[at] = opcodeWord;
    sqes[at + abi.SQE_FD] = fd;
    sqes[at + abi.SQE_OFF_LOW] = 0;
    sqes[at + abi.SQE_OFF_HIGH] = 0;
    sqes[at + abi.SQE_ADDR_LOW] = 0;
    sqes[at + abi.SQE_ADDR_HIGH] = 0;
    sqes[at + abi.SQE_LEN] = 0;
    sqes[at + abi.SQE_OP_FLAGS] = 0;
    sqes[at + abi.SQE_USER_DATA_LOW] = endpoint;
    sqes[at + abi.SQE_USER_DATA_HIGH] = identity;
    sqes[at + abi.SQE_BUF_GROUP] = 0;
    sqes[at + 11] = 0;
    sqes[at + 12] = 0;
    sqes[at + 13] = 0;
    return at;
  }

  /** An entry written over one the kernel has not taken would lose an operation without a trace. */
  #makeRoom(): void {
    for (let attempt = 0; attempt < FULL_ATTEMPTS; attempt++) {
      this.submit(0);
      if (this.#toSubmit < this.#ring.sqEntries) return;
    }
    assert(false, 'The kernel takes no submission entries');
  }

  /** Hands the queue to the kernel; `minComplete` 1 waits. Returns false when interrupted by a signal. */
  submit(minComplete: number): boolean {
    this.#words[this.#ring.sqTail] = this.#tail;
    const result = enterRing(this.#ring, this.#toSubmit, minComplete);
    if (result >= 0) {
      this.#toSubmit -= result;
      return true;
    }
    // EINTR: a signal came while waiting. EBUSY, EAGAIN: the completion queue or memory is short; reap, then go on.
    // Entries taken before the error are recognised by the head, which the kernel advances as it consumes them.
    this.#toSubmit = (this.#tail - this.#words[this.#ring.sqHead]) | 0;
    if (result === -EINTR || result === -EBUSY || result === -EAGAIN) return false;
    throw new Error(`Cannot enter io_uring: ${errnoName(result)}`);
  }

  accept(listener: number, tag: number, identity: number, multishot: boolean): void {
    const flags = multishot ? abi.IORING_ACCEPT_MULTISHOT : 0;
    const opcode = abi.IORING_OP_ACCEPT | (flags << 16);
    const at = this.#entry(opcode, listener, tag, identity);
    this.#sqes[at + abi.SQE_OP_FLAGS] = abi.SOCK_CLOEXEC;
  }

  connect(
    socket: number,
    endpoint: number,
    identity: number,
    family: number,
    words: Uint32Array,
    offset: number,
    port: number,
  ): void {
    const at = this.#entry(abi.IORING_OP_CONNECT, socket, endpoint, identity);
    const area = AREA_BYTES + (at / abi.SQE_WORDS) * SOCKADDR_STRIDE;
    const bytes = encodeSockaddrWords(this.#areaWords, area / 4, family, words, offset, port);
    this.#address(at, area);
    this.#sqes[at + abi.SQE_OFF_LOW] = bytes;
  }

  /** Receives into buffers of `group`; with IORING_RECV_MULTISHOT in `flags` until told otherwise, else into one. */
  receive(socket: number, endpoint: number, identity: number, group: number, flags: number): void {
    const opcode = abi.IORING_OP_RECV | (abi.IOSQE_BUFFER_SELECT << 8) | (flags << 16);
    const at = this.#entry(opcode, socket, endpoint, identity);
    this.#sqes[at + abi.SQE_BUF_GROUP] = group;
  }

  /** Sends `bytes` at `offset` of the buffer at the address given by its two words. */
  send(
    socket: number,
    endpoint: number,
    identity: number,
    low: number,
    high: number,
    offset: number,
    bytes: number,
  ): void {
    const at = this.#entry(abi.IORING_OP_SEND, socket, endpoint, identity);
    const sqes = this.#sqes;
    sqes[at + abi.SQE_ADDR_LOW] = low + offset;
    sqes[at + abi.SQE_ADDR_HIGH] = high;
    // Buffers are page aligned, not aligned to their size, so one of them may reach across a multiple of 4 GiB.
    if (offset > 0 && (low >>> 0) + offset > 0xffff_ffff) sqes[at + abi.SQE_ADDR_HIGH] = high + 1;
    sqes[at + abi.SQE_LEN] = bytes;
    sqes[at + abi.SQE_OP_FLAGS] = abi.MSG_NOSIGNAL | abi.MSG_WAITALL;
  }

  /** One readiness notification for `socket`: `mask` as in poll(2). */
  poll(socket: number, endpoint: number, identity: number, mask: number): void {
    const at = this.#entry(abi.IORING_OP_POLL_ADD, socket, endpoint, identity);
    this.#sqes[at + abi.SQE_OP_FLAGS] = mask;
  }

  /** Cancels the operation of this identity. */
  cancel(endpoint: number, identity: number): void {
    const opcode = abi.IORING_OP_ASYNC_CANCEL | (abi.IOSQE_CQE_SKIP_SUCCESS << 8);
    const at = this.#entry(opcode, -1, 0, OP_IGNORED);
    this.#sqes[at + abi.SQE_ADDR_LOW] = endpoint;
    this.#sqes[at + abi.SQE_ADDR_HIGH] = identity;
  }

  /** Cancels whatever is in flight on `socket`. */
  cancelSocket(socket: number): void {
    const opcode = abi.IORING_OP_ASYNC_CANCEL | (abi.IOSQE_CQE_SKIP_SUCCESS << 8);
    const at = this.#entry(opcode, socket, 0, OP_IGNORED);
    this.#sqes[at + abi.SQE_OP_FLAGS] = abi.IORING_ASYNC_CANCEL_FD | abi.IORING_ASYNC_CANCEL_ALL;
  }

  close(socket: number): void {
    const opcode = abi.IORING_OP_CLOSE | (abi.IOSQE_CQE_SKIP_SUCCESS << 8);
    this.#entry(opcode, socket, 0, OP_IGNORED);
  }

  #address(at: number, area: number): void {
    // The area is page aligned and far smaller than 4 GiB; a carry out of the low word is handled all the same.
    const low = (this.#areaLow >>> 0) + area;
    this.#sqes[at + abi.SQE_ADDR_LOW] = low | 0;
    this.#sqes[at + abi.SQE_ADDR_HIGH] = this.#areaHigh + (low > 0xffff_ffff ? 1 : 0);
  }

  /** Reads an eventfd: completes when it is signalled. */
  readWake(wakeFd: number, identity: number): void {
    const at = this.#entry(abi.IORING_OP_READ, wakeFd, 0, identity);
    this.#address(at, WAKE_AREA);
    this.#sqes[at + abi.SQE_LEN] = 8;
    this.#sqes[at + abi.SQE_OFF_LOW] = NO_OFFSET;
    this.#sqes[at + abi.SQE_OFF_HIGH] = NO_OFFSET;
  }

  timer(timeoutMs: number, identity: number): void {
    const whole = Math.floor(timeoutMs / 1000);
    this.#areaView.setUint32(TIMER_AREA, whole, true);
    this.#areaView.setUint32(TIMER_AREA + 8, Math.round((timeoutMs - whole * 1000) * 1e6), true);
    const at = this.#entry(abi.IORING_OP_TIMEOUT, -1, 0, identity);
    this.#address(at, TIMER_AREA);
    this.#sqes[at + abi.SQE_LEN] = 1;
  }

  end(): void {
    unmap(this.#area);
  }
}
