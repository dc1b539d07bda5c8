// Conformance cases: receive, its cancellation, and the pool of buffers.

import assert from 'node:assert/strict';
import { OP_RECEIVE } from '../engine/proactor.ts';
import { ECANCELED, ECONNRESET, ENOBUFS, errnoName } from '../sys/errno.ts';
import { type EngineCase, lacksIpv6 } from './engine-case.ts';
import type { EngineDriver, Link } from './engine-driver.ts';
import { assertContent, echo, Flow, streamBytes } from './engine-flow.ts';

const BUFFER_BYTES = 16_384;
const SMALL_WRITES = 1000;

/** What a peer sends comes back to it through receives and sends, byte for byte. */
async function echoesBack(driver: EngineDriver, bytes: number, family: 4 | 6 = 4): Promise<void> {
  const link = await driver.link(0, { family });
  const flow = echo(driver, link);
  link.peer.write(streamBytes(bytes));
  await driver.until('the echo', () => {
    flow.start();
    return link.peer.receivedBytes >= bytes;
  });
  link.peer.finish();
  await driver.until('the end of the stream', () => flow.end !== null);
  assert.equal(flow.end, 0);
  assertContent(link.peer.content(), streamBytes(bytes));
}

const STREAM_CASES: readonly EngineCase[] = [
  ...[1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 65_536, 4_000_000].map((bytes) => ({
    name: `receive() brings ${bytes} bytes in order, then the end`,
    run: (driver: EngineDriver) => echoesBack(driver, bytes),
  })),
  {
    name: 'receive() on IPv6 brings 1 MB',
    lacks: lacksIpv6,
    run: (driver) => echoesBack(driver, 1_000_000, 6),
  },
  {
    name: 'receive() into buffers of 64 bytes brings 64 KB',
    options: { bufferBytes: 64, bufferCount: 256 },
    run: (driver) => echoesBack(driver, 65_536),
  },
  {
    name: `receive() brings ${SMALL_WRITES} small writes in order`,
    async run(driver) {
      const link = await driver.link(0);
      echo(driver, link);
      let written = 0;
      for (let index = 0; index < SMALL_WRITES; index++) {
        const bytes = 1 + (index % 7);
        link.peer.write(streamBytes(bytes, written));
        written += bytes;
        if (index % 3 === 0) await driver.turn(0);
      }
      await driver.until('the echo', () => link.peer.receivedBytes >= written);
      assertContent(link.peer.content(), streamBytes(written));
    },
  },
  {
    name: 'receive() of a stream that ends without a byte reports 0 once',
    async run(driver) {
      const link = await driver.link(0, { generation: 77 });
      link.peer.finish();
      driver.receive(link);
      const { result, buffer, more, generation } = await driver.next(OP_RECEIVE, 0);
      assert.deepEqual([result, buffer, more, generation], [0, -1, 0, 77]);
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  {
    name: 'receive() started after the bytes and the end arrived reports both',
    async run(driver) {
      const listener = await driver.listening();
      const link = await driver.acceptedLink(0, listener);
      link.peer.write(streamBytes(20_000));
      link.peer.finish();
      await driver.turns();
      const flow = echo(driver, link);
      await driver.until('the end', () => flow.end === 0 && link.peer.receivedBytes === 20_000);
      assertContent(link.peer.content(), streamBytes(20_000));
    },
  },
  {
    // A read stops short before an urgent byte though more waits behind it, and nothing else will come to say so.
    name: 'receive() brings what is behind an urgent byte',
    async run(driver) {
      const listener = await driver.listening();
      for (const [slot, ends] of [false, true].entries()) {
        const link = await driver.acceptedLink(slot * 2, listener);
        link.peer.write(streamBytes(1000));
        link.peer.writeUrgent();
        link.peer.write(streamBytes(1000, 1000));
        if (ends) link.peer.finish();
        await driver.turns();
        const flow = echo(driver, link);
        await driver.until('the bytes', () => link.peer.receivedBytes === 2000);
        assertContent(link.peer.content(), streamBytes(2000));
        link.peer.finish();
        await driver.until('the end', () => flow.end === 0);
      }
    },
  },
  {
    name: 'receive() of a reset reports -ECONNRESET, never a clean end',
    async run(driver) {
      const link = await driver.link(0);
      driver.receive(link);
      await driver.turns(2);
      link.peer.reset();
      const { result, buffer, more } = await driver.next(OP_RECEIVE, 0);
      assert.deepEqual([errnoName(result), buffer, more], ['ECONNRESET', -1, 0]);
    },
  },
  {
    name: 'receive() started after bytes and a reset arrived reports both',
    async run(driver) {
      const listener = await driver.listening();
      for (const isAccepted of [true, false]) {
        const link = isAccepted ? await driver.acceptedLink(2, listener) : await driver.link(0);
        driver.receive(link);
        driver.cancelReceive(link);
        assert.equal((await driver.next(OP_RECEIVE)).result, -ECANCELED);
        link.peer.write(streamBytes(20_000));
        await driver.turns(3);
        link.peer.reset();
        await driver.turns(3);
        driver.receive(link);
        assert.equal((await driver.next(OP_RECEIVE)).result, BUFFER_BYTES);
        assert.equal((await driver.next(OP_RECEIVE)).result, 20_000 - BUFFER_BYTES);
        assert.equal(errnoName((await driver.next(OP_RECEIVE)).result), 'ECONNRESET');
      }
    },
  },
  {
    name: 'receive() of bytes and then a reset never ends clean',
    async run(driver) {
      for (let round = 1; round <= 20; round++) {
        const link = await driver.link(0, { generation: round });
        if (round % 2 === 0) driver.receive(link);
        link.peer.write(streamBytes(50_000));
        link.peer.reset();
        if (round % 3 === 0) await driver.turns(2);
        if (!driver.isOpen(OP_RECEIVE, link) && round % 2 === 1) driver.receive(link);
        let event = await driver.next(OP_RECEIVE, 0);
        while (event.result > 0) {
          driver.release(event.buffer);
          event = await driver.next(OP_RECEIVE, 0);
        }
        assert.equal(errnoName(event.result), errnoName(ECONNRESET));
        driver.close(link, 'reset');
      }
    },
  },
];

const CANCEL_CASES: readonly EngineCase[] = [
  {
    name: 'cancelReceive() with nothing to receive reports -ECANCELED once, then receiving works',
    async run(driver) {
      const link = await driver.link(0);
      for (let round = 0; round < 10; round++) {
        driver.receive(link);
        if (round % 2 === 0) await driver.turn();
        driver.cancelReceive(link);
        const { result, buffer, more } = await driver.next(OP_RECEIVE, 0);
        assert.deepEqual([result, buffer, more], [-ECANCELED, -1, 0]);
      }
      echo(driver, link);
      link.peer.write(streamBytes(3));
      await driver.until('the echo', () => link.peer.receivedBytes === 3);
    },
  },
  {
    name: 'cancelReceive() with nothing in flight reports nothing',
    async run(driver) {
      const link = await driver.link(0);
      driver.cancelReceive(link);
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
      echo(driver, link);
      link.peer.write(streamBytes(3));
      await driver.until('the echo', () => link.peer.receivedBytes === 3);
    },
  },
  {
    name: 'cancelReceive() of a receive started in the same batch, with bytes waiting, loses none',
    async run(driver) {
      const link = await driver.link(0);
      const flow = new Flow(driver, link, link);
      for (let round = 0; round < 50; round++) {
        link.peer.write(streamBytes(700, round * 700));
        flow.start();
        flow.stop();
        await driver.until('the last event', () => !flow.receiving);
      }
      flow.start();
      await driver.until('the echo', () => link.peer.receivedBytes === 50 * 700);
      assertContent(link.peer.content(), streamBytes(50 * 700));
    },
  },
  {
    name: 'cancelReceive() racing with bytes loses none of 2 MB',
    async run(driver) {
      const link = await driver.link(0);
      const flow = echo(driver, link);
      const bytes = 2_000_000;
      let written = 0;
      let turns = 0;
      await driver.until('the echo', () => {
        if (written < bytes && link.peer.flushed) {
          const next = Math.min(bytes - written, 1 + ((turns * 7919) % 40_000));
          link.peer.write(streamBytes(next, written));
          written += next;
        }
        if (turns++ % 2 === 0) flow.interrupt();
        flow.start();
        return link.peer.receivedBytes >= bytes;
      });
      assertContent(link.peer.content(), streamBytes(bytes));
    },
  },
  {
    name: 'cancelReceive() racing with the end of the stream never hides it',
    async run(driver) {
      for (let round = 1; round <= 20; round++) {
        const link = await driver.link(0, { generation: round });
        driver.receive(link);
        await driver.turn();
        link.peer.finish();
        driver.cancelReceive(link);
        let { result, more } = await driver.next(OP_RECEIVE, 0);
        assert.equal(more, 0);
        if (result === -ECANCELED) {
          driver.receive(link);
          ({ result, more } = await driver.next(OP_RECEIVE, 0));
        }
        assert.deepEqual([result, more], [0, 0]);
        driver.close(link);
      }
    },
  },
];

/** Receives until no buffer is free; the buffers now held, in order. */
async function exhaust(driver: EngineDriver, link: Link): Promise<number[]> {
  const buffers: number[] = [];
  for (;;) {
    const { result, buffer, more } = await driver.next(OP_RECEIVE, 0);
    if (result > 0) {
      buffers.push(buffer);
      // Once buffers are scarce a receive ends with each.
      if (more === 0) driver.receive(link);
      continue;
    }
    assert.deepEqual([errnoName(result), buffer, more], [errnoName(ENOBUFS), -1, 0]);
    return buffers;
  }
}

const POOL_CASES: readonly EngineCase[] = [
  {
    name: 'receive() reports -ENOBUFS when no buffer is free, and goes on after a release',
    options: { bufferBytes: 4096, bufferCount: 4 },
    async run(driver) {
      const { engine } = driver;
      assert.equal(engine.bufferCount, 4);
      const link = await driver.link(0);
      link.peer.write(streamBytes(200_000));
      for (let round = 0; round < 3; round++) {
        driver.receive(link);
        const buffers = await exhaust(driver, link);
        assert.deepEqual(buffers.toSorted(), [0, 1, 2, 3]);
        assert.equal(engine.buffersInUse(), 4);
        assert.equal(engine.hasBuffer(), false);
        for (const buffer of buffers) driver.release(buffer);
        assert.equal(engine.hasBuffer(), true);
        assert.equal(engine.buffersInUse(), 0);
      }
    },
  },
  {
    name: 'receive() with a pool of 2 buffers brings 500 KB in order',
    options: { bufferBytes: 4096, bufferCount: 2 },
    async run(driver) {
      await echoesBack(driver, 500_000);
      assert.equal(driver.engine.buffersInUse(), 0);
    },
  },
  {
    name: 'receive() at 8 endpoints that share 4 buffers brings all bytes of each',
    options: { bufferBytes: 4096, bufferCount: 4 },
    async run(driver) {
      const flows: Flow[] = [];
      const bytes = 100_000;
      for (let endpoint = 0; endpoint < 8; endpoint++) {
        flows.push(echo(driver, await driver.link(endpoint)));
      }
      for (const { source } of flows) source.peer.write(streamBytes(bytes, source.endpoint * 9));
      let turn = 0;
      await driver.until('every echo', () => {
        // Not always the same one first, as the worker's queue of waiting directions has it.
        turn++;
        for (let index = 0; index < 8; index++) flows[(turn + index) % 8]?.start();
        return flows.every(({ source }) => source.peer.receivedBytes >= bytes);
      });
      for (const { source } of flows) {
        assertContent(source.peer.content(), streamBytes(bytes, source.endpoint * 9));
      }
    },
  },
  {
    name: 'receive() grows into a large pool when many endpoints hold buffers',
    options: { bufferBytes: 1024, bufferCount: 512 },
    async run(driver) {
      const link = await driver.link(0);
      const bytes = 300 * 1024;
      link.peer.write(streamBytes(bytes));
      let received = 0;
      driver.receive(link);
      while (received < bytes) {
        const { result, more } = await driver.next(OP_RECEIVE, 0);
        assert(result > 0 || result === -ENOBUFS, errnoName(result));
        received += Math.max(0, result);
        if (more === 0) {
          assert(driver.engine.hasBuffer(), 'Buffers are free, yet none can be had');
          driver.receive(link);
        }
      }
      assert(driver.engine.buffersInUse() >= 300);
    },
  },
];

export const RECEIVE_CASES = [...STREAM_CASES, ...CANCEL_CASES, ...POOL_CASES];
