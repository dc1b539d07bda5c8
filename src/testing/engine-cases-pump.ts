// Conformance cases: pumps (splice): what they move, how they stop, fail and are cancelled.

import assert from 'node:assert/strict';
import { PUMP_SOURCE, PUMP_TARGET } from '../engine/proactor.ts';
import { ECANCELED, ECONNRESET, EPIPE, errnoName } from '../sys/errno.ts';
import { type EngineCase, NO_PUMP } from './engine-case.ts';
import { assertContent, echo, Flow, streamBytes } from './engine-flow.ts';
import {
  BACKEND,
  BULK_BYTES,
  blockedPump,
  CLIENT,
  lastOf,
  Pumped,
  session,
} from './engine-pumped.ts';

const MOVING_CASES: readonly EngineCase[] = [
  {
    name: `pump() moves ${BULK_BYTES} bytes in order and reports the end with 0`,
    async run(driver) {
      const [client, backend] = await session(driver, 5);
      const pumped = new Pumped(driver, client, backend);
      client.peer.write(streamBytes(BULK_BYTES));
      client.peer.finish();
      const { result, generation } = await lastOf(driver, pumped);
      assert.deepEqual([result, generation], [0, 5]);
      assert.equal(pumped.bytes, BULK_BYTES);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= BULK_BYTES);
      assertContent(backend.peer.content(), streamBytes(BULK_BYTES));
      assert.equal(driver.engine.buffersInUse(), 0);
    },
  },
  {
    name: 'pump() of a stream that has ended already reports 0',
    async run(driver) {
      const [client, backend] = await session(driver);
      client.peer.finish();
      await driver.turns(2);
      const { result } = await lastOf(driver, new Pumped(driver, client, backend));
      assert.equal(result, 0);
    },
  },
  {
    name: 'pump() that meets an urgent byte is cancelled, never ended, and receives go on from there',
    async run(driver) {
      const [client, backend] = await session(driver);
      client.peer.write(streamBytes(1000));
      client.peer.writeUrgent();
      client.peer.write(streamBytes(1000, 1000));
      client.peer.finish();
      await driver.turns();
      const pumped = new Pumped(driver, client, backend);
      assert.equal(errnoName((await lastOf(driver, pumped)).result), errnoName(ECANCELED));
      const flow = new Flow(driver, client, backend).start();
      await driver.until('the end', () => flow.end === 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 2000);
      assertContent(backend.peer.content(), streamBytes(2000));
    },
  },
  {
    name: 'pump() on accepted sockets nothing was received from',
    async run(driver) {
      const listener = await driver.listening();
      const client = await driver.acceptedLink(CLIENT, listener);
      const backend = await driver.acceptedLink(BACKEND, listener);
      const pumped = new Pumped(driver, client, backend);
      client.peer.write(streamBytes(300_000));
      client.peer.finish();
      assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 300_000);
      assertContent(backend.peer.content(), streamBytes(300_000));
    },
  },
  {
    name: 'pump() of small messages with pauses moves each at once',
    async run(driver) {
      const [client, backend] = await session(driver);
      new Pumped(driver, client, backend);
      for (let round = 1; round <= 50; round++) {
        client.peer.write(streamBytes(37, (round - 1) * 37));
        await driver.until('the message', () => backend.peer.receivedBytes === round * 37);
      }
      assertContent(backend.peer.content(), streamBytes(50 * 37));
    },
  },
  {
    name: 'pump() in both directions of one session at once',
    async run(driver) {
      const [client, backend] = await session(driver);
      const pumps = [new Pumped(driver, client, backend), new Pumped(driver, backend, client)];
      client.peer.write(streamBytes(BULK_BYTES));
      backend.peer.write(streamBytes(BULK_BYTES, 4000));
      client.peer.finish();
      backend.peer.finish();
      for (const pumped of pumps) assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => client.peer.receivedBytes >= BULK_BYTES);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= BULK_BYTES);
      assertContent(backend.peer.content(), streamBytes(BULK_BYTES));
      assertContent(client.peer.content(), streamBytes(BULK_BYTES, 4000));
    },
  },
  {
    name: 'pump() to a peer that does not read waits; when it reads every byte arrives',
    async run(driver) {
      const [client, backend, pumped] = await blockedPump(driver);
      client.peer.finish();
      backend.peer.reading = true;
      assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= BULK_BYTES);
      assertContent(backend.peer.content(), streamBytes(BULK_BYTES));
    },
  },
];

