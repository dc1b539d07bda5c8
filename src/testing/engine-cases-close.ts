// Conformance cases: half-close in both orders, FIN and RST as the peer sees them, cancel of everything, reused endpoints.

import assert from 'node:assert/strict';
import { OP_ACCEPT, OP_RECEIVE, OP_SEND } from '../engine/proactor.ts';
import { ECANCELED, ECONNRESET, errnoName } from '../sys/errno.ts';
import type { EngineCase } from './engine-case.ts';
import type { EngineDriver, Link } from './engine-driver.ts';
import { assertContent, echo, Flow, fillBuffer, streamBytes } from './engine-flow.ts';

const BYTES = 200_000;

async function sendBytes(driver: EngineDriver, link: Link, bytes: number): Promise<void> {
  const feeder = await driver.link(60);
  const buffer = await fillBuffer(driver, feeder, bytes);
  driver.send(link, buffer, 0, bytes);
  assert.equal((await driver.next(OP_SEND, link.endpoint)).result, bytes);
}

/** Closes an accepted socket that no endpoint ever had. */
async function closesStray(driver: EngineDriver, how: 'close' | 'reset'): Promise<void> {
  const listener = await driver.listening();
  const peer = driver.connectPeer(listener);
  const { result } = await driver.next(OP_ACCEPT, 0);
  driver.closeStray(result, how);
  await driver.until('the peer to see it', () => peer.ended || peer.failure !== 0);
  assert.equal(peer.failure, how === 'close' ? 0 : -ECONNRESET);
}

const HALF_CLOSE_CASES: readonly EngineCase[] = [
  {
    name: 'the peer ends first: its end is received and sending goes on',
    async run(driver) {
      const link = await driver.link(0);
      link.peer.write(streamBytes(10));
      link.peer.finish();
      const flow = echo(driver, link);
      await driver.until('the end', () => flow.end === 0 && link.peer.receivedBytes === 10);
      const feeder = await driver.link(2);
      const flow2 = new Flow(driver, feeder, link).start();
      feeder.peer.write(streamBytes(BYTES, 10));
      await driver.until('the bytes', () => link.peer.receivedBytes === BYTES + 10);
      assert.equal(flow2.sentBytes, BYTES);
      assert.equal(link.peer.ended, false);
      driver.engine.shutdownWrite(link.socket);
      await driver.until('the end at the peer', () => link.peer.ended);
      assertContent(link.peer.content(), streamBytes(BYTES + 10));
    },
  },
  {
    name: 'shutdownWrite() first: the peer sees the end, and its bytes are received until its own',
    async run(driver) {
      const link = await driver.link(0);
      const sink = await driver.link(1);
      const flow = new Flow(driver, link, sink).start();
      driver.engine.shutdownWrite(link.socket);
      await driver.until('the end at the peer', () => link.peer.ended);
      link.peer.write(streamBytes(BYTES));
      link.peer.finish();
      await driver.until('the end', () => flow.end !== null && !flow.busy);
      assert.equal(flow.end, 0);
      await driver.until('the bytes', () => sink.peer.receivedBytes >= BYTES);
      assertContent(sink.peer.content(), streamBytes(BYTES));
    },
  },
  {
    name: 'shutdownWrite() before any receive was started: receiving still works',
    async run(driver) {
      const listener = await driver.listening();
      const link = await driver.acceptedLink(0, listener);
      driver.engine.shutdownWrite(link.socket);
      const sink = await driver.link(1);
      await driver.until('the end at the peer', () => link.peer.ended);
      const flow = new Flow(driver, link, sink).start();
      link.peer.write(streamBytes(BYTES));
      link.peer.finish();
      await driver.until('the end', () => flow.end === 0 && sink.peer.receivedBytes === BYTES);
    },
  },
  {
    name: 'shutdownWrite() after a send: the peer gets every byte, then the end',
    async run(driver) {
      const link = await driver.link(0);
      await sendBytes(driver, link, 16_000);
      driver.engine.shutdownWrite(link.socket);
      await driver.until('the end at the peer', () => link.peer.ended);
      assertContent(link.peer.content(), streamBytes(16_000));
    },
  },
  {
    name: 'both sides end at once',
    async run(driver) {
      const link = await driver.link(0);
      driver.receive(link);
      link.peer.finish();
      driver.engine.shutdownWrite(link.socket);
      assert.equal((await driver.next(OP_RECEIVE, 0)).result, 0);
      await driver.until('the end at the peer', () => link.peer.ended);
      assert.equal(link.peer.failure, 0);
    },
  },
];

