// What node:net does to a socket on its own, set right for an engine: it has no RST that is safe to ask for at any time.

import type net from 'node:net';

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
