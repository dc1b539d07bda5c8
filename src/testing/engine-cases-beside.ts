// Conformance cases: the other operations of a pump's sockets, which the pump makes non-blocking, during and after it.

import assert from 'node:assert/strict';
import { OP_RECEIVE, OP_SEND } from '../engine/proactor.ts';
import { ECANCELED, errnoName } from '../sys/errno.ts';
import { type EngineCase, NO_PUMP } from './engine-case.ts';
import { assertContent, Flow, fillBuffer, streamBytes } from './engine-flow.ts';
import { limitSendBuffer } from './engine-peer.ts';
import {
  BACKEND,
  BULK_BYTES,
  CLIENT,
  lastOf,
  Pumped,
  SMALL_RECEIVE_BYTES,
  session,
} from './engine-pumped.ts';

const CASES: readonly EngineCase[] = [
  {
    name: 'beside a pump: a receive that was in flight before goes on',
    async run(driver) {
      const [client, backend] = await session(driver);
      const back = new Flow(driver, backend, client).start();
      await driver.turns(2);
      new Pumped(driver, client, backend);
      for (let round = 1; round <= 20; round++) {
        backend.peer.write(streamBytes(5000, (round - 1) * 5000));
        await driver.until('the bytes back', () => client.peer.receivedBytes === round * 5000);
      }
      client.peer.write(streamBytes(1000));
      await driver.until('the bytes', () => backend.peer.receivedBytes === 1000);
      backend.peer.finish();
      await driver.until('the end', () => back.end === 0);
      assertContent(client.peer.content(), streamBytes(100_000));
    },
  },
  {
    name: 'beside a pump: receive and send move a stream back, with cancelled receives',
    async run(driver) {
      const [client, backend] = await session(driver);
      const pumped = new Pumped(driver, client, backend);
      await driver.turns(2);
      const back = new Flow(driver, backend, client).start();
      const bytes = 3_000_000;
      client.peer.write(streamBytes(bytes));
      backend.peer.write(streamBytes(bytes, 77));
      let turns = 0;
      await driver.until('the bytes back', () => {
        if (turns++ % 3 === 0) back.interrupt();
        back.start();
        return client.peer.receivedBytes >= bytes;
      });
      await driver.until('the bytes', () => backend.peer.receivedBytes >= bytes);
      assert.equal(pumped.bytes, bytes);
      assertContent(client.peer.content(), streamBytes(bytes, 77));
      assertContent(backend.peer.content(), streamBytes(bytes));
      backend.peer.finish();
      await driver.until('the end', () => back.start().end === 0);
    },
  },
  {
    name: 'beside a pump: cancelReceive() with nothing to receive, waiting or in the same batch',
    async run(driver) {
      const [client, backend] = await session(driver);
      new Pumped(driver, client, backend);
      await driver.turns(2);
      for (let round = 0; round < 6; round++) {
        driver.receive(backend);
        if (round % 2 === 0) await driver.turns(2);
        driver.cancelReceive(backend);
        const { result, more } = await driver.next(OP_RECEIVE, BACKEND);
        assert.deepEqual([errnoName(result), more], ['ECANCELED', 0]);
      }
      new Flow(driver, backend, client).start();
      backend.peer.write(streamBytes(40));
      await driver.until('the bytes back', () => client.peer.receivedBytes === 40);
    },
  },
  {
    name: 'beside a pump: cancelReceive() racing with bytes loses none',
    async run(driver) {
      const [client, backend] = await session(driver);
      new Pumped(driver, client, backend);
      await driver.turns(2);
      const back = new Flow(driver, backend, client);
      for (let round = 0; round < 100; round++) {
        back.start();
        if (round % 3 > 0) await driver.turn(0);
        backend.peer.write(streamBytes(900, round * 900));
        if (round % 5 === 0) await driver.turn(0);
        back.stop();
        await driver.until('the last event', () => !back.receiving);
      }
      back.start();
      await driver.until('the bytes back', () => client.peer.receivedBytes >= 90_000);
      assertContent(client.peer.content(), streamBytes(90_000));
    },
  },
  {
    name: 'beside a pump: cancel() ends a receive that waits',
    async run(driver) {
      for (let generation = 1; generation <= 6; generation++) {
        const [client, backend] = await session(driver, generation);
        const pumped = new Pumped(driver, client, backend);
        if (generation % 2 === 0) await driver.turns(2);
        driver.receive(backend);
        if (generation % 3 === 0) await driver.turns(2);
        driver.cancel(client);
        driver.cancel(backend);
        const { result, more } = await driver.next(OP_RECEIVE, BACKEND);
        assert.deepEqual([errnoName(result), more], ['ECANCELED', 0]);
        assert.equal((await lastOf(driver, pumped)).result, -ECANCELED);
        driver.close(client, 'reset');
        driver.close(backend, 'reset');
      }
    },
  },
  {
    name: 'beside a pump: a send blocks, goes on when the peer reads, and keeps the order',
    options: { bufferBytes: 1 << 17, bufferCount: 16 },
    async run(driver) {
      const [client, backend] = await session(driver);
      client.peer.reading = false;
      new Pumped(driver, client, backend);
      await driver.turns(2);
      const back = new Flow(driver, backend, client).start();
      backend.peer.write(streamBytes(BULK_BYTES));
      await driver.turns(60);
      client.peer.reading = true;
      await driver.until('the bytes back', () => client.peer.receivedBytes >= BULK_BYTES);
      assert.equal(back.sentBytes, BULK_BYTES);
      assertContent(client.peer.content(), streamBytes(BULK_BYTES));
    },
  },
  {
    name: 'beside a pump: cancel() ends a blocked send',
    options: { bufferBytes: 1 << 17, bufferCount: 32 },
    async run(driver) {
      const client = await driver.link(CLIENT, { receiveBytes: SMALL_RECEIVE_BYTES });
      const backend = await driver.link(BACKEND);
      client.peer.reading = false;
      const pumped = new Pumped(driver, client, backend);
      const back = new Flow(driver, backend, client).start();
      backend.peer.write(streamBytes(BULK_BYTES));
      let sent = -1;
      let still = 0;
      await driver.until('the sender to block', () => {
        still = sent === back.sentBytes && back.busy ? still + 1 : 0;
        sent = back.sentBytes;
        return still > 20;
      });
      back.stop();
      await driver.until('the receive to end', () => !back.receiving);
      back.detach();
      driver.cancel(client);
      driver.cancel(backend);
      const { result } = await driver.next(OP_SEND, CLIENT);
      assert(result > 0 || result === -ECANCELED, errnoName(result));
      assert.equal((await lastOf(driver, pumped)).result, -ECANCELED);
    },
  },
  {
    name: 'beside a pump: a send that needs hundreds of turns of a small socket buffer',
    options: { bufferBytes: 1 << 20, bufferCount: 4 },
    async run(driver) {
      const client = await driver.link(CLIENT, { receiveBytes: SMALL_RECEIVE_BYTES });
      const backend = await driver.link(BACKEND);
      limitSendBuffer(client.socket, SMALL_RECEIVE_BYTES);
      new Pumped(driver, client, backend);
      const back = new Flow(driver, backend, client);
      const bytes = 3_000_000;
      backend.peer.write(streamBytes(bytes));
      await driver.turns(3);
      back.start();
      await driver.until('the bytes back', () => client.peer.receivedBytes >= bytes);
      assert.equal(back.sentBytes, bytes);
      assertContent(client.peer.content(), streamBytes(bytes));
    },
  },
  {
    name: 'after a pump: a session goes on with receives and sends both ways',
    async run(driver) {
      const [client, backend] = await session(driver);
      const up = new Pumped(driver, client, backend);
      const down = new Pumped(driver, backend, client);
      await driver.turns(2);
      driver.stopPump(client);
      await lastOf(driver, up);
      const flow = new Flow(driver, client, backend).start();
      client.peer.write(streamBytes(500_000));
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 500_000);
      // The other pump must not block in a socket made blocking again.
      backend.peer.write(streamBytes(250_000));
      await driver.until('the bytes back', () => client.peer.receivedBytes >= 250_000);
      driver.stopPump(backend);
      await lastOf(driver, down);
      const back = new Flow(driver, backend, client).start();
      backend.peer.write(streamBytes(250_000, 250_000));
      client.peer.write(streamBytes(500_000, 500_000));
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 1_000_000);
      await driver.until('the bytes back', () => client.peer.receivedBytes >= 500_000);
      client.peer.finish();
      backend.peer.finish();
      await driver.until('both ends', () => flow.end === 0 && back.end === 0);
      assertContent(backend.peer.content(), streamBytes(1_000_000));
      assertContent(client.peer.content(), streamBytes(500_000));
    },
  },
  {
    name: 'pump() after a blocked send was delivered: the order holds',
    async run(driver) {
      const [client, backend] = await session(driver);
      const buffer = await fillBuffer(driver, client, 10_000);
      driver.send(backend, buffer, 0, 10_000);
      assert.equal((await driver.next(OP_SEND, BACKEND)).result, 10_000);
      const pumped = new Pumped(driver, client, backend);
      client.peer.write(streamBytes(100_000, 10_000));
      client.peer.finish();
      assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 110_000);
      assertContent(backend.peer.content(), streamBytes(110_000));
    },
  },
];

export const BESIDE_CASES = CASES.map((oneCase) => ({ ...oneCase, except: NO_PUMP }));
