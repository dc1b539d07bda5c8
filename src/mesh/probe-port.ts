// The network side of path-monitor.ts: echo sockets of both families, opened while the process may, and the messages on them.

import { randomBytes } from 'node:crypto';
import { EACCES, EAGAIN, EINTR, EINVAL, ENOBUFS, ENOMEM, EPERM } from '../sys/errno.ts';
import {
  closeEchoSocket,
  type EchoArrival,
  type EchoSocket,
  echoBuffer,
  interfaceIndex,
  openEchoSocket,
  realtimeMs,
  receiveEcho,
  sendEcho,
} from '../sys/icmp.ts';
import {
  ECHO_BYTES_MIN,
  IP_BYTES,
  ipv4HeaderBytes,
  NONCE_BYTES,
  readEcho,
  writeEcho,
} from './path-echo.ts';
import type { EchoAnswer, ProbeAddress, ProbePort, Sent } from './path-monitor.ts';

/** Lacks of this machine or of its permissions: they say nothing about a path. */
const NOT_POSSIBLE: ReadonlySet<number> = new Set(
  [EACCES, EAGAIN, EINTR, EINVAL, ENOBUFS, ENOMEM, EPERM].map((errno) => -errno),
);
/** Packets read in one turn, so that a flood of them does not hold the main thread. */
const RECEIVE_MAX = 4096;

/** Sockets that are open, for openProbePort() later on. */
export interface EchoSockets {
  readonly sockets: readonly EchoSocket[];
  /** -errno of the family that could not be opened, 0 = both are open. */
  readonly problem: number;
}

/** To be called before privileges are dropped. */
export function openEchoSockets(): EchoSockets {
  const results = ([4, 6] as const).map(openEchoSocket);
  const sockets = results.filter((result) => typeof result !== 'number');
  const problem = results.find((result) => typeof result === 'number') ?? 0;
  return { sockets, problem };
}

class EchoPort implements ProbePort {
  readonly #interfaceName: string;
  readonly #sockets: readonly EchoSocket[];
  readonly #nonce = randomBytes(NONCE_BYTES);
  readonly #buffer = echoBuffer();
  #index = 0;

  constructor({ sockets }: EchoSockets, interfaceName: string) {
    this.#interfaceName = interfaceName;
    this.#sockets = sockets;
  }

  send(target: ProbeAddress, slot: number, probe: number, bytes: number): Sent {
    const { family, words } = target;
    const socket = this.#sockets.find((each) => each.family === family);
    if (socket === undefined) return 'not possible';
    if (this.#index === 0) this.#index = interfaceIndex(this.#interfaceName);
    if (this.#index === 0) return 'no way';
    const length = Math.max(ECHO_BYTES_MIN, bytes - IP_BYTES[family]);
    if (length > this.#buffer.length) return 'no way';
    writeEcho(this.#buffer, family, this.#nonce, { slot, probe }, length);
    const result = sendEcho(socket, words, this.#index, length);
    if (result >= 0) return 'sent';
    // The interface may have been made anew.
    this.#index = 0;
    return NOT_POSSIBLE.has(result) ? 'not possible' : 'no way';
  }

  *receive(): Iterable<EchoAnswer> {
    for (const socket of this.#sockets) {
      for (let count = 0; count < RECEIVE_MAX; count++) {
        const arrival = receiveEcho(socket);
        if (typeof arrival === 'number') break;
        const answer = this.#read(socket, arrival);
        if (answer !== null) yield answer;
      }
    }
  }

  #read({ family, isRaw }: EchoSocket, arrival: EchoArrival): EchoAnswer | null {
    const { packet, words, interfaceIndex: cameBy, arrivedMs } = arrival;
    if (cameBy !== 0 && cameBy !== this.#index) return null;
    const headerBytes = isRaw && family === 4 ? ipv4HeaderBytes(packet) : 0;
    if (headerBytes < 0) return null;
    const echo = readEcho(packet.subarray(headerBytes), family, this.#nonce, isRaw);
    return echo && { ...echo, address: { family, words }, arrivedMs };
  }

  arrivalClockMs(): number {
    return realtimeMs();
  }

  close(): void {
    for (const socket of this.#sockets) closeEchoSocket(socket);
  }
}

/** null: no socket could be opened. */
export function openProbePort(opened: EchoSockets, interfaceName: string): ProbePort | null {
  return opened.sockets.length === 0 ? null : new EchoPort(opened, interfaceName);
}
