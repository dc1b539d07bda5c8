// The demo's sample backends: small servers that say their name, over HTTP or as a line echo, on
// one port each. They run in the proxy's main thread, which has next to nothing to do while the
// workers move the bytes.

import { createServer, type Server as HttpServer } from 'node:http';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { ProxyError } from '../base/errors.ts';

export interface DemoBackend {
  readonly id: string;
  readonly region: string;
  readonly port: number;
}

export const DEMO_HOST = '127.0.0.1';
export const DEMO_BACKENDS: readonly DemoBackend[] = [
  { id: 'demo-sa', region: 'sa', port: 9001 },
  { id: 'demo-us', region: 'us', port: 9002 },
  { id: 'demo-eu', region: 'eu', port: 9003 },
];

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'CONNECT'];
/** A demo line longer than this is cut into several answers: memory stays bounded. */
const LINE_BYTES_MAX = 16_384;

/** Whether the first bytes begin an HTTP request; null while they could still become one. */
function looksLikeHttp(text: string): boolean | null {
  if (METHODS.some((method) => text.startsWith(`${method} `))) return true;
  return METHODS.some((method) => `${method} `.startsWith(text)) ? null : false;
}

function createHttp({ id, region }: DemoBackend): HttpServer {
  const server = createServer((request, response) => {
    request.resume();
    const body = `Hello from ${id} (region ${region})\n`;
    response.writeHead(200, {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': Buffer.byteLength(body),
      'x-backend': id,
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  });
  // CONNECT and upgrades have no meaning here; without a listener they would cut the connection
  // unanswered.
  server.on('connect', (_request, socket) => {
    socket.end('HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n');
  });
  return server;
}

/** Answers every line with `id: line`, and what is left at the end likewise. */
function echoLines(id: string, socket: Socket, first: string): void {
  let rest = '';
  const say = (line: string): boolean => socket.write(`${id}: ${line}\n`, 'latin1');
  const take = (text: string): void => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() as string;
    for (const line of lines) say(line);
    if (rest.length < LINE_BYTES_MAX) return;
    say(rest);
    rest = '';
  };
  socket.on('data', (chunk: Buffer) => {
    take(chunk.toString('latin1'));
    if (!socket.writableNeedDrain) return;
    socket.pause();
    socket.once('drain', () => socket.resume());
  });
  socket.on('end', () => {
    if (rest !== '') say(rest);
    socket.end();
  });
  take(first);
}

/** Not listening yet; `sockets` holds its open connections. */
export function createDemoBackend(backend: DemoBackend, sockets: Set<Socket>): Server {
  const http = createHttp(backend);
  // Half-open, so that a client that sends and shuts down still gets its answer.
  return createTcpServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    let text = '';
    const atEnd = (): void => {
      if (text !== '') socket.write(`${backend.id}: ${text}\n`, 'latin1');
      socket.end();
    };
    const peek = (chunk: Buffer): void => {
      // latin1 keeps every byte, whatever the client's encoding.
      text += chunk.toString('latin1');
      const isHttp = looksLikeHttp(text);
      if (isHttp === null) return;
      socket.off('data', peek);
      socket.off('end', atEnd);
      if (!isHttp) {
        echoLines(backend.id, socket, text);
        return;
      }
      socket.pause();
      socket.unshift(Buffer.from(text, 'latin1'));
      http.emit('connection', socket);
      socket.resume();
    };
    socket.on('data', peek);
    socket.on('end', atEnd);
  });
}

/** The failure of a listen, with what to do about it. */
function listenError(error: NodeJS.ErrnoException, host: string, port: number): ProxyError {
  const reason =
    error.code === 'EADDRINUSE'
      ? `the port is in use; see by whom with "ss -ltnp sport = :${port}" and stop that program`
      : error.message;
  return new ProxyError('ERR_DEMO_PORT', `Cannot start the demo on ${host}:${port}: ${reason}`, {
    cause: error,
  });
}

export async function listenOn(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, host, port)));
    server.listen(port, host, resolve);
  });
}

/** Starts all of them, or none: throws a ProxyError that names the port. */
export async function startDemoBackends(): Promise<{ close(): void }> {
  const sockets = new Set<Socket>();
  const servers: Server[] = [];
  const close = (): void => {
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
  };
  try {
    for (const backend of DEMO_BACKENDS) {
      const server = createDemoBackend(backend, sockets);
      await listenOn(server, DEMO_HOST, backend.port);
      servers.push(server);
    }
  } catch (error) {
    close();
    throw error;
  }
  return { close };
}
