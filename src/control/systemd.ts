// What a service manager and its service say to each other: sockets it passes (sd_listen_fds(3)) and states it is told of
// (sd_notify(3)). The variables are taken out of the environment, so that no child believes them meant for it.

import { readFileSync } from 'node:fs';
import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import type { Logger } from '../base/log.ts';
import { ConfigError } from '../config.ts';
import { EAGAIN, errnoName } from '../sys/errno.ts';
import { nativeRefusal } from '../sys/native.ts';
import { closeDescriptor } from '../sys/socket.ts';

type Environment = Record<string, string | undefined>;

/** SD_LISTEN_FDS_START. */
const DESCRIPTOR_FIRST = 3;
const DESCRIPTORS_MAX = 10_000;
const RETRY_MS = 10;
const RETRIES_MAX = 20;

/** A socket that came with the start. */
export interface PassedSocket {
  readonly descriptor: number;
  /** As LISTEN_FDNAMES has it: the name of the .socket unit unless that says otherwise; '' when unnamed. */
  readonly name: string;
}

/** The sockets passed to this process; none when LISTEN_PID names another one. */
export function takePassedSockets(env: Environment): PassedSocket[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID']) {
    delete env[name];
  }
  if (count === undefined || Number(pid) !== process.pid) return [];
  const sockets = Number(count);
  if (!Number.isInteger(sockets) || sockets < 0 || sockets > DESCRIPTORS_MAX) {
    throw new ConfigError([`LISTEN_FDS is "${count}", allowed: a whole number of passed sockets`]);
  }
  const list = names?.split(':') ?? [];
  return Array.from({ length: sockets }, (_, index) => ({
    descriptor: DESCRIPTOR_FIRST + index,
    name: list[index] ?? '',
  }));
}

/** Whether a process belongs to the same service as this one, so that the manager may be told to follow it instead. */
export function isSameService(pid: number): boolean {
  try {
    return (
      readFileSync(`/proc/${pid}/cgroup`, 'utf8') === readFileSync('/proc/self/cgroup', 'utf8')
    );
  } catch {
    return false;
  }
}

/** Tells the service manager how this service is; without one, everything it is told goes nowhere. */
export class ServiceNotifier {
  readonly #logger: Logger;
  /** Where messages go, '' = nowhere. */
  #address: string;
  #failed = false;
  #sending = Promise.resolve();

  /** Takes NOTIFY_SOCKET out of the environment. */
  constructor(env: Environment, logger: Logger) {
    this.#logger = logger;
    this.#address = env.NOTIFY_SOCKET ?? '';
    delete env.NOTIFY_SOCKET;
    if (this.#address === '') return;
    if (nativeRefusal !== '') this.#fail(nativeRefusal);
    else if (!/^[/@]/.test(this.#address)) this.#fail('only unix sockets are supported');
  }

  get address(): string {
    return this.#address;
  }

  /** From now on to `address`; '' = nobody. What was sent before still goes where it was meant to. */
  redirect(address: string): void {
    this.#address = address;
  }

  /** Sends the variables in one message; messages arrive in order. */
  send(variables: Readonly<Record<string, string | number>>): Promise<void> {
    const address = this.#address;
    if (address === '') return Promise.resolve();
    const lines = Object.entries(variables).map(
      // A line break would start another variable.
      ([name, value]) => `${name}=${String(value).replaceAll('\n', ' ')}`,
    );
    this.#sending = this.#sending.then(() => this.#deliver(address, lines.join('\n')));
    return this.#sending;
  }

  /** A manager that is busy lets its queue fill up; nothing waits for it but the next message. */
  async #deliver(address: string, text: string): Promise<void> {
    const { openUnixSocket, sendDatagram } = await import('../sys/unix-socket.ts');
    const socket = openUnixSocket('datagrams');
    let result = socket;
    for (let attempt = 0; socket >= 0; attempt++) {
      result = sendDatagram(socket, address, text);
      if (result !== -EAGAIN || attempt === RETRIES_MAX) break;
      await setTimeoutPromise(RETRY_MS);
    }
    if (socket >= 0) closeDescriptor(socket);
    if (result < 0) this.#fail(errnoName(result));
  }

  #fail(reason: string): void {
    if (!this.#failed) {
      this.#logger.warn('The service manager cannot be notified', {
        socket: this.#address,
        reason,
      });
    }
    this.#failed = true;
  }
}
