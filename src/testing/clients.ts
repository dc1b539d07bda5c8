// Clients for tests: open a connection from any loopback address, read it to its end, and tell a clean end from a reset.

import { createHash } from 'node:crypto';
import { connect as netConnect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostPort } from './proxy-process.ts';
import { within } from './wait.ts';

/** How a stream ended for its reader: FIN, or the error (`ECONNRESET`). */
export type StreamEnd = 'fin' | (string & {});

export interface ClientOptions {
  /** Any of 127.0.0.0/8: the proxy's clients are told apart by address. */
  readonly from?: string;
}

/** An open connection; it stays open for writing when the peer has ended. Never throws later: see `readToEnd`. */
export function openClient(at: HostPort, options: ClientOptions = {}): Promise<Socket> {
  const socket = netConnect({
    ...at,
    allowHalfOpen: true,
    noDelay: true,
    ...(options.from === undefined ? {} : { localAddress: options.from }),
  });
  const opened = new Promise<Socket>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      socket.on('error', () => {});
      resolve(socket);
    });
  });
  return within(`a connection to ${at.host}:${at.port}`, opened);
}

export interface ReadResult {
  readonly bytes: Buffer;
  readonly end: StreamEnd;
}

/** Everything until the end of the stream, and how it ended. */
export function readToEnd(socket: Socket): Promise<ReadResult> {
  const chunks: Buffer[] = [];
  const done = new Promise<ReadResult>((resolve) => {
    const finish = (end: StreamEnd): void => resolve({ bytes: Buffer.concat(chunks), end });
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.once('end', () => finish('fin'));
    socket.once('error', (error: NodeJS.ErrnoException) => finish(error.code ?? error.message));
    socket.once('close', () => finish('closed'));
    if (socket.closed) finish((socket.errored as NodeJS.ErrnoException | null)?.code ?? 'closed');
    socket.resume();
  });
  return within('the end of a stream', done);
}

/** Sends `text`, then FIN, and reads to the end. */
export async function exchange(
  at: HostPort,
  text: string,
  options: ClientOptions = {},
): Promise<{ text: string; end: StreamEnd }> {
  const socket = await openClient(at, options);
  const reading = readToEnd(socket);
  socket.end(text);
  const { bytes, end } = await reading;
  socket.destroy();
  return { text: bytes.toString(), end };
}

/** What becomes of a client that says nothing: a connect that is reset already counts as an end, too. */
export async function clientFate(at: HostPort, options: ClientOptions = {}): Promise<ReadResult> {
  try {
    const socket = await openClient(at, options);
    const result = await readToEnd(socket);
    socket.destroy();
    return result;
  } catch (error) {
    // An RST may arrive before the client has seen its own connect succeed.
    return { bytes: Buffer.alloc(0), end: (error as NodeJS.ErrnoException).code ?? String(error) };
  }
}

/** As many clients as can be opened at once; `from` gives each its own address. Those turned away are left out. */
export async function openClients(
  at: HostPort,
  count: number,
  from: (index: number) => string,
): Promise<Socket[]> {
  const opening = Array.from({ length: count }, (_, index) =>
    openClient(at, { from: from(index) }),
  );
  const results = await Promise.allSettled(opening);
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}

/** The name of the backend a new client gets, or '' when it is turned away. */
export async function backendName(at: HostPort, options: ClientOptions = {}): Promise<string> {
  try {
    return (await exchange(at, '', options)).text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNRESET') return '';
    throw error;
  }
}

/** Of an answer that was not expected. */
const SHOWN_CHARS = 80;

/** Exactly `bytes` bytes of what comes next. */
export async function readBytes(socket: Socket, bytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let missing = bytes;
  const done = new Promise<Buffer>((resolve, reject) => {
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk);
      missing -= chunk.length;
      if (missing > 0) return;
      stop();
      if (missing < 0) reject(new Error(`Got ${-missing} bytes too many`));
      else resolve(Buffer.concat(chunks));
    };
    const onEnd = (): void => {
      stop();
      reject(new Error(`The stream ended ${missing} bytes too early`));
    };
    const onError = (error: Error): void => {
      stop();
      reject(error);
    };
    const stop = (): void => {
      socket.pause();
      socket.off('data', onData);
      socket.off('end', onEnd);
      socket.off('error', onError);
    };
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('error', onError);
    socket.resume();
  });
  try {
    return await within(`${bytes} bytes`, done);
  } catch (cause) {
    // A wrong answer must not look like none.
    const got = Buffer.concat(chunks).toString().slice(0, SHOWN_CHARS);
    if (got === '') throw cause;
    throw new Error(`Got ${JSON.stringify(got)} where ${bytes} bytes were expected`, { cause });
  }
}

/** Sends a message and reads as many bytes back; throws when they differ. */
export async function echoOnce(socket: Socket, text: string): Promise<void> {
  const reading = readBytes(socket, Buffer.byteLength(text));
  socket.write(text);
  const answer = (await reading).toString();
  if (answer !== text) throw new Error(`Sent ${text}, got ${answer} back`);
}

const BLOCK_BYTES = 64 * 1024;

/** Deterministic bytes: no two blocks are the same, so a lost, doubled or swapped one changes the hash. */
function* blocks(bytes: number, seed: number): Generator<Buffer> {
  const base = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at++) base[at] = (at * 31 + seed) & 0xff;
  for (let sent = 0; sent < bytes; sent += BLOCK_BYTES) {
    const block = Buffer.from(base.subarray(0, Math.min(BLOCK_BYTES, bytes - sent)));
    if (block.length >= 8) block.writeDoubleLE(sent + seed, 0);
    yield block;
  }
}

/** Writes `bytes` deterministic bytes, heeding back-pressure, and returns their hash. The stream stays open. */
export async function sendBulk(socket: Socket, bytes: number, seed: number): Promise<string> {
  const hash = createHash('sha1');
  for (const block of blocks(bytes, seed)) {
    hash.update(block);
    if (!socket.write(block)) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const closed = (): void => reject(new Error('The connection closed while sending'));
      socket.once('drain', resolve);
      socket.once('close', closed);
      await promise;
      socket.off('close', closed);
    }
  }
  return hash.digest('hex');
}

/** How eagerly a reader reads: a slow one rests after each `restEvery` bytes. */
export interface ReadPace {
  readonly restEvery: number;
  readonly restMs: number;
}

export interface HashResult {
  readonly bytes: number;
  readonly hash: string;
  readonly end: StreamEnd;
}

/** Reads and hashes until the end, or until `bytes` have come (then `end` is ''). */
export async function hashStream(
  socket: Socket,
  bytes = Number.POSITIVE_INFINITY,
  pace: ReadPace | null = null,
): Promise<HashResult> {
  const hash = createHash('sha1');
  let count = 0;
  let rested = 0;
  const { promise, resolve } = Promise.withResolvers<StreamEnd>();
  const onData = (chunk: Buffer): void => {
    hash.update(chunk);
    count += chunk.length;
    if (count >= bytes) {
      resolve('');
    } else if (pace !== null && count - rested >= pace.restEvery) {
      rested = count;
      socket.pause();
      void delay(pace.restMs).then(() => socket.resume());
    }
  };
  socket.on('data', onData);
  socket.once('end', () => resolve('fin'));
  socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  socket.once('close', () => resolve('closed'));
  socket.resume();
  const end = await within('a bulk transfer', promise, 60_000);
  socket.off('data', onData);
  if (end === '') socket.pause();
  return { bytes: count, hash: hash.digest('hex'), end };
}
