// One health check: a connection of its own, made, judged and closed. A TCP check ends when the
// connection stands; an HTTP check asks with GET and reads the 13 bytes that hold the status, never
// a body. A backend that expects a PROXY header gets one that names nobody. The owner times it
// (`expire`). The connection ends with RST, so no port of ours is left in TIME_WAIT: 10,000 backends
// every 5 s would keep 120,000 there.

import { connect, type Socket } from 'node:net';
import { PROXY_WRITE_BYTES_MAX, writeProxyHeader } from '../proxy/proxy-protocol-write.ts';
import type { HealthCheck } from './health-spec.ts';

/** `inconclusive`: this machine could not ask (no descriptor, no port); it says nothing of the backend. */
type CheckResult = 'success' | 'failure' | 'inconclusive';

export interface CheckOutcome {
  readonly result: CheckResult;
  /** A few words for the log: `connected`, `HTTP 503`, `connect refused`. */
  readonly reason: string;
}

/** A check under way. */
export interface Probe {
  /** Ends it as failed for lack of an answer within `limit` (`2 s`). */
  expire(limit: string): void;
  /** Ends it without an outcome that matters. */
  cancel(): void;
}

/** Starts a check of `host`, a literal address. `onDone` is called once, later, when the socket is closed. */
export type StartProbe = (
  host: string,
  check: HealthCheck,
  onDone: (outcome: CheckOutcome) => void,
) => Probe;

/** `HTTP/1.1 200` and what follows the status. */
const STATUS_BYTES = 13;
const STATUS_START = /^HTTP\/1\.[01] ([1-5]\d\d)[ \r\n]/;
const VERSION_START = 'HTTP/1.';

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connect refused',
  ECONNRESET: 'connection reset',
  EPIPE: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ETIMEDOUT: 'connect timed out in the kernel',
  EPERM: 'connect not permitted here',
  EACCES: 'connect not permitted here',
};

/** Lacks of this machine (connect(2), socket(2)): judging a backend by them would take all out at once. */
const LOCAL_LACKS: Readonly<Record<string, string>> = {
  EMFILE: 'no descriptor left in this process',
  ENFILE: 'no descriptor left on this machine',
  ENOBUFS: 'no memory for a socket',
  ENOMEM: 'no memory for a socket',
  EADDRNOTAVAIL: 'no local address or port left',
  EAGAIN: 'no local port left',
};

const NOBODY = { family: 0, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 };
const NO_EXTRAS = { country: '', pop: new Uint8Array(0), checksum: false };

function headerOfNobody(version: number): Uint8Array {
  const header = new Uint8Array(PROXY_WRITE_BYTES_MAX);
  return header.subarray(0, writeProxyHeader(header, 0, version, NOBODY, NOBODY, NO_EXTRAS));
}

/** By version: none, UNKNOWN, LOCAL. */
const PROXY_HEADERS = [new Uint8Array(0), headerOfNobody(1), headerOfNobody(2)] as const;

/** Shared by all probes: a read is judged inside its callback, before the next one can happen. */
const readBuffer = Buffer.alloc(64);

function errorOutcome(error: NodeJS.ErrnoException): CheckOutcome {
  const code = error.code ?? 'unknown';
  const lack = LOCAL_LACKS[code];
  if (lack !== undefined) return { result: 'inconclusive', reason: lack };
  return { result: 'failure', reason: REASONS[code] ?? `connect failed: ${code}` };
}

/** The outcome of an answer that starts like this; null when more bytes are needed. */
export function judgeAnswer(start: string, expect: HealthCheck['expect']): CheckOutcome | null {
  const known = Math.min(start.length, VERSION_START.length);
  if (start.slice(0, known) === VERSION_START.slice(0, known) && start.length < STATUS_BYTES) {
    return null;
  }
  const match = STATUS_START.exec(start);
  if (match === null) return { result: 'failure', reason: 'the answer is not HTTP' };
  const status = Number(match[1]);
  const expected = expect.some(({ first, last }) => status >= first && status <= last);
  return { result: expected ? 'success' : 'failure', reason: `HTTP ${status}` };
}

function requestText(host: string, { path, port }: HealthCheck): string {
  const authority = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const head = `GET ${path} HTTP/1.1\r\nHost: ${authority}\r\nUser-Agent: edgeproxy-health-check\r\n`;
  return `${head}Accept: */*\r\nConnection: close\r\n\r\n`;
}

/** One connection and what is known of its outcome. */
class SocketProbe implements Probe {
  readonly #socket: Socket;
  #outcome: CheckOutcome | null = null;
  #answer = '';

  constructor(host: string, check: HealthCheck, onDone: (outcome: CheckOutcome) => void) {
    const onread = { buffer: readBuffer, callback: this.#read.bind(this, check) };
    const to = { host, port: check.port, autoSelectFamily: false };
    this.#socket = connect(check.type === 'http' ? { ...to, onread } : to);
    this.#socket.on('connect', () => {
      const header = PROXY_HEADERS[check.proxyProtocol];
      if (header !== undefined && header.length > 0) this.#socket.write(header);
      if (check.type === 'http') this.#socket.write(requestText(host, check));
      else this.#settle({ result: 'success', reason: 'connected' });
    });
    this.#socket.on('error', (error) => {
      this.#outcome ??= errorOutcome(error);
    });
    this.#socket.on('close', () => {
      onDone(this.#outcome ?? { result: 'failure', reason: 'closed without an answer' });
    });
  }

  #read(check: HealthCheck, bytes: number): boolean {
    this.#answer += readBuffer.toString('latin1', 0, Math.min(bytes, STATUS_BYTES));
    const outcome = judgeAnswer(this.#answer, check.expect);
    if (outcome === null) return true;
    this.#settle(outcome);
    return false;
  }

  #settle(outcome: CheckOutcome): void {
    this.#outcome ??= outcome;
    // A socket that is still connecting has nothing to reset, and resetting it would wait for the connect.
    if (this.#socket.connecting) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  expire(limit: string): void {
    const waiting = this.#socket.connecting ? '' : ' waiting for the answer';
    this.#settle({ result: 'failure', reason: `timeout after ${limit}${waiting}` });
  }

  cancel(): void {
    this.#settle({ result: 'inconclusive', reason: 'no longer wanted' });
  }
}

export const startProbe: StartProbe = (host, check, onDone) => new SocketProbe(host, check, onDone);
