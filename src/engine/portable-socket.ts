// What node:net does to a socket on its own, set right for an engine: it destroys a socket at the first failed write with
// all that its peer had sent unread, it forgets what it had read when a read fails, and it has no RST that is safe to ask
// for at any time. The portable engine uses these instead of the socket's own.

import type net from 'node:net';

/**
 * Reports failed writes to `onFailure`, before the write's callback, and hides them from the stream: the socket stays open
 * and is read to its end, as a kernel's socket is.
 */
export function keepReadable(socket: net.Socket, onFailure: (error: Error) => void): void {
  const write = socket._write;
  socket._write = (chunk, encoding, done) => {
    write.call(socket, chunk, encoding, (error) => {
      if (error) onFailure(error);
      done();
    });
  };
}

/** What a paused socket had read before it failed or ended; null = nothing. */
export function takeUnread(socket: net.Socket): Buffer | null {
  return socket.readableLength === 0 ? null : (socket.read() as Buffer | null);
}

/**
 * Ends a socket by RST. Not by resetAndDestroy(): that ends the stream first, so the peer would see a clean FIN before the
 * RST; the mark it sets makes destroy() reset at once. A connecting socket has no peer to tell.
 */
export function abort(socket: net.Socket): void {
  if (socket.destroyed) return;
  if (socket.writableEnded && !socket.writableFinished) {
    // libuv refuses to reset while a shutdown waits for the next turn of the loop, and the descriptor would stay open.
    socket.once('finish', () => abort(socket));
    return;
  }
  if (!socket.connecting) Object.assign(socket, { resetAndClosing: true });
  socket.destroy();
}
