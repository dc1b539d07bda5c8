// Conformance cases: buffers that the caller writes into itself, what a receive left in memory, and a socket's own address.

import assert from 'node:assert/strict';
import { OP_ACCEPT, OP_RECEIVE, OP_SEND } from '../engine/proactor.ts';
import { WRITE_BUFFERS } from '../engine/write-buffers.ts';
import { errnoName } from '../sys/errno.ts';
import { type EngineCase, lacksIpv6 } from './engine-case.ts';
import type { EngineDriver } from './engine-driver.ts';
import { assertContent, fillBuffer, streamBytes } from './engine-flow.ts';
import { loopback } from './engine-peer.ts';

function contentOf({ engine }: EngineDriver, buffer: number, bytes: number): Uint8Array {
  const start = buffer * engine.bufferBytes;
  return engine.memory.subarray(start, start + bytes);
}

function readLocal({ engine }: EngineDriver, socket: number): unknown {
  const local = { family: 0, w0: 9, w1: 9, w2: 9, w3: 9, port: 0 };
  const result = engine.readLocal(socket, local);
  assert.equal(result, 0, errnoName(result));
  const { family, w0, w1, w2, w3, port } = local;
  return { family, words: [w0, w1, w2, w3].map((word) => word >>> 0), port };
}

function takeAll({ engine }: EngineDriver): number[] {
  const taken: number[] = [];
  for (let buffer = engine.takeBuffer(); buffer >= 0; buffer = engine.takeBuffer()) {
    taken.push(buffer);
  }
  return taken;
}

export const WRITE_CASES: readonly EngineCase[] = [
  {
    name: 'takeBuffer() gives a buffer whose written bytes are sent',
    async run(driver) {
      const link = await driver.link(1);
      const { engine } = driver;
      for (let round = 0; round < 3; round++) {
        const buffer = engine.takeBuffer();
        assert(buffer >= engine.bufferCount && buffer < engine.bufferCount + WRITE_BUFFERS);
        contentOf(driver, buffer, 300).set(streamBytes(300, round * 300));
        driver.send(link, buffer, 0, 100);
        assert.equal((await driver.next(OP_SEND, 1)).result, 100);
        driver.send(link, buffer, 100, 200);
        assert.equal((await driver.next(OP_SEND, 1)).result, 200);
        engine.releaseBuffer(buffer);
      }
      await driver.until('the bytes', () => link.peer.receivedBytes >= 900);
      assertContent(link.peer.content(), streamBytes(900));
    },
  },
  {
    name: 'takeBuffer() gives each buffer once, and none that a receive could use',
    options: { bufferBytes: 4096, bufferCount: 4 },
    async run(driver) {
      const { engine } = driver;
      const taken = takeAll(driver);
      assert.equal(new Set(taken).size, WRITE_BUFFERS);
      assert.equal(engine.buffersInUse(), WRITE_BUFFERS);
      assert(engine.hasBuffer());
      const link = await driver.link(2);
      const received: number[] = [];
      driver.receive(link);
      for (let count = 0; count < engine.bufferCount; count++) {
        link.peer.write(streamBytes(10));
        const { buffer } = await driver.next(OP_RECEIVE, 2);
        assert(buffer >= 0 && buffer < engine.bufferCount);
        received.push(buffer);
      }
      engine.releaseBuffer(taken[7] as number);
      assert(!engine.hasBuffer(), 'A written buffer is none for receives');
      assert.equal(engine.takeBuffer(), taken[7]);
      for (const buffer of taken) engine.releaseBuffer(buffer);
      assert.equal(takeAll(driver).length, WRITE_BUFFERS, 'also while all others are held');
      for (const buffer of taken) engine.releaseBuffer(buffer);
      for (const buffer of received) driver.release(buffer);
    },
  },
  {
    name: 'memory holds what was received, where the buffer is',
    async run(driver) {
      for (const endpoint of [0, 3, 5]) {
        const buffer = await fillBuffer(driver, await driver.link(endpoint), 5000);
        assertContent(Buffer.from(contentOf(driver, buffer, 5000)), streamBytes(5000));
      }
    },
  },
  {
    name: 'readLocal() tells the address that a client connected to',
    async run(driver) {
      const listener = await driver.listening(4, 2);
      driver.connectPeer(listener);
      const { result } = await driver.next(OP_ACCEPT, 2);
      const { port } = listener;
      assert.deepEqual(readLocal(driver, result), { family: 4, words: loopback(4), port });
    },
  },
  {
    name: 'readLocal() tells IPv6, and IPv4 on a dual-stack listener as IPv4',
    lacks: lacksIpv6,
    async run(driver) {
      const listener = driver.listen(6, false, [0, 0, 0, 0]);
      driver.accept(listener, 2);
      await driver.accepting(listener, 2);
      for (const family of [6, 4] as const) {
        driver.connectPeer(listener, family);
        const { result } = await driver.next(OP_ACCEPT, 2);
        const expected = { family, words: loopback(family), port: listener.port };
        assert.deepEqual(readLocal(driver, result), expected);
      }
    },
  },
];
