// Conformance cases: accept and connect.

import assert from 'node:assert/strict';
import { OP_ACCEPT, OP_CONNECT, OP_RECEIVE } from '../engine/proactor.ts';
import {
  EAGAIN,
  ECANCELED,
  ECONNREFUSED,
  ECONNRESET,
  ENETUNREACH,
  errnoName,
} from '../sys/errno.ts';
import { parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { type EngineCase, lacksIpv6 } from './engine-case.ts';
import { type EngineDriver, openDescriptors } from './engine-driver.ts';
import { assertContent, echo, streamBytes } from './engine-flow.ts';
import { isRefused, LOOPBACK_4, loopback, openPeer } from './engine-peer.ts';

const REFUSES_WHILE_PAUSED = {
  portable: 'node:net cannot leave connections in the queue: while not accepting it refuses them',
};
const BURST = 200;
const GENERATION_MAX = 0xff_ffff;
/** Enough connects to fill any queue of a backlog of 0. */
const FILLERS = 8;

/** A peer's address words as the engine tells them. */
function readPeer(
  driver: EngineDriver,
  socket: number,
): { words: number[]; family: number; port: number } {
  const peer = { family: 9, w0: 9, w1: 9, w2: 9, w3: 9, port: 9 };
  assert.equal(driver.engine.readPeer(socket, peer), 0);
  const words = [peer.w0 >>> 0, peer.w1 >>> 0, peer.w2 >>> 0, peer.w3 >>> 0];
  return { words, family: peer.family, port: peer.port };
}

async function connectTo(driver: EngineDriver, to: SocketAddress, generation = 1): Promise<number> {
  const socket = driver.engine.openSocket(to.family);
  assert(socket >= 0, errnoName(socket));
  driver.connect(1, generation, socket, to);
  const event = await driver.next(OP_CONNECT, 1);
  assert.equal(event.more, 0);
  assert.equal(event.generation, generation);
  driver.engine.reset(1, socket);
  return event.result;
}

/** A loopback port nobody listens on, for as long as no other program takes it. */
function closedPort(family: 4 | 6): number {
  const options = { backlog: 1, fastOpenQueue: 0, reusePort: false, v6Only: true };
  const fd = openListener({ family, words: loopback(family), port: 0 }, options);
  const port = boundAddress(fd)?.port ?? 0;
  closeDescriptor(fd);
  return port;
}

async function acceptFrom(
  driver: EngineDriver,
  listenFamily: 4 | 6,
  clientFamily: 4 | 6,
): Promise<void> {
  const any: SocketAddress['words'] = [0, 0, 0, 0];
  const dual = listenFamily !== clientFamily;
  const listener = driver.listen(listenFamily, !dual, dual ? any : loopback(listenFamily));
  driver.accept(listener, 3);
  await driver.accepting(listener, 3);
  const peer = driver.connectPeer(listener, clientFamily);
  const { result } = await driver.next(OP_ACCEPT, 3);
  const told = readPeer(driver, result);
  assert.deepEqual(told, { words: loopback(clientFamily), family: clientFamily, port: peer.port });
}

/** Peers that fill a listener's queue, so that the next connect is never answered. */
async function fillQueue(driver: EngineDriver, port: number): Promise<void> {
  for (let index = 0; index < FILLERS; index++) driver.peer(openPeer(4, port)).reading = false;
  await driver.turns(3);
}

const ACCEPT_CASES: readonly EngineCase[] = [
  {
    name: `accept() hands out each of ${BURST} connections of a burst once`,
    async run(driver) {
      const listener = await driver.listening(4, 5);
      const ports: number[] = [];
      for (let index = 0; index < BURST; index++) ports.push(driver.connectPeer(listener).port);
      const accepted: number[] = [];
      const sockets = new Set<number>();
      while (accepted.length < BURST) {
        const { result, more, generation } = await driver.next(OP_ACCEPT, 5);
        assert(result >= 0, errnoName(result));
        assert.equal(generation, 0);
        if (more === 0) driver.accept(listener, 5);
        sockets.add(result);
        accepted.push(readPeer(driver, result).port);
      }
      assert.equal(sockets.size, BURST);
      assert.deepEqual(accepted.sort(), ports.sort());
    },
  },
  {
    name: 'accept() on a shared listener hands out each connection once, and may have to be started again',
    async run(driver) {
      const listener = driver.listen();
      driver.accept(listener, 2, true);
      await driver.accepting(listener, 2);
      const ports: number[] = [];
      for (let index = 0; index < BURST; index++) ports.push(driver.connectPeer(listener).port);
      const accepted: number[] = [];
      while (accepted.length < BURST) {
        const { result, more } = await driver.next(OP_ACCEPT, 2);
        assert(result >= 0, errnoName(result));
        if (more === 0) driver.accept(listener, 2, true);
        accepted.push(readPeer(driver, result).port);
      }
      assert.deepEqual(accepted.sort(), ports.sort());
      driver.engine.cancelAccept(2);
      const last = await driver.next(OP_ACCEPT, 2);
      assert.deepEqual([last.result, last.more], [-ECANCELED, 0]);
    },
  },
  {
    name: 'accept() on a shared listener hands out each connection once, and may have to be started again',
    async run(driver) {
      const listener = driver.listen();
      driver.accept(listener, 2, true);
      await driver.accepting(listener, 2);
      const ports: number[] = [];
      for (let index = 0; index < BURST; index++) ports.push(driver.connectPeer(listener).port);
      const accepted: number[] = [];
      while (accepted.length < BURST) {
        const { result, more } = await driver.next(OP_ACCEPT, 2);
        assert(result >= 0, errnoName(result));
        if (more === 0) driver.accept(listener, 2, true);
        accepted.push(readPeer(driver, result).port);
      }
      assert.deepEqual(accepted.sort(), ports.sort());
      driver.engine.cancelAccept(2);
      const last = await driver.next(OP_ACCEPT, 2);
      assert.deepEqual([last.result, last.more], [-ECANCELED, 0]);
    },
  },
  {
    name: 'cancelAccept() reports one last event and accepting starts again',
    async run(driver) {
      const listener = await driver.listening();
      for (let round = 0; round < 5; round++) {
        driver.engine.cancelAccept(0);
        const last = await driver.next(OP_ACCEPT, 0);
        assert.deepEqual([last.result, last.more], [-ECANCELED, 0]);
        driver.accept(listener, 0);
        await driver.accepting(listener, 0);
        driver.connectPeer(listener);
        const next = await driver.next(OP_ACCEPT, 0);
        assert(next.result >= 0 && next.more === 1);
      }
    },
  },
  {
    name: 'cancelAccept() of an accept started in the same batch reports one last event',
    async run(driver) {
      const listener = driver.listen();
      driver.accept(listener, 0);
      driver.engine.cancelAccept(0);
      const last = await driver.next(OP_ACCEPT, 0);
      assert.deepEqual([last.result, last.more], [-ECANCELED, 0]);
    },
  },
  {
    name: 'cancelAccept() leaves connections in the queue until accepting starts again',
    except: REFUSES_WHILE_PAUSED,
    async run(driver) {
      const listener = await driver.listening();
      driver.engine.cancelAccept(0);
      await driver.next(OP_ACCEPT, 0);
      const peer = driver.connectPeer(listener);
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
      driver.accept(listener, 0);
      const { result } = await driver.next(OP_ACCEPT, 0);
      assert.equal(readPeer(driver, result).port, peer.port);
    },
  },
  {
    name: 'acceptWaiting() empties the queue of a listener that accepts no more',
    except: REFUSES_WHILE_PAUSED,
    async run(driver) {
      const listener = await driver.listening();
      driver.engine.cancelAccept(0);
      await driver.next(OP_ACCEPT, 0);
      assert.equal(driver.acceptWaiting(listener, 0), -EAGAIN);
      const ports = [1, 2, 3].map(() => driver.connectPeer(listener).port);
      for (const port of ports) {
        assert.equal(readPeer(driver, driver.acceptWaiting(listener, 0)).port, port);
      }
      assert.equal(driver.acceptWaiting(listener, 0), -EAGAIN);
      driver.accept(listener, 0);
      const { port } = driver.connectPeer(listener);
      assert.equal(readPeer(driver, (await driver.next(OP_ACCEPT, 0)).result).port, port);
    },
  },
  {
    name: 'accept() on two listeners keeps their tags apart',
    async run(driver) {
      const first = await driver.listening(4, 0);
      const second = await driver.listening(4, 7);
      const peers = [driver.connectPeer(second), driver.connectPeer(first)];
      for (const [tag, peer] of [
        [7, peers[0]],
        [0, peers[1]],
      ] as const) {
        const { result } = await driver.next(OP_ACCEPT, tag);
        assert.equal(readPeer(driver, result).port, peer?.port);
      }
    },
  },
  { name: 'readPeer() tells an IPv4 client', run: (driver) => acceptFrom(driver, 4, 4) },
  {
    name: 'readPeer() tells an IPv6 client',
    lacks: lacksIpv6,
    run: (driver) => acceptFrom(driver, 6, 6),
  },
  {
    name: 'readPeer() tells an IPv4 client of a dual-stack listener as IPv4',
    lacks: lacksIpv6,
    run: (driver) => acceptFrom(driver, 6, 4),
  },
  {
    name: 'accept() on an IPv6-only listener leaves IPv4 clients refused',
    lacks: lacksIpv6,
    async run(driver) {
      const listener = await driver.listening(6);
      assert(isRefused(4, listener.port));
      driver.connectPeer(listener);
      assert((await driver.next(OP_ACCEPT, 0)).result >= 0);
    },
  },
  {
    name: 'accept() of a client that has reset already leads to a reset, not to a clean end',
    except: REFUSES_WHILE_PAUSED,
    async run(driver) {
      const listener = driver.listen();
      const peer = driver.connectPeer(listener);
      peer.write(streamBytes(10));
      peer.reset();
      driver.accept(listener, 0);
      const { result } = await driver.next(OP_ACCEPT, 0);
      const link = driver.adopt({ endpoint: 0, generation: 1, socket: result, peer });
      driver.receive(link);
      let event = await driver.next(OP_RECEIVE, 0);
      if (event.result > 0) event = await driver.next(OP_RECEIVE, 0);
      assert.equal(event.result, -ECONNRESET);
    },
  },
];

const CONNECT_CASES: readonly EngineCase[] = [
  ...([4, 6] as const).map((family) => ({
    name: `connect() reaches an IPv${family} listener and bytes flow both ways`,
    lacks: () => (family === 6 ? lacksIpv6() : ''),
    async run(driver: EngineDriver) {
      const link = await driver.link(1, { family, generation: GENERATION_MAX });
      const told = readPeer(driver, link.socket);
      assert.deepEqual([told.words, told.family], [loopback(family), family]);
      echo(driver, link);
      link.peer.write(streamBytes(100));
      await driver.until('the echo', () => link.peer.receivedBytes === 100);
      assertContent(link.peer.content(), streamBytes(100));
    },
  })),
  ...([4, 6] as const).map((family) => ({
    name: `connect() to a closed IPv${family} port reports -ECONNREFUSED`,
    lacks: () => (family === 6 ? lacksIpv6() : ''),
    async run(driver: EngineDriver) {
      const to: SocketAddress = { family, words: loopback(family), port: closedPort(family) };
      assert.equal(errnoName(await connectTo(driver, to)), errnoName(ECONNREFUSED));
    },
  })),
  {
    name: 'connect() again at the same endpoint after a refusal, under the next generation',
    async run(driver) {
      const port = closedPort(4);
      for (let generation = 1; generation < 20; generation++) {
        const to: SocketAddress = { family: 4, words: LOOPBACK_4, port };
        assert.equal(await connectTo(driver, to, generation), -ECONNREFUSED);
      }
      await driver.link(1, { generation: 20 });
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  ...['255.255.255.255', 'ff02::1'].map((host) => ({
    name: `connect() to ${host}, which no route serves, reports -ENETUNREACH`,
    lacks: () => (host.includes(':') ? lacksIpv6() : ''),
    async run(driver: EngineDriver) {
      const parsed = parseAddress(host);
      assert(parsed !== null);
      const result = await connectTo(driver, { ...parsed, port: 9 });
      assert.equal(errnoName(result), errnoName(ENETUNREACH));
    },
  })),
  {
    name: 'cancel() of a connect that nobody answers reports -ECANCELED once',
    async run(driver) {
      const listener = driver.peerListener({ backlog: 0 });
      await fillQueue(driver, listener.port);
      const descriptors = openDescriptors();
      const socket = driver.engine.openSocket(4);
      driver.connect(1, 1, socket, { family: 4, words: LOOPBACK_4, port: listener.port });
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
      driver.engine.cancel(1, 1, socket);
      const event = await driver.next(OP_CONNECT, 1);
      assert.deepEqual([event.result, event.more], [-ECANCELED, 0]);
      driver.engine.reset(1, socket);
      // Not when the kernel gives the connect up, minutes later.
      await driver.until('the socket to close', () => openDescriptors() === descriptors);
      await driver.link(1, { generation: 2 });
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  {
    name: 'cancel() of a connect started in the same batch reports one last event',
    async run(driver) {
      const listener = driver.peerListener({ backlog: 0 });
      await fillQueue(driver, listener.port);
      const socket = driver.engine.openSocket(4);
      driver.connect(1, 1, socket, { family: 4, words: LOOPBACK_4, port: listener.port });
      driver.engine.cancel(1, 1, socket);
      const event = await driver.next(OP_CONNECT, 1);
      assert.deepEqual([event.result, event.more], [-ECANCELED, 0]);
      driver.engine.reset(1, socket);
    },
  },
];

export const OPEN_CASES = [...ACCEPT_CASES, ...CONNECT_CASES];
