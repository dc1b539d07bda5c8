// The two sides of a takeover in one process: what they pass, what they say, and when one gives the other up.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { createLogger } from '../base/log.ts';
import { formatSocketAddress } from '../sys/sockaddr.ts';
import { boundAddress, closeDescriptor, openListener } from '../sys/socket.ts';
import { connectUnix, openUnixSocket, sendPacket } from '../sys/unix-socket.ts';
import { until } from '../testing/wait.ts';
import type { Listener } from './listeners.ts';
import { TakeoverClaim } from './takeover-claim.ts';
import { TakeoverOffer } from './takeover-offer.ts';
import { decodeMessage, encodeMessage, takeoverName } from './takeover-protocol.ts';

const lines: string[] = [];
const logger = createLogger({ json: true, write: (line) => lines.push(line) });
const opened: number[] = [];
after(() => opened.forEach(closeDescriptor));

function listen(port: number): number {
  const options = { backlog: 4, fastOpenQueue: 0, reusePort: true, v6Only: false };
  const socket = openListener({ family: 4, words: [0, 0, 0, 0x7f00_0001], port }, options);
  assert.ok(socket >= 0);
  opened.push(socket);
  return socket;
}

/** A listener with `count` sockets of one address. */
function listenerOf(count: number): Listener {
  const sockets = [listen(0)];
  const bound = boundAddress(sockets[0] as number);
  assert.ok(bound !== null);
  while (sockets.length < count) sockets.push(listen(bound.port));
  const address = formatSocketAddress(bound);
  const { port } = bound;
  return { app: '*', address, host: '127.0.0.1', port, v6Only: false, sockets, late: [] };
}

test('decodeMessage() reads what encodeMessage() writes, and nothing else', () => {
  const messages = [
    { type: 'offer', sockets: 3 },
    { type: 'refused', reason: 'no' },
    { type: 'sockets' },
    { type: 'expired' },
    { type: 'ready' },
    { type: 'released', notify: '@x' },
  ] as const;
  for (const message of messages) {
    assert.deepEqual(decodeMessage(encodeMessage(message)), message);
    const next = encodeMessage(message).replace('"version":1', '"version":2');
    assert.match(decodeMessage(next) as string, /version 2 of the takeover, this one 1/);
  }
  const offer = encodeMessage({ type: 'offer', sockets: 1 });
  for (const wrong of ['0', '-1', '1.5', '"1"', 'null']) {
    const other = offer.replace('"sockets":1', `"sockets":${wrong}`);
    assert.equal(decodeMessage(other), 'it says something else');
  }
  for (const wrong of ['null', '[]', '7', '"x"', '{', '{"protocol":"other","version":1}']) {
    assert.equal(decodeMessage(wrong), 'it says something else', wrong);
  }
});

test('TakeoverClaim gets every socket of an address, more than one message can pass', async () => {
  const [many, few] = [listenerOf(600), listenerOf(2)];
  let taken = 0;
  const onTaken = (pid: number): Promise<string> => {
    taken = pid;
    return Promise.resolve('@manager');
  };
  const before = readdirSync('/proc/self/fd').length;
  const offer = new TakeoverOffer({ listeners: [many, few], logger, onTaken });
  const claim = new TakeoverClaim(logger);
  assert.equal(claim.isPending, false);
  assert.equal(await claim.socketsAt('127.0.0.1:1'), '');
  const claimed = await claim.socketsAt(many.address);
  assert.ok(typeof claimed !== 'string');
  assert.deepEqual(
    [claimed.sockets.length, claimed.pid, claimed.v6Only],
    [600, process.pid, false],
  );
  for (const socket of claimed.sockets) assert.equal(boundAddress(socket)?.port, many.port);
  assert.equal(claim.isPending, true);
  claim.confirm();
  assert.equal(taken, 0);
  assert.equal(await claim.release(), '@manager');
  assert.equal(taken, process.pid);
  claimed.sockets.forEach(closeDescriptor);
  // Those that nobody asked for are closed, too, and the names are free.
  assert.equal(readdirSync('/proc/self/fd').length, before);
  assert.equal(await new TakeoverClaim(logger).socketsAt(few.address), '');
  offer.close();
});

test('TakeoverOffer gives up a process that is not ready in time; its offer stands again', async () => {
  const listener = listenerOf(1);
  const onTaken = (): Promise<string> => assert.fail('it was taken');
  const offer = new TakeoverOffer({ listeners: [listener], logger, readyMs: 20, onTaken });
  for (const notices of ['before it accepts', 'after it accepts']) {
    lines.length = 0;
    const slow = new TakeoverClaim(logger);
    const claimed = await slow.socketsAt(listener.address);
    assert.ok(typeof claimed !== 'string', notices);
    await until('the offer to give up', () => lines.some((line) => /not ready in time/.test(line)));
    const said = /process \d+ did not wait so long/;
    if (notices === 'before it accepts') assert.throws(() => slow.confirm(), said);
    else await assert.rejects(slow.release(), said);
    claimed.sockets.forEach(closeDescriptor);
  }
  offer.close();
});

test('TakeoverOffer forgets a process that says something else', async () => {
  const listener = listenerOf(1);
  const onTaken = (): Promise<string> => assert.fail('it was taken');
  const offer = new TakeoverOffer({ listeners: [listener], logger, onTaken });
  for (const words of ['nonsense', encodeMessage({ type: 'sockets' })]) {
    lines.length = 0;
    const socket = openUnixSocket('packets');
    assert.equal(connectUnix(socket, takeoverName(listener.address)), 0);
    sendPacket(socket, words, [listener.sockets[0] as number]);
    await until('it to be forgotten', () => lines.some((line) => /did not take over/.test(line)));
    closeDescriptor(socket);
  }
  offer.close();
});

test('TakeoverClaim goes on alone when the process before it ends without letting go', async () => {
  const listener = listenerOf(1);
  const onTaken = (): Promise<string> => assert.fail('it was taken');
  const offer = new TakeoverOffer({ listeners: [listener], logger, onTaken });
  const claim = new TakeoverClaim(logger);
  const claimed = await claim.socketsAt(listener.address);
  assert.ok(typeof claimed !== 'string');
  offer.close();
  claim.confirm();
  lines.length = 0;
  assert.equal(await claim.release(), '');
  assert.match(lines.join(''), /has not let go/);
  claimed.sockets.forEach(closeDescriptor);
});
