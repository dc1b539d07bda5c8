// Conformance cases: send, to peers that read, that never read, and that are gone.

import assert from 'node:assert/strict';
import { OP_RECEIVE, OP_SEND } from '../engine/proactor.ts';
import { ECANCELED, ECONNRESET, EPIPE, errnoName } from '../sys/errno.ts';
import type { EngineCase } from './engine-case.ts';
import type { EngineDriver, Link } from './engine-driver.ts';
import { assertContent, echo, Flow, fillBuffer, streamBytes } from './engine-flow.ts';

/** More than the kernel keeps for one connection whose peer does not read (4 MB of send buffer and the peer's window). */
const BLOCKING_BYTES = 12_000_000;
const SMALL_RECEIVE_BYTES = 4096;
const GONE = [-EPIPE, -ECONNRESET];

/** A flow towards a peer that does not read, after everything that could move has moved. */
async function blockedFlow(driver: EngineDriver): Promise<Flow> {
  const source = await driver.link(0);
  const target = await driver.link(3, { receiveBytes: SMALL_RECEIVE_BYTES });
  target.peer.reading = false;
  const flow = new Flow(driver, source, target).start();
  source.peer.write(streamBytes(BLOCKING_BYTES));
  let sent = -1;
  let still = 0;
  await driver.until('the sender to block', () => {
    still = sent === flow.sentBytes && flow.busy ? still + 1 : 0;
    sent = flow.sentBytes;
    return still > 20;
  });
  assert(flow.sentBytes < BLOCKING_BYTES, 'The kernel took everything');
  return flow;
}

/** Sends one buffer and returns the result; sends the rest when it was short. */
async function sendWhole(
  driver: EngineDriver,
  link: Link,
  buffer: number,
  offset: number,
  bytes: number,
): Promise<void> {
  let sent = 0;
  while (sent < bytes) {
    driver.send(link, buffer, offset + sent, bytes - sent);
    const { result, more } = await driver.next(OP_SEND, link.endpoint);
    assert(result > 0 && result <= bytes - sent, errnoName(result));
    assert.equal(more, 0);
    sent += result;
  }
}

/** Sends until the peer's reset shows; the results before it are counts. */
async function sendUntilGone(driver: EngineDriver, link: Link, buffer: number): Promise<number> {
  for (;;) {
    driver.send(link, buffer, 0, 1000);
    const { result } = await driver.next(OP_SEND, link.endpoint);
    if (result < 0) return result;
  }
}

