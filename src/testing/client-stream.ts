// Clients that never stop coming: loops of short sessions beside sessions that last and exchange now and then. Whatever
// goes wrong with any of them is kept by name; a test expects that nothing did.

import type { Socket } from 'node:net';
import { echoOnce, exchange, openClient } from './clients.ts';
import type { HostPort } from './proxy-process.ts';
import { until } from './wait.ts';

const LOOPS = 8;
const LASTING = 20;

export class ClientStream implements AsyncDisposable {
  /** Sessions that ended as they should. */
  completed = 0;
  readonly failures: string[] = [];
  readonly #at: HostPort;
  readonly #lasting: Socket[] = [];
  readonly #loops: Promise<void>[];
  #stopped = false;

  /** The backend must echo. */
  constructor(at: HostPort) {
    this.#at = at;
    this.#loops = Array.from({ length: LOOPS }, (_, index) => this.#loop(index));
  }

  async #loop(index: number): Promise<void> {
    const from = `127.7.0.${index + 1}`;
    for (let count = 0; !this.#stopped; count++) {
      const text = `loop ${index}, session ${count}`;
      try {
        const answer = await exchange(this.#at, text, { from });
        if (answer.text === text && answer.end === 'fin') this.completed++;
        else this.failures.push(`${text}: got "${answer.text}", ended by ${answer.end}`);
      } catch (error) {
        this.failures.push(`${text}: ${(error as NodeJS.ErrnoException).code ?? error}`);
      }
    }
  }

  /** Opens sessions that stay; returns how many there are now. */
  async openLasting(): Promise<number> {
    for (let count = 0; count < LASTING; count++) {
      const socket = await openClient(this.#at, { from: `127.7.1.${count + 1}` });
      await echoOnce(socket, 'hello');
      this.#lasting.push(socket);
    }
    return this.#lasting.length;
  }

  /** One exchange on each session that stays. */
  async exchangeLasting(): Promise<void> {
    const exchanges = this.#lasting.map((socket, index) => echoOnce(socket, `lasting ${index}`));
    for (const [index, result] of (await Promise.allSettled(exchanges)).entries()) {
      if (result.status === 'rejected') this.failures.push(`lasting ${index}: ${result.reason}`);
    }
  }

  /** Returns once so many more sessions have completed, or one has failed. */
  async more(count: number): Promise<void> {
    const goal = this.completed + count;
    await until('sessions to complete', () => this.completed >= goal || this.failures.length > 0);
  }

  /** Ends the sessions that stay, in order. */
  endLasting(): void {
    for (const socket of this.#lasting.splice(0)) socket.end();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
    this.endLasting();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
