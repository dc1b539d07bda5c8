// A backend's process is killed under load: what its clients see, and what everybody who comes after sees.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openClient } from '../../src/testing/clients.ts';
import {
  connectionsBalance,
  type HostPort,
  type ProxyProcess,
  startProxy,
} from '../../src/testing/proxy-process.ts';
import { until, within } from '../../src/testing/wait.ts';

const ECHO = fileURLToPath(new URL('../../src/testing/echo-process.ts', import.meta.url));
const CLIENTS = 24;
/** Exchanges of one visit. */
const TURNS = 5;

class BackendProcess implements Disposable {
  readonly child: ChildProcess;
  port = 0;

  constructor(name: string) {
    const args = ['--disable-warning=ExperimentalWarning', ECHO, name];
    this.child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  }

  static async start(name: string): Promise<BackendProcess> {
    const backend = new BackendProcess(name);
    const [line] = await within(`backend ${name}`, once(backend.child.stdout!, 'data'));
    backend.port = Number(String(line));
    return backend;
  }

  [Symbol.dispose](): void {
    this.child.kill('SIGKILL');
  }
}

/** One visit: what was said first (a backend's name, '' = turned away), and whether every turn was answered. */
interface Visit {
  readonly startedAt: number;
  readonly name: string;
  readonly answered: boolean;
}

/** The next line from the proxy; throws when the stream ends or is reset instead. */
function readLine(socket: Socket): Promise<string> {
  const line = new Promise<string>((resolve, reject) => {
    let text = '';
    const onData = (chunk: Buffer): void => {
      text += chunk.toString();
      if (!text.endsWith('\n')) return;
      socket.off('data', onData);
      socket.off('close', onClose);
      resolve(text.slice(0, -1));
    };
    const onClose = (): void => reject(new Error('closed'));
    socket.on('data', onData);
    socket.on('end', onClose);
    socket.on('close', onClose);
    if (socket.closed) onClose();
  });
  return within('a line', line);
}

/** `clock` counts events of the test, so that what came before and after the kill can be told apart. */
async function visit(at: HostPort, from: string, clock: () => number): Promise<Visit> {
  const startedAt = clock();
  let name = '';
  let socket: Socket;
  try {
    socket = await openClient(at, { from });
  } catch {
    return { startedAt, name, answered: false };
  }
  try {
    name = await readLine(socket);
    for (let turn = 0; turn < TURNS; turn++) {
      const text = `${from} turn ${turn}`;
      const reading = readLine(socket);
      socket.write(`${text}\n`);
      if ((await reading) !== text) throw new Error('a wrong answer');
    }
    return { startedAt, name, answered: true };
  } catch (error) {
    if ((error as Error).message !== 'closed') throw error;
    return { startedAt, name, answered: false };
  } finally {
    socket.destroy();
  }
}

async function expectQuiet(proxy: ProxyProcess): Promise<void> {
  const metrics = await proxy.untilMetric('edge_connections_current', 0);
  const { accepted, accounted } = connectionsBalance(metrics);
  assert.equal(accounted, accepted, 'every connection has one end');
  await proxy.untilMetric('edge_backend_connections_current', 0);
}

for (const breaker of [0, 3]) {
  test(`backend killed under load (breaker ${breaker === 0 ? 'off' : 'on'}): only sessions in flight end, all others succeed elsewhere`, async () => {
    using best = await BackendProcess.start('best');
    using other = await BackendProcess.start('other');
    await using proxy = await startProxy({
      backends: [
        { id: 'best', region: 'sa', port: best.port },
        { id: 'other', region: 'us', port: other.port },
      ],
      settings: { CIRCUIT_FAILURE_THRESHOLD: breaker },
    });
    let time = 0;
    let killedAt = Number.POSITIVE_INFINITY;
    const visits: Visit[] = [];
    const loop = async (number: number): Promise<void> => {
      // Until everybody has been back often enough after the kill.
      for (let round = 0; visits.filter((v) => v.startedAt > killedAt).length < 400; round++) {
        const from = `127.3.${round & 255}.${number + 1}`;
        visits.push(await visit(proxy.address, from, () => ++time));
      }
    };
    const loops = Promise.all(Array.from({ length: CLIENTS }, (_, number) => loop(number)));
    await until('load', () => visits.length > 100);
    best.child.kill('SIGKILL');
    await once(best.child, 'exit');
    killedAt = ++time;
    await loops;
    const before = visits.filter(({ startedAt }) => startedAt < killedAt);
    const after = visits.filter(({ startedAt }) => startedAt > killedAt);
    const failed = before.filter(({ answered }) => !answered);
    assert.ok(!failed.some(({ name }) => name === 'other'), 'only its own sessions ended');
    assert.ok(before.some(({ name }) => name === 'best'));
    assert.deepEqual(
      new Set(after.map(({ name, answered }) => `${name} ${answered}`)),
      new Set(['other true']),
    );
    if (breaker > 0) assert.ok(proxy.log('A backend is ejected after failures'));
    await expectQuiet(proxy);
  });
}

test('backend killed: an idle client sees its connection end, one with bytes unread sees RST', async () => {
  using best = await BackendProcess.start('best');
  await using proxy = await startProxy({ backends: [{ id: 'best', port: best.port }] });
  const idle = await openClient(proxy.address);
  const busy = await openClient(proxy.address);
  for (const socket of [idle, busy]) assert.equal(await readLine(socket), 'best');
  const ended = once(idle, 'end');
  const reset = new Promise<string>((resolve) => {
    busy.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  best.child.kill('SIGSTOP');
  busy.write('unread\n');
  await proxy.untilMetric('edge_bytes_total', 'unread\n'.length, { direction: 'up' });
  best.child.kill('SIGKILL');
  idle.resume();
  await within('the end', ended);
  assert.equal(await within('the reset', reset), 'ECONNRESET');
  idle.destroy();
  await expectQuiet(proxy);
});
