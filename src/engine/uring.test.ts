// What is special to the io_uring engine: a full submission queue, an overflowing completion queue, and its end.
// The behaviour that all engines share is in conformance.test.ts.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { ECONNREFUSED } from '../sys/errno.ts';
import { createEventfd, signalEventfd } from '../sys/eventfd.ts';
import { raiseDescriptorLimit } from '../sys/rlimit.ts';
import { parseAddress, type SocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { skipReason } from '../testing/netns.ts';
import {
  EVENT_ENDPOINT,
  EVENT_GENERATION,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  OP_ACCEPT,
  OP_CONNECT,
} from './proactor.ts';
import { UringEngine } from './uring.ts';

/** More than the 4096 entries of the completion queue, far more than the 1024 of the submission queue. */
const MANY = 6000;
const LOOPBACK: SocketAddress = {
  ...(parseAddress('127.0.0.1') as Pick<SocketAddress, 'family' | 'words'>),
  port: 0,
};
const LISTEN = { backlog: 4096, fastOpenQueue: 0, reusePort: false, v6Only: false };

interface Event {
  readonly operation: number;
  readonly endpoint: number;
  readonly generation: number;
  readonly result: number;
  readonly more: number;
}

interface OpenEngine extends Disposable {
  readonly engine: UringEngine;
  readonly wakeFd: number;
  /** Waits until `count` events have come. */
  take(count: number): Event[];
}

function open(slots: number): OpenEngine {
  const wakeFd = createEventfd();
  const engine = UringEngine.open({ slots, wakeFd, bufferBytes: 4096, bufferCount: 64 });
  if (typeof engine === 'number') throw new Error(`io_uring is refused: errno ${-engine}`);
  const take = (count: number): Event[] => {
    const events: Event[] = [];
    while (events.length < count) {
      const arrived = engine.wait(5000);
      assert.ok(arrived <= engine.events.length / EVENT_WORDS);
      for (let index = 0; index < arrived; index++) {
        const at = index * EVENT_WORDS;
        events.push({
          operation: engine.events[at + EVENT_OP] as number,
          endpoint: engine.events[at + EVENT_ENDPOINT] as number,
          generation: engine.events[at + EVENT_GENERATION] as number,
          result: engine.events[at + EVENT_RESULT] as number,
          more: engine.events[at + EVENT_MORE] as number,
        });
      }
    }
    return events;
  };
  return {
    engine,
    wakeFd,
    take,
    [Symbol.dispose]: () => {
      engine.end();
      closeDescriptor(wakeFd);
    },
  };
}

function connectMany(engine: UringEngine, count: number, port: number): number[] {
  const words = Uint32Array.from(LOOPBACK.words);
  return Array.from({ length: count }, (_, endpoint) => {
    const socket = engine.openSocket(4);
    assert.ok(socket >= 0, `socket ${endpoint}: errno ${-socket}`);
    engine.connect(endpoint, endpoint + 1, socket, 4, words, 0, port);
    return socket;
  });
}

test('UringEngine reports each of 6000 connects started at once, with its own endpoint and generation', (t) => {
  if (raiseDescriptorLimit().soft < MANY + 500) {
    t.skip(skipReason('fewer than 6,500 descriptors are allowed'));
    return;
  }
  const listener = openListener(LOOPBACK, LISTEN);
  const port = boundAddress(listener)?.port as number;
  closeDescriptor(listener);
  using opened = open(MANY);
  // A refused connect completes while it is submitted: the completion queue overflows before anybody looks.
  const sockets = connectMany(opened.engine, MANY, port);
  const events = opened.take(MANY);
  assert.equal(events.length, MANY);
  assert.equal(new Set(events.map(({ endpoint }) => endpoint)).size, MANY);
  for (const { operation, endpoint, generation, result, more } of events) {
    assert.deepEqual([operation, result, more], [OP_CONNECT, -ECONNREFUSED, 0]);
    assert.equal(generation, endpoint + 1);
  }
  for (const socket of sockets) opened.engine.close(0, socket);
});

test('UringEngine accepts and connects thousands at once, and ends without leaving a descriptor', (t) => {
  const count = 2500;
  if (raiseDescriptorLimit().soft < count * 2 + 500) {
    t.skip(skipReason('fewer than 5,500 descriptors are allowed'));
    return;
  }
  const before = readdirSync('/proc/self/fd').length;
  {
    const listener = openListener(LOOPBACK, LISTEN);
    using opened = open(count);
    const { engine } = opened;
    engine.accept(listener, 7, false);
    const sockets = connectMany(engine, count, boundAddress(listener)?.port as number);
    const events = opened.take(count * 2);
    const accepted = events.filter(({ operation }) => operation === OP_ACCEPT);
    assert.ok(accepted.every(({ endpoint, result }) => endpoint === 7 && result > 0));
    assert.equal(new Set(accepted.map(({ result }) => result)).size, count);
    const connected = events.filter(({ operation }) => operation === OP_CONNECT);
    assert.ok(connected.every(({ result }) => result === 0));
    // The last closes are only queued when the engine ends: it must still perform them.
    for (const socket of sockets) engine.close(0, socket);
    for (const { result } of accepted) engine.reset(0, result);
    closeDescriptor(listener);
  }
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

test('UringEngine closes a connection that was accepted but never handed out when it ends', () => {
  const before = readdirSync('/proc/self/fd').length;
  {
    const listener = openListener(LOOPBACK, LISTEN);
    using opened = open(8);
    opened.engine.accept(listener, 0, false);
    const [socket] = connectMany(opened.engine, 1, boundAddress(listener)?.port as number);
    // Submitted, completed inside the kernel, and then the thread dies before it looks.
    opened.engine.close(0, socket as number);
    closeDescriptor(listener);
  }
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

test('UringEngine.wait() ends by the eventfd without an event, again and again', () => {
  using opened = open(8);
  for (let turn = 0; turn < 3; turn++) {
    signalEventfd(opened.wakeFd);
    assert.equal(opened.engine.wait(-1), 0);
  }
});
