// The socket by which a userspace WireGuard is configured and asked (wireguard.com/xplatform): one operation per
// connection, text, closed by an empty line. Needs no program of the system.

import { connect } from 'node:net';
import { getSystemErrorName } from 'node:util';
import { ProxyError } from '../base/errors.ts';

const SOCKET_FOLDER = '/var/run/wireguard';
const ANSWER_MS_MAX = 10_000;

function uapiPath(name: string): string {
  return `${SOCKET_FOLDER}/${name}.sock`;
}

function uapiError(name: string, reason: string, cause: unknown = undefined): ProxyError {
  const message = `Cannot ask the userspace device "${name}" at ${uapiPath(name)}: ${reason}`;
  return new ProxyError('ERR_MESH_UAPI', message, { retry: 'always', cause });
}

/** What an errno of its answer means. */
function refusalText(errno: number): string {
  const code = getSystemErrorName(-Math.abs(errno)) ?? `errno ${errno}`;
  const hint = code === 'EADDRINUSE' ? '; its UDP port is taken, EDGEPROXY_MESH_LISTEN_PORT' : '';
  return `it refused, ${code}${hint}`;
}

/** The answer to an operation, without its last line `errno=0`. Throws ProxyError. */
export function askUapi(name: string, operation: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(uapiPath(name));
    let text = '';
    socket.setEncoding('utf8');
    socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy(uapiError(name, 'no answer in time')));
    socket.on('connect', () => socket.write(operation));
    socket.on('data', (chunk) => {
      text += chunk as unknown as string;
      const end = /(?:^|\n)errno=(-?\d+)\n\n/.exec(text);
      if (end === null) return;
      socket.destroy();
      if (end[1] === '0') resolve(text.slice(0, end.index + 1));
      else reject(uapiError(name, refusalText(Number(end[1]))));
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      reject(error instanceof ProxyError ? error : uapiError(name, error.code ?? '', error));
    });
    socket.on('close', () => reject(uapiError(name, 'it closed without an answer')));
  });
}

/** Whether a process answers there; a connection alone tells nothing, one that is being killed takes them too. */
export async function hasUapi(name: string): Promise<boolean> {
  try {
    await askUapi(name, 'get=1\n\n');
    return true;
  } catch {
    return false;
  }
}

/** Calls `onEnd` once when the process at the other end is gone. An idle connection is all it costs. */
export function watchUapi(name: string, onEnd: () => void): { close(): void } {
  let closed = false;
  const socket = connect(uapiPath(name));
  // Data is not expected, but unread data would hide the end.
  socket.resume();
  socket.on('error', () => {});
  socket.on('close', () => {
    if (!closed) onEnd();
  });
  return {
    close: () => {
      closed = true;
      socket.destroy();
    },
  };
}
