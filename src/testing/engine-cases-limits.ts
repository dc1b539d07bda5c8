// Conformance cases: waiting, waking, and more operations than the queues of the kernel hold.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { OP_CONNECT, OP_RECEIVE } from '../engine/proactor.ts';
import { ECONNREFUSED, ENETUNREACH, errnoName } from '../sys/errno.ts';
import { signalEventfd } from '../sys/eventfd.ts';
import { parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { type EngineCase, lacksDescriptors } from './engine-case.ts';
import type { EngineDriver, Link } from './engine-driver.ts';
import { assertContent, echo, type Flow, streamBytes } from './engine-flow.ts';
import { LOOPBACK_4 } from './engine-peer.ts';
import {
  WAKE_ASKED,
  WAKE_LOST,
  WAKE_SEEN,
  WAKE_SIGNALLED,
  type WakeJob,
} from './engine-wake-worker.ts';

/** More than a completion queue of io_uring holds here (4096), all completing before a wait. */
const CONNECTS = 4500;
/** More than an engine has room for at first: a stop with 10,000 sessions makes as many events. */
const FAILURES = 20_000;
const RECEIVES = 1300;
const WAKE_ROUNDS = 20;
/** Only a wake-up that does not work waits this long. */
const WAKE_LIMIT_MS = 6000;
/** Longer than the watchdog's patience. */
const LONG_WAIT_MS = 120_000;
const BLOCKS_NOT = { portable: 'it is driven by the event loop: its wait() does not block' };

function closedPort(): number {
  const options = { backlog: 1, fastOpenQueue: 0, reusePort: false, v6Only: true };
  const fd = openListener({ family: 4, words: LOOPBACK_4, port: 0 }, options);
  const port = boundAddress(fd)?.port ?? 0;
  closeDescriptor(fd);
  return port;
}

/** The loopback refuses, a little later; the broadcast address fails while the connect is started. */
async function connectsFail(driver: EngineDriver, host: string): Promise<void> {
  const parsed = parseAddress(host);
  assert(parsed !== null);
  const to: SocketAddress = { ...parsed, port: closedPort() };
  const sockets: number[] = [];
  for (let endpoint = 0; endpoint < CONNECTS; endpoint++) {
    const socket = driver.engine.openSocket(4);
    assert(socket >= 0, errnoName(socket));
    sockets.push(socket);
    driver.connect(endpoint, 1 + endpoint, socket, to);
  }
  let reported = 0;
  driver.takers.add(({ operation, endpoint, generation, result, more }) => {
    assert.deepEqual([operation, generation, more], [OP_CONNECT, 1 + endpoint, 0]);
    assert([-ECONNREFUSED, -ENETUNREACH].includes(result), errnoName(result));
    reported++;
    return true;
  });
  await driver.until('every connect', () => reported === CONNECTS);
  assert.equal(driver.inFlight, 0);
  for (const [endpoint, socket] of sockets.entries()) driver.engine.reset(endpoint, socket);
}

export const LIMIT_CASES: readonly EngineCase[] = [
  {
    name: 'wait() with a timeout returns without events',
    async run({ engine }) {
      for (const timeoutMs of [0, 1, 0.25, 3, 0]) assert.equal(engine.wait(timeoutMs), 0);
      const clock = new Float64Array(2);
      engine.readClock(clock.subarray(0, 1));
      engine.readClock(clock.subarray(1));
      assert(clock[1] >= clock[0]);
    },
  },
  {
    name: 'wait() is ended by the eventfd, signalled before or meanwhile by another thread',
    except: BLOCKS_NOT,
    async run({ engine, wakeFd }) {
      const shared = new SharedArrayBuffer(16);
      const words = new Int32Array(shared);
      const workerData: WakeJob = { wakeFd, rounds: WAKE_ROUNDS, shared };
      const worker = new Worker(new URL('./engine-wake-worker.ts', import.meta.url), {
        workerData,
      });
      try {
        await once(worker, 'online');
        for (let round = 1; round <= WAKE_ROUNDS; round++) {
          Atomics.store(words, WAKE_ASKED, round);
          Atomics.notify(words, WAKE_ASKED);
          if (round % 2 === 0) Atomics.wait(words, WAKE_SIGNALLED, round - 1, WAKE_LIMIT_MS);
          assert.equal(engine.wait(WAKE_LIMIT_MS), 0);
          assert.equal(Atomics.load(words, WAKE_SIGNALLED), round, 'It ended without a wake-up');
          Atomics.store(words, WAKE_SEEN, round);
          Atomics.notify(words, WAKE_SEEN);
          assert.equal(Atomics.load(words, WAKE_LOST), 0, 'A wake-up was lost');
        }
      } finally {
        await worker.terminate();
      }
    },
  },
  {
    name: 'wait() with a short timeout after a long one that a wake-up ended: the watchdog sees a hang',
    except: BLOCKS_NOT,
    async run({ engine, wakeFd }) {
      signalEventfd(wakeFd);
      assert.equal(engine.wait(LONG_WAIT_MS), 0);
      assert.equal(engine.wait(1), 0);
    },
  },
  ...(['127.0.0.1', '255.255.255.255'] as const).map((host) => ({
    name: `${CONNECTS} connects to ${host} that fail before a wait: each reports once`,
    options: { slots: CONNECTS / 2 },
    lacks: () => lacksDescriptors(CONNECTS),
    run: (driver: EngineDriver) => connectsFail(driver, host),
  })),
  {
    name: `${FAILURES} operations that fail at once: each reports once`,
    options: { slots: FAILURES / 2 },
    except: { portable: 'a socket of node:net connects once' },
    async run(driver) {
      // One socket serves them all: no route leads there, so none gets anywhere.
      const to: SocketAddress = { family: 4, words: [0, 0, 0, 0xffff_ffff], port: 9 };
      const socket = driver.engine.openSocket(4);
      for (let at = 0; at < FAILURES; at++) driver.connect(at, 1, socket, to);
      await driver.until('every connect', () => driver.inFlight === 0);
      assert.equal(driver.takeAll().length, FAILURES);
      driver.engine.close(-1, socket);
    },
  },
  {
    name: `${RECEIVES} receives started and cancelled before a wait: each reports once`,
    options: { slots: RECEIVES },
    lacks: () => lacksDescriptors(RECEIVES * 2),
    async run(driver) {
      const links: Link[] = [];
      for (let endpoint = 0; endpoint < RECEIVES; endpoint++)
        links.push(await driver.link(endpoint));
      for (const link of links) driver.receive(link);
      for (const link of links) driver.cancelReceive(link);
      await driver.until('every receive', () => driver.inFlight === 0);
      const events = driver.takeAll();
      assert.equal(events.length, RECEIVES);
      assert(events.every(({ operation, more }) => operation === OP_RECEIVE && more === 0));
      const last = links.at(-1) as Link;
      echo(driver, last);
      last.peer.write(streamBytes(10));
      await driver.until('the echo', () => last.peer.receivedBytes === 10);
    },
  },
  {
    name: '300 sessions that exchange at once: each gets its own bytes',
    lacks: () => lacksDescriptors(600),
    options: { slots: 300, bufferBytes: 2048, bufferCount: 256 },
    async run(driver) {
      const flows: Flow[] = [];
      const bytes = 3000;
      for (let endpoint = 0; endpoint < 300; endpoint++) {
        flows.push(echo(driver, await driver.link(endpoint)));
      }
      for (const { source } of flows) source.peer.write(streamBytes(bytes, source.endpoint * 11));
      await driver.until('every echo', () => {
        for (const flow of flows) flow.start();
        return flows.every(({ source }) => source.peer.receivedBytes >= bytes);
      });
      for (const { source } of flows) {
        assertContent(source.peer.content(), streamBytes(bytes, source.endpoint * 11));
      }
    },
  },
];
