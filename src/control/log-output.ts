// Lines to standard output that never block and never pile up: what the reader does not take in time waits up to a bound,
// then lines are dropped and counted. Whole lines go out in writes of at most PIPE_BUF bytes, which pipes take whole or not
// at all (pipe(7)), so that lines of others in the same pipe do not end up in the middle of ours.

import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';

const PIPE_BUF = 4096;
/** Some 3,000 lines. */
const WAITING_BYTES_MAX = 1_048_576;
/** Writes in one turn of the event loop, 256 KiB. */
const WRITES_PER_TURN = 64;
/** Lines already written that are kept in the list until it is moved. */
const LINES_TAKEN_MAX = 1000;
const NEWLINE = 10;
const RETRY_MS_MIN = 5;
const RETRY_MS_MAX = 100;
/** How long the last lines may take when the program ends. */
const LAST_MS = 250;
const LAST_PAUSE_MS = 2;

interface Target {
  readonly fd: number;
  readonly close: () => void;
  /** Kept from the garbage collector, which would close the descriptor with it. */
  readonly socket?: Socket;
}

/**
 * A descriptor that answers EAGAIN instead of blocking. A pipe or terminal is opened anew, because O_NONBLOCK on the given
 * descriptor would hold for everyone who has it (open(2)); a socket cannot be, and gets the flag. A file does not block,
 * and must not be opened anew: it would be written from its start.
 */
function openNonblocking(fd: number): Target {
  const asItIs: Target = { fd, close: () => {} };
  const stat = fstatSync(fd);
  if (stat.isFile()) return asItIs;
  try {
    const twin = openSync(
      `/proc/self/fd/${fd}`,
      constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY,
    );
    return { fd: twin, close: () => closeSync(twin) };
  } catch {
    if (!stat.isSocket() && !stat.isFIFO()) return asItIs;
    // Only for what making it does to the descriptor; nothing is ever written through it.
    const socket = new Socket({ fd, readable: false, writable: true }).unref();
    return { ...asItIs, socket };
  }
}

export class LogOutput {
  /** null: there is nothing to write to, or no more. */
  #target: Target | null;
  readonly #lines: string[] = [];
  /** Index of the first line not taken yet: shift() would move them all. */
  #first = 0;
  #waitingBytes = 0;
  /** What one write did not take. */
  #rest: Buffer = Buffer.alloc(0);
  #retry: NodeJS.Timeout | null = null;
  #retryMs = RETRY_MS_MIN;
  #turn: NodeJS.Immediate | null = null;
  /** Lines that nobody will read. */
  dropped = 0;

  constructor(fd: number) {
    try {
      this.#target = openNonblocking(fd);
    } catch {
      this.#target = null;
    }
  }

  /** Takes a line with its newline; written by the next flush(). Dropped when too much waits already. */
  add(line: string): void {
    if (this.isFull) {
      this.dropped++;
      return;
    }
    this.#lines.push(line);
    this.#waitingBytes += line.length;
  }

  /** A line added now would be dropped. */
  get isFull(): boolean {
    return this.#target === null || this.#waitingBytes >= WAITING_BYTES_MAX;
  }

  /** Writes what the reader takes now; the rest goes on by itself. */
  flush(): void {
    if (this.#retry !== null || this.#turn !== null) return;
    for (let writes = 0; writes < WRITES_PER_TURN; writes++) {
      if (!this.#hasMore()) return;
      if (!this.#write()) {
        this.#retry = setTimeout(() => {
          this.#retry = null;
          this.flush();
        }, this.#retryMs).unref();
        this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * 2);
        return;
      }
      this.#retryMs = RETRY_MS_MIN;
    }
    this.#turn = setImmediate(() => {
      this.#turn = null;
      this.flush();
    });
  }

  #hasMore(): boolean {
    return this.#rest.length > 0 || this.#first < this.#lines.length;
  }

  /** One write. False: the reader takes nothing now. */
  #write(): boolean {
    if (this.#target === null) {
      this.#dropAll();
      return true;
    }
    if (this.#rest.length === 0) this.#rest = this.#take();
    try {
      this.#rest = this.#rest.subarray(writeSync(this.#target.fd, this.#rest));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') return false;
      this.#dropRest();
      // No reader any more. Anything else (a full disk) may be over with the next line.
      if (code === 'EPIPE' || code === 'EBADF') {
        this.#target.close();
        this.#target = null;
      }
    }
    return true;
  }

  /** Lines for one write, at least one. */
  #take(): Buffer {
    let text = '';
    while (this.#first < this.#lines.length) {
      const line = this.#lines[this.#first] as string;
      if (text !== '' && text.length + line.length > PIPE_BUF) break;
      text += line;
      this.#waitingBytes -= line.length;
      this.#first++;
    }
    if (this.#first > LINES_TAKEN_MAX || this.#first === this.#lines.length) {
      this.#lines.splice(0, this.#first);
      this.#first = 0;
    }
    return Buffer.from(text);
  }

  #dropRest(): void {
    for (const byte of this.#rest) if (byte === NEWLINE) this.dropped++;
    this.#rest = Buffer.alloc(0);
  }

  #dropAll(): void {
    this.#dropRest();
    this.dropped += this.#lines.length - this.#first;
    this.#lines.length = 0;
    this.#first = 0;
    this.#waitingBytes = 0;
  }

  /** Writes what it can within a moment, drops the rest. */
  close(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.#turn !== null) clearImmediate(this.#turn);
    const pause = new Int32Array(new SharedArrayBuffer(4));
    for (let waitedMs = 0; this.#hasMore() && waitedMs < LAST_MS; ) {
      if (this.#write()) continue;
      Atomics.wait(pause, 0, 0, LAST_PAUSE_MS);
      waitedMs += LAST_PAUSE_MS;
    }
    this.#dropAll();
    this.#target?.close();
    this.#target = null;
  }
}