export const SEND_CASES: readonly EngineCase[] = [
  {
    name: 'send() of a whole buffer, of one byte and from inside a buffer',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 16_384);
      const link = await driver.link(1);
      for (const [offset, bytes] of [
        [0, 16_384],
        [0, 1],
        [16_383, 1],
        [5, 9000],
      ] as const) {
        const before = link.peer.receivedBytes;
        await sendWhole(driver, link, buffer, offset, bytes);
        await driver.until('the bytes', () => link.peer.receivedBytes >= before + bytes);
        assertContent(link.peer.content().subarray(before), streamBytes(bytes, offset));
      }
    },
  },
  {
    name: 'send() of 500 single bytes keeps their order',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 500);
      const link = await driver.link(1);
      driver.engine.setNoDelay(link.socket);
      for (let at = 0; at < 500; at++) await sendWhole(driver, link, buffer, at, 1);
      await driver.until('the bytes', () => link.peer.receivedBytes >= 500);
      assertContent(link.peer.content(), streamBytes(500));
    },
  },
  {
    name: 'send() on an accepted socket before anything was received there',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 2000);
      const listener = await driver.listening();
      // The endpoint had another socket before, which must not be taken for the new one: not even by its number.
      const old = await driver.link(5);
      const link = await driver.acceptedLink(5, listener, 2);
      driver.close(old);
      await sendWhole(driver, link, buffer, 0, 2000);
      await driver.until('the bytes', () => link.peer.receivedBytes >= 2000);
      assertContent(link.peer.content(), streamBytes(2000));
      echo(driver, link);
      link.peer.write(streamBytes(7, 2000));
      await driver.until('the echo', () => link.peer.receivedBytes >= 2007);
    },
  },
  {
    name: 'send() blocked on an accepted socket that receives nothing goes on when the peer reads',
    options: { bufferBytes: 1 << 18, bufferCount: 16 },
    async run(driver) {
      const feeder = await driver.link(0);
      const listener = await driver.listening();
      const link = await driver.acceptedLink(3, listener);
      link.peer.reading = false;
      const flow = new Flow(driver, feeder, link).start();
      feeder.peer.write(streamBytes(BLOCKING_BYTES));
      await driver.turns(100);
      link.peer.reading = true;
      await driver.until('the bytes', () => link.peer.receivedBytes >= BLOCKING_BYTES);
      assert.equal(flow.sentBytes, BLOCKING_BYTES);
      assertContent(link.peer.content(), streamBytes(BLOCKING_BYTES));
    },
  },
  {
    name: 'send() to a peer that never reads waits; when it reads every byte arrives in order',
    async run(driver) {
      const flow = await blockedFlow(driver);
      const { peer } = flow.target;
      peer.reading = true;
      await driver.until('the bytes', () => peer.receivedBytes >= BLOCKING_BYTES);
      assert.equal(flow.sentBytes, BLOCKING_BYTES);
      assertContent(peer.content(), streamBytes(BLOCKING_BYTES));
    },
  },
  {
    name: 'send() blocked: the other direction of both links still works',
    async run(driver) {
      const { source, target } = await blockedFlow(driver);
      const back = new Flow(driver, target, source).start();
      target.peer.write(streamBytes(100_000));
      await driver.until('the bytes back', () => source.peer.receivedBytes >= 100_000);
      assert.equal(back.sentBytes, 100_000);
      assertContent(source.peer.content(), streamBytes(100_000));
    },
  },
  {
    name: 'cancel() of a blocked send reports one last event: -ECANCELED, or what was sent',
    async run(driver) {
      const flow = await blockedFlow(driver);
      flow.stop();
      flow.detach();
      driver.cancel(flow.target);
      const { result, more } = await driver.next(OP_SEND, flow.target.endpoint);
      assert(result === -ECANCELED || result > 0, errnoName(result));
      assert.equal(more, 0);
    },
  },
  {
    name: 'send() blocked reports the reset of its peer',
    async run(driver) {
      const flow = await blockedFlow(driver);
      flow.target.peer.reset();
      await driver.until('the failure', () => flow.sendFailure !== 0);
      assert(GONE.includes(flow.sendFailure), errnoName(flow.sendFailure));
    },
  },
  {
    name: 'send() to a peer that has reset reports -EPIPE or -ECONNRESET, again and again',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 1000);
      const link = await driver.link(1);
      link.peer.reset();
      for (let round = 0; round < 3; round++) {
        const result = await sendUntilGone(driver, link, buffer);
        assert(GONE.includes(result), errnoName(result));
      }
    },
  },
  {
    name: 'send() to a peer that closed with our bytes unread reports the reset; receive does too',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 1000);
      const link = await driver.link(1);
      link.peer.reading = false;
      await sendWhole(driver, link, buffer, 0, 1000);
      driver.receive(link);
      link.peer.close();
      const event = await driver.next(OP_RECEIVE, 1);
      assert.equal(errnoName(event.result), 'ECONNRESET');
      const result = await sendUntilGone(driver, link, buffer);
      assert(GONE.includes(result), errnoName(result));
    },
  },
  {
    name: 'a send that meets a reset loses nothing of what the peer had sent before',
    async run(driver) {
      const feeder = await driver.link(0);
      const buffer = await fillBuffer(driver, feeder, 1000);
      for (const receivesBefore of [true, false]) {
        const link = await driver.link(receivesBefore ? 1 : 2);
        if (receivesBefore) driver.receive(link);
        link.peer.write(streamBytes(1000));
        link.peer.reset();
        const failure = await sendUntilGone(driver, link, buffer);
        assert(GONE.includes(failure), errnoName(failure));
        if (!receivesBefore) driver.receive(link);
        assert.equal((await driver.next(OP_RECEIVE, link.endpoint)).result, 1000);
        // The kernel tells of a reset once: to the send, or to this.
        const { result, more } = await driver.next(OP_RECEIVE, link.endpoint);
        assert(result === 0 || result === -ECONNRESET, errnoName(result));
        assert.equal(more, 0);
      }
    },
  },
  {
    name: 'send() and receive() at full speed in both directions of one session',
    async run(driver) {
      const client = await driver.link(0);
      const backend = await driver.link(1);
      const bytes = 3_000_000;
      const flows = [new Flow(driver, client, backend), new Flow(driver, backend, client)];
      client.peer.write(streamBytes(bytes));
      backend.peer.write(streamBytes(bytes, 999));
      await driver.until('both streams', () => {
        for (const flow of flows) flow.start();
        return client.peer.receivedBytes >= bytes && backend.peer.receivedBytes >= bytes;
      });
      assertContent(backend.peer.content(), streamBytes(bytes));
      assertContent(client.peer.content(), streamBytes(bytes, 999));
    },
  },
];