const STOP_CASES: readonly EngineCase[] = [
  {
    name: 'stopPump() of a quiet pump reports -ECANCELED, then receiving works on both sides',
    async run(driver) {
      const [client, backend] = await session(driver);
      for (let round = 0; round < 5; round++) {
        const pumped = new Pumped(driver, client, backend);
        if (round % 2 === 0) await driver.turns(2);
        driver.stopPump(client);
        assert.equal(errnoName((await lastOf(driver, pumped)).result), 'ECANCELED');
      }
      echo(driver, client);
      echo(driver, backend);
      client.peer.write(streamBytes(100));
      backend.peer.write(streamBytes(100));
      await driver.until(
        'the echoes',
        () => client.peer.receivedBytes + backend.peer.receivedBytes === 200,
      );
    },
  },
  {
    name: 'stopPump() in the middle of a stream, then receive and send: no byte lost in 40 changes',
    async run(driver) {
      const [client, backend] = await session(driver);
      const bytes = 6_000_000;
      const flow = new Flow(driver, client, backend);
      client.peer.write(streamBytes(bytes));
      for (let round = 0; round < 40; round++) {
        const pumped = new Pumped(driver, client, backend);
        await driver.turns(round % 3);
        driver.stopPump(client);
        await lastOf(driver, pumped);
        flow.start();
        await driver.turns(round % 4);
        flow.stop();
        await driver.until('the flow to stop', () => !flow.receiving && !flow.busy);
      }
      const pumped = new Pumped(driver, client, backend);
      client.peer.finish();
      assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= bytes);
      assertContent(backend.peer.content(), streamBytes(bytes));
    },
  },
  {
    name: 'stopPump() of a blocked pump reports once its pipe is empty',
    async run(driver) {
      const [client, backend, pumped] = await blockedPump(driver);
      driver.stopPump(client);
      await driver.turns();
      assert.equal(pumped.last, null);
      backend.peer.reading = true;
      assert.equal(errnoName((await lastOf(driver, pumped)).result), 'ECANCELED');
      const moved = pumped.bytes;
      await driver.until('the bytes', () => backend.peer.receivedBytes >= moved);
      await driver.turns();
      assertContent(backend.peer.content(), streamBytes(moved));
      new Flow(driver, client, backend).start();
      await driver.until('the rest', () => backend.peer.receivedBytes >= BULK_BYTES);
      assertContent(backend.peer.content(), streamBytes(BULK_BYTES));
    },
  },
  {
    name: 'stopPump() after the pump has ended reports nothing',
    async run(driver) {
      const [client, backend] = await session(driver);
      const pumped = new Pumped(driver, client, backend);
      client.peer.finish();
      await lastOf(driver, pumped);
      driver.stopPump(client);
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
    },
  },
];

const FAILURE_CASES: readonly EngineCase[] = [
  {
    name: 'pump() reports the reset of its source as -ECONNRESET of the source',
    async run(driver) {
      const [client, backend] = await session(driver);
      const pumped = new Pumped(driver, client, backend);
      client.peer.write(streamBytes(10));
      await driver.until('the bytes', () => backend.peer.receivedBytes === 10);
      client.peer.reset();
      const { result, buffer } = await lastOf(driver, pumped);
      assert.deepEqual([errnoName(result), buffer], [errnoName(ECONNRESET), PUMP_SOURCE]);
    },
  },
  {
    name: 'pump() reports the reset of its target as a failure of the target',
    async run(driver) {
      const [client, backend] = await session(driver);
      const pumped = new Pumped(driver, client, backend);
      backend.peer.reset();
      await driver.turns(2);
      client.peer.write(streamBytes(10));
      await driver.turns(2);
      client.peer.write(streamBytes(10));
      const { result, buffer } = await lastOf(driver, pumped);
      assert([-EPIPE, -ECONNRESET].includes(result), errnoName(result));
      assert.equal(buffer, PUMP_TARGET);
    },
  },
  {
    name: 'pump() blocked reports the reset of its target',
    async run(driver) {
      const [, backend, pumped] = await blockedPump(driver);
      backend.peer.reset();
      const { result, buffer } = await lastOf(driver, pumped);
      assert([-EPIPE, -ECONNRESET].includes(result), errnoName(result));
      assert.equal(buffer, PUMP_TARGET);
    },
  },
  {
    name: 'cancel() of a pump with bytes in its pipe: one last event, and no byte in a later session',
    async run(driver) {
      for (let generation = 1; generation <= 3; generation++) {
        const [client, backend, pumped] = await blockedPump(driver, generation);
        driver.cancel(client);
        driver.cancel(backend);
        assert.equal((await lastOf(driver, pumped)).result, -ECANCELED);
        await driver.turns(3);
        assert.deepEqual(driver.takeAll(), []);
        driver.close(client, 'reset');
        driver.close(backend, 'reset');
      }
      const [client, backend] = await session(driver, 4);
      const pumped = new Pumped(driver, client, backend);
      client.peer.write(streamBytes(9));
      client.peer.finish();
      assert.equal((await lastOf(driver, pumped)).result, 0);
      await driver.until('the bytes', () => backend.peer.receivedBytes >= 9);
      assertContent(backend.peer.content(), streamBytes(9));
    },
  },
  {
    name: 'cancel() of the source alone ends a pump that its target blocks',
    async run(driver) {
      const [client, , pumped] = await blockedPump(driver);
      driver.cancel(client);
      assert.equal((await lastOf(driver, pumped)).result, -ECANCELED);
    },
  },
  {
    name: 'cancel() of a pump in each direction, quiet and started in the same batch',
    async run(driver) {
      for (let generation = 1; generation <= 6; generation++) {
        const [client, backend] = await session(driver, generation);
        const pumps = [new Pumped(driver, client, backend), new Pumped(driver, backend, client)];
        if (generation % 2 === 0) await driver.turns(2);
        driver.cancel(client);
        driver.cancel(backend);
        for (const pumped of pumps) {
          assert.equal((await lastOf(driver, pumped)).result, -ECANCELED);
        }
        driver.close(client, 'reset');
        driver.close(backend, 'reset');
      }
    },
  },
];

export const PUMP_CASES: readonly EngineCase[] = [
  ...MOVING_CASES,
  ...STOP_CASES,
  ...FAILURE_CASES,
].map((oneCase) => ({ ...oneCase, except: NO_PUMP }));
