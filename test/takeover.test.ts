// Restart without a lost connection: a new process takes the listening sockets of a running one over.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeoverName } from '../src/control/takeover-protocol.ts';
import { closeDescriptor } from '../src/sys/socket.ts';
import { connectUnix, openUnixSocket } from '../src/sys/unix-socket.ts';
import { ClientStream } from '../src/testing/client-stream.ts';
import { echoOnce, exchange, openClient, readToEnd } from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy, TEST_ENGINE } from '../src/testing/proxy-process.ts';
import {
  addressText,
  DONE,
  failureOf,
  openSuccessor,
  startSuccessor,
} from '../src/testing/successor.ts';
import { echo, startBackend } from '../src/testing/test-backends.ts';
import { until, within } from '../src/testing/wait.ts';

const skip = TEST_ENGINE === 'portable' && 'node:net can neither pass on nor take over a listener';

test('takeover: no connection is refused or reset over several restarts, whatever the number of workers', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  let current = await startProxy({
    backends,
    settings: { WORKERS: 2, SHUTDOWN_TIMEOUT_SECS: 600 },
  });
  await using stream = new ClientStream(current.address);
  const ended: ProxyProcess[] = [];
  try {
    for (const WORKERS of [4, 1, 3, 3, 2]) {
      await stream.openLasting();
      await stream.more(150);
      const next = await startSuccessor(current, backends, { WORKERS });
      await current.untilLog('Draining');
      assert.equal(current.log('Draining')?.takenOverBy, next.pid);
      await stream.exchangeLasting();
      ended.push(current);
      current = next;
      await stream.more(150);
    }
    await stream.exchangeLasting();
    assert.ok(
      ended.every(({ exit }) => exit === null),
      'sessions hold their processes',
    );
    stream.endLasting();
    for (const old of ended) assert.deepEqual(await within('the end', old.exited), DONE);
    await stream.stop();
    assert.deepEqual(stream.failures, []);
    assert.deepEqual(await current.stop(), DONE);
  } finally {
    await stream.stop();
    for (const proxy of [current, ...ended]) await proxy[Symbol.asyncDispose]();
  }
});

test('takeover: who waits in the queue of the old process is served by the new one', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends, settings: { MAX_CONNECTIONS: 1, WORKERS: 1 } });
  const held = await openClient(old.address);
  await echoOnce(held, 'held');
  const waiting = await Promise.all(Array.from({ length: 40 }, () => openClient(old.address)));
  const answers = waiting.map((client) => {
    const reading = readToEnd(client);
    client.end('waiting');
    return reading;
  });
  await using next = await startSuccessor(old, backends);
  for (const answer of answers) {
    const { bytes, end } = await answer;
    assert.deepEqual([bytes.toString(), end], ['waiting', 'fin']);
  }
  await echoOnce(held, 'still held');
  held.end();
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.equal((await exchange(next.address, 'after')).text, 'after');
});

test('takeover: from one engine to the other and back', { skip }, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using first = await startProxy({ backends, settings: { ENGINE: 'uring' } });
  await using stream = new ClientStream(first.address);
  await stream.more(50);
  await using second = await startSuccessor(first, backends, { ENGINE: 'epoll' });
  await stream.more(100);
  await using third = await startSuccessor(second, backends, { ENGINE: 'uring' });
  await stream.more(100);
  await stream.stop();
  assert.deepEqual(stream.failures, []);
  for (const old of [first, second]) assert.deepEqual(await within('the end', old.exited), DONE);
  assert.deepEqual(await third.stop(), DONE);
});

test('takeover: a new process that fails before it is ready changes nothing, the next one may', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends });
  await using stream = new ClientStream(old.address);
  await stream.openLasting();
  // The database is read after the sockets were taken: this one has no table.
  await using broken = openSuccessor(old, backends, {
    GEOIP_PATH: '/nonexistent.mmdb',
    WORKERS: 4,
  });
  const { code, said } = await failureOf(broken);
  assert.equal(code, 1, said);
  assert.ok(broken.log('Taking over from a running process'), 'it had the sockets');
  const gaveUp = await old.untilLog('The new process did not take over, this one goes on');
  assert.equal(gaveUp.pid, broken.pid);
  await stream.more(100);
  await using killed = openSuccessor(old, backends);
  await killed.untilLog('Taking over from a running process');
  killed.signal('SIGKILL');
  await until('the second disappointment', () => {
    return old.logs.filter(({ message }) => /did not take over/.test(message)).length === 2;
  });
  await stream.more(100);
  await stream.exchangeLasting();
  assert.equal(old.log('Draining'), undefined);
  await using next = await startSuccessor(old, backends);
  await stream.more(100);
  await stream.stop();
  assert.deepEqual(stream.failures, []);
  assert.deepEqual(await within('the end', old.exited), DONE);
  assert.deepEqual(await next.stop(), DONE);
});

test('takeover: of two new processes at once one wins, the other ends and says why', {
  skip,
}, async () => {
  await using backend = await startBackend(echo);
  const backends = [{ id: 'a', ...backend.row }];
  await using old = await startProxy({ backends });
  await using stream = new ClientStream(old.address);
  // The first taker is the test, which is slow.
  const taker = openUnixSocket('packets');
  const name = takeoverName(addressText(old.address));
  await until('the offer', () => connectUnix(taker, name) === 0);
  await old.untilLog('A new process prepares to take over');
  await using loser = openSuccessor(old, backends);
  const { code, said } = await failureOf(loser);
  assert.equal(code, 1);
  assert.match(said, /EADDRINUSE.*another process is taking over from it right now/);
  closeDescriptor(taker);
  await old.untilLog('The new process did not take over, this one goes on');
  await using one = openSuccessor(old, backends);
  await using two = openSuccessor(old, backends);
  const [winner, other] = await Promise.race([
    one.untilLog('Listening').then(() => [one, two] as const),
    two.untilLog('Listening').then(() => [two, one] as const),
  ]);
  // The other was refused, or came late enough to take over from the winner.
  await until('the other one', () => other.exit !== null || other.log('Listening') !== undefined);
  await stream.more(50);
  await stream.stop();
  assert.deepEqual(stream.failures, []);
  assert.equal(other.exit === null ? winner.log('Draining')?.takenOverBy : other.pid, other.pid);
  assert.deepEqual(await within('the end', old.exited), DONE);
});
