// The configuration socket of a userspace device, /var/run/wireguard/NAME.sock, on which wg(8) works: one operation after the
// other by connection, mode 0600. The device ends when the socket's file is removed; `onRemoved` says so.

import { chmodSync, mkdirSync, statSync, unlinkSync, watch } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { formatGet, parseSet, type UapiChange, UapiError, type UapiState } from './uapi.ts';

export const UAPI_DIRECTORY = '/var/run/wireguard';
/** A longer operation is refused: some 4000 peers with a few prefixes each. */
const OPERATION_BYTES_MAX = 4 * 1024 * 1024;
const EINVAL = 22;
const EPROTO = 71;

export interface UapiHandler {
  state(): UapiState;
  /** 0 or a positive errno. Throws a UapiError or RangeError for what is refused. */
  set(change: UapiChange): number;
}

function answerSet(handler: UapiHandler, lines: readonly string[]): string {
  let errno = 0;
  try {
    errno = handler.set(parseSet(lines));
  } catch (error) {
    if (error instanceof UapiError) errno = error.errno;
    else if (error instanceof RangeError) errno = EINVAL;
    else throw error;
  }
  return `errno=${errno}\n\n`;
}

function answer(handler: UapiHandler, operation: string): string {
  const [first, ...lines] = operation.split('\n');
  if (first === 'set=1') return answerSet(handler, lines);
  if (first === 'get=1' && lines.length === 0) {
    return `${[...formatGet(handler.state()), 'errno=0'].join('\n')}\n\n`;
  }
  return `errno=${EPROTO}\n\n`;
}

function serve(socket: Socket, handler: UapiHandler): void {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: string) => {
    text += chunk;
    for (;;) {
      const end = text.indexOf('\n\n');
      if (end < 0) break;
      const operation = text.slice(0, end);
      text = text.slice(end + 2);
      socket.write(answer(handler, operation));
    }
    if (text.length > OPERATION_BYTES_MAX) socket.destroy();
  });
}

/** Whether somebody answers on the socket. */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function inode(path: string): number {
  try {
    return statSync(path).ino;
  } catch {
    return 0;
  }
}

/** Closed by dispose, which removes the file if it is still this server's. */
export async function openUapi(
  path: string,
  handler: UapiHandler,
  onRemoved: () => void,
): Promise<Disposable> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  if (await isServed(path)) throw new Error(`Cannot serve ${path}: another process does`);
  removeFile(path);
  const server: Server = createServer((socket) => serve(socket, handler));
  const umask = process.umask(0o077);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(umask);
  }
  chmodSync(path, 0o600);
  const own = inode(path);
  const watcher = watch(dirname(path), () => {
    if (inode(path) === own) return;
    watcher.close();
    onRemoved();
  });
  watcher.on('error', onRemoved);
  return {
    [Symbol.dispose]() {
      watcher.close();
      const isOwn = inode(path) === own;
      server.close();
      if (isOwn) removeFile(path);
    },
  };
}