const CLOSED_CASES: readonly EngineCase[] = [
  {
    name: 'close() sends what was sent and FIN',
    async run(driver) {
      const link = await driver.link(0);
      await sendBytes(driver, link, 16_000);
      driver.close(link);
      await driver.until('the end at the peer', () => link.peer.ended || link.peer.failure !== 0);
      assert.equal(link.peer.failure, 0);
      assertContent(link.peer.content(), streamBytes(16_000));
    },
  },
  {
    name: 'reset() sends RST',
    async run(driver) {
      const link = await driver.link(0);
      await sendBytes(driver, link, 100);
      await driver.until('the bytes', () => link.peer.receivedBytes === 100);
      driver.close(link, 'reset');
      await driver.until('the reset', () => link.peer.ended || link.peer.failure !== 0);
      assert.equal(errnoName(link.peer.failure), 'ECONNRESET');
    },
  },
  {
    name: 'reset() after shutdownWrite() still sends RST when the peer has not ended',
    async run(driver) {
      const link = await driver.link(0);
      driver.engine.shutdownWrite(link.socket);
      await driver.until('the end at the peer', () => link.peer.ended);
      driver.close(link, 'reset');
      await driver.turns(5);
      link.peer.write(streamBytes(1));
      // A clean end was seen already; the reset shows to the next writes.
      await driver.until('the reset', () => {
        link.peer.ended = false;
        link.peer.poll();
        return link.peer.failure !== 0 || link.peer.isBroken;
      });
    },
  },
  {
    name: 'reset() right after shutdownWrite() leaves nothing open',
    async run(driver) {
      for (const cancelled of [false, true]) {
        const link = await driver.link(cancelled ? 1 : 0);
        if (cancelled) driver.receive(link);
        driver.engine.shutdownWrite(link.socket);
        if (cancelled) {
          driver.cancel(link);
          assert.equal((await driver.next(OP_RECEIVE, 1)).result, -ECANCELED);
        }
        driver.close(link, 'reset');
        await driver.until('the end at the peer', () => {
          return link.peer.ended || link.peer.failure !== 0;
        });
        await driver.until('the reset', () => {
          link.peer.write(streamBytes(1));
          return link.peer.isBroken;
        });
      }
    },
  },
  {
    name: 'closeNow() has sent FIN or RST when it returns',
    async run(driver) {
      for (const how of [0, 1]) {
        const link = await driver.link(how * 2);
        driver.closeNow(link, how);
        // No turn of the engine in between.
        link.peer.poll();
        assert.equal(link.peer.failure, how === 1 ? -ECONNRESET : 0);
        assert.equal(link.peer.ended, how === 0);
      }
    },
  },
  { name: 'close() of a socket without endpoint sends FIN', run: (d) => closesStray(d, 'close') },
  { name: 'reset() of a socket without endpoint sends RST', run: (d) => closesStray(d, 'reset') },
];

/** A link whose receive waits and whose send is blocked. */
async function busyLink(driver: EngineDriver, endpoint: number, generation: number): Promise<Link> {
  const link = await driver.link(endpoint, { generation, receiveBytes: 4096 });
  link.peer.reading = false;
  const feeder = await driver.link(endpoint + 20, { generation });
  const flow = new Flow(driver, feeder, link).start();
  feeder.peer.write(streamBytes(8_000_000));
  driver.receive(link);
  let sent = -1;
  let still = 0;
  await driver.until('the sender to block', () => {
    still = sent === flow.sentBytes && flow.busy ? still + 1 : 0;
    sent = flow.sentBytes;
    return still > 10;
  });
  flow.stop();
  await driver.until('the feeder to stop', () => !flow.receiving);
  flow.detach();
  return link;
}

