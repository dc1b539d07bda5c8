// One backend behind one proxy, shared by the tests of a file: starting a process for each of them would be most of
// their time. `begin` gives a test the backend it wants, and counters that start at zero.

import type { Socket } from 'node:net';
import { openClient } from './clients.ts';
import type { Metrics } from './metrics-text.ts';
import { type ProxyProcess, startProxy } from './proxy-process.ts';
import { type ConnectionHandler, hold, startBackend, type TestBackend } from './test-backends.ts';
import { until } from './wait.ts';

export type Settings = Readonly<Record<string, string | number>>;

export class Scene implements AsyncDisposable {
  readonly proxy: ProxyProcess;
  readonly backend: TestBackend;
  #before: Metrics | null = null;

  constructor(proxy: ProxyProcess, backend: TestBackend) {
    this.proxy = proxy;
    this.backend = backend;
  }

  /** Ends what an earlier test left open, and starts counting. */
  async begin(handler: ConnectionHandler): Promise<this> {
    for (const socket of this.backend.sockets) socket.destroy();
    this.#before = await this.proxy.untilMetric('edge_connections_current', 0);
    await until('the backend to be idle', () => this.backend.sockets.size === 0);
    this.backend.clear();
    this.backend.handler = handler;
    return this;
  }

  /** A client and its connection at the backend. */
  async openPair(): Promise<{ client: Socket; server: Socket }> {
    const before = this.backend.connections;
    const client = await openClient(this.proxy.address);
    return { client, server: await this.backend.next(before) };
  }

  /** Waits until a counter has grown by `count` since `begin`. */
  untilGrown(
    name: string,
    count: number,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<Metrics> {
    return this.proxy.untilMetric(name, (this.#before?.get(name, labels) ?? 0) + count, labels);
  }

  /** Waits until that many sessions have ended for this reason. */
  ended(reason: string, count = 1): Promise<Metrics> {
    return this.untilGrown('edge_session_end_total', count, { reason });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    await this.backend[Symbol.asyncDispose]();
  }
}

/** Starts backend and proxy, both on `host`. */
export async function openScene(settings: Settings = {}, host = '127.0.0.1'): Promise<Scene> {
  const backend = await startBackend(hold, host);
  const listen = host === '::1' ? '[::1]:0' : '127.0.0.1:0';
  const proxy = await startProxy({
    backends: [{ id: 'a', ...backend.row }],
    settings: { LISTEN_ADDR: listen, ...settings },
  });
  return new Scene(proxy, backend);
}
