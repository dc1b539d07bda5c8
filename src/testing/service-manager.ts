// A service manager for tests: it is told of states as by sd_notify(3), on an abstract unix datagram socket, and starts a
// process with sockets passed to it as by sd_listen_fds(3).

import { errnoName } from '../sys/errno.ts';
import { closeDescriptor } from '../sys/socket.ts';
import { bindUnix, openUnixSocket, receivePacket } from '../sys/unix-socket.ts';
import { until } from './wait.ts';

let made = 0;

/** NOTIFY_SOCKET of a test. */
export class NotifySocket implements Disposable {
  /** As the variable has it. */
  readonly address = `@edgeproxy-test-${process.pid}-${++made}`;
  /** Messages so far, in order. */
  readonly messages: string[] = [];
  readonly #socket: number;

  constructor() {
    this.#socket = openUnixSocket('datagrams');
    const result = bindUnix(this.#socket, this.address);
    if (result < 0) throw new Error(`Cannot bind ${this.address}: ${errnoName(result)}`);
  }

  #read(): void {
    for (;;) {
      const packet = receivePacket(this.#socket);
      if (typeof packet === 'number') return;
      this.messages.push(packet.text);
    }
  }

  /** The first message from `from` on that has this line. */
  async message(line: string, from = 0): Promise<string> {
    return await until(`the notification ${line}`, () => {
      this.#read();
      return this.messages.slice(from).find((text) => text.split('\n').includes(line));
    });
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.#socket);
  }
}

/** Runs a command as the process that LISTEN_PID names: the shell replaces itself by it. */
export function passingSockets(count: number, names: string): string[] {
  const script = 'LISTEN_PID=$$ exec "$0" "$@"';
  return ['env', `LISTEN_FDS=${count}`, `LISTEN_FDNAMES=${names}`, 'sh', '-c', script];
}