const CANCEL_CASES: readonly EngineCase[] = [
  {
    name: 'cancel() ends a receive and a blocked send: each reports one last event',
    options: { bufferBytes: 1 << 16, bufferCount: 512 },
    async run(driver) {
      const link = await busyLink(driver, 0, 1);
      driver.cancel(link);
      const receive = await driver.next(OP_RECEIVE, 0);
      const send = await driver.next(OP_SEND, 0);
      assert.equal(errnoName(receive.result), 'ECANCELED');
      assert(send.result > 0 || errnoName(send.result) === 'ECANCELED', errnoName(send.result));
      assert.deepEqual([receive.more, send.more], [0, 0]);
      await driver.turns();
      assert.equal(driver.inFlight, 0);
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  {
    name: 'cancel() with nothing in flight reports nothing',
    async run(driver) {
      const link = await driver.link(0);
      driver.cancel(link);
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  {
    name: 'cancel() of operations started in the same batch: each reports one last event',
    async run(driver) {
      for (let generation = 1; generation <= 10; generation++) {
        const link = await driver.link(0, { generation });
        driver.receive(link);
        driver.cancel(link);
        const { result, more } = await driver.next(OP_RECEIVE, 0);
        assert.deepEqual([errnoName(result), more], ['ECANCELED', 0]);
        driver.close(link, 'reset');
      }
    },
  },
  {
    name: 'cancel() racing with bytes and resets: one last event, no buffer lost',
    async run(driver) {
      for (let generation = 1; generation <= 30; generation++) {
        const link = await driver.link(0, { generation });
        driver.receive(link);
        if (generation % 2 === 0) await driver.turn();
        link.peer.write(streamBytes(30_000));
        if (generation % 3 === 0) link.peer.reset();
        driver.cancel(link);
        await driver.until('the last event', () => driver.inFlight === 0);
        for (const event of driver.takeAll()) if (event.buffer >= 0) driver.release(event.buffer);
        driver.close(link, 'reset');
      }
      assert.equal(driver.engine.buffersInUse(), 0);
    },
  },
  {
    name: 'an endpoint used again gets no event of its old socket',
    async run(driver) {
      const rounds = 40;
      for (let generation = 1; generation <= rounds; generation++) {
        const old = await driver.link(0, { generation });
        driver.receive(old);
        await driver.turn(0);
        driver.cancel(old);
        assert.equal((await driver.next(OP_RECEIVE, 0)).generation, generation);
        old.peer.write(streamBytes(100));
        if (generation % 2 === 0) old.peer.finish();
        driver.close(old, generation % 3 === 0 ? 'reset' : 'close');
      }
      const link = await driver.link(0, { generation: rounds + 1 });
      echo(driver, link);
      await driver.turns();
      assert.equal(link.peer.receivedBytes, 0);
      link.peer.write(streamBytes(50, 5));
      await driver.until('the echo', () => link.peer.receivedBytes === 50);
      assertContent(link.peer.content(), streamBytes(50, 5));
      assert.deepEqual(driver.takeAll(), []);
    },
  },
  {
    name: 'endpoints whose peers end while they are cancelled start afresh under a new generation',
    async run(driver) {
      const count = 12;
      const links: Link[] = [];
      for (let endpoint = 0; endpoint < count; endpoint++) links.push(await driver.link(endpoint));
      for (const link of links) driver.receive(link);
      await driver.turns(2);
      for (const link of links) link.peer.finish();
      for (const link of links) driver.cancel(link);
      for (const link of links) {
        const { result } = await driver.next(OP_RECEIVE, link.endpoint);
        assert(result === 0 || errnoName(result) === 'ECANCELED', errnoName(result));
        driver.close(link);
      }
      for (let endpoint = 0; endpoint < count; endpoint++) {
        const link = await driver.link(endpoint, { generation: 2 });
        driver.receive(link);
      }
      await driver.turns();
      assert.deepEqual(driver.takeAll(), []);
    },
  },
];

export const CLOSE_CASES = [...HALF_CLOSE_CASES, ...CLOSED_CASES, ...CANCEL_CASES];
