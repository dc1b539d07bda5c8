// Messages, descriptors and credentials over unix sockets of this process, and every refusal.

import assert from 'node:assert/strict';
import { fstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EADDRINUSE, EAGAIN, ECONNREFUSED, EINVAL } from './errno.ts';
import { createEventfd } from './eventfd.ts';
import { closeDescriptor } from './socket.ts';
import {
  acceptUnix,
  bindUnix,
  connectUnix,
  listenUnix,
  openUnixSocket,
  PASSED_MAX,
  type Packet,
  peerCredentials,
  receivePacket,
  sendDatagram,
  sendPacket,
} from './unix-socket.ts';

const opened: number[] = [];
after(() => opened.forEach(closeDescriptor));

function open(kind: 'datagrams' | 'packets'): number {
  const socket = openUnixSocket(kind);
  assert.ok(socket >= 0);
  opened.push(socket);
  return socket;
}

function received(socket: number): Packet {
  const packet = receivePacket(socket);
  assert.ok(typeof packet !== 'number', `errno ${packet}`);
  opened.push(...packet.descriptors);
  return packet;
}

/** A connection: who connected, and who accepted. */
function pair(name: string): [client: number, server: number] {
  const listener = open('packets');
  assert.equal(listenUnix(listener, name, 4), 0);
  assert.equal(acceptUnix(listener), -EAGAIN);
  const client = open('packets');
  assert.equal(connectUnix(client, name), 0);
  const server = acceptUnix(listener);
  assert.ok(server >= 0);
  opened.push(server);
  return [client, server];
}

let names = 0;
const newName = (): string => `@edgeproxy-unix-test-${process.pid}-${++names}`;

test('sendDatagram() reaches an abstract name and a path, whole and in order', () => {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-unix-'));
  for (const name of [newName(), join(directory, 'socket')]) {
    const [sender, receiver] = [open('datagrams'), open('datagrams')];
    assert.equal(bindUnix(receiver, name), 0);
    assert.equal(receivePacket(receiver), -EAGAIN);
    assert.equal(sendDatagram(sender, name, 'one'), 3);
    assert.equal(sendDatagram(sender, name, 'zwölf\n=2'), 9);
    assert.deepEqual(received(receiver), { text: 'one', descriptors: [], isCut: false });
    assert.equal(received(receiver).text, 'zwölf\n=2');
  }
  rmSync(directory, { recursive: true });
});

test('sendPacket() passes copies of descriptors, closed on exec, beside its message', () => {
  const [client, server] = pair(newName());
  const sent = [createEventfd(), createEventfd(), client];
  opened.push(sent[0] as number, sent[1] as number);
  assert.equal(sendPacket(server, 'three of them', sent), 13);
  assert.equal(sendPacket(server, 'none'), 4);
  const packet = received(client);
  assert.equal(packet.text, 'three of them');
  assert.equal(packet.isCut, false);
  const identity = (descriptor: number): bigint => fstatSync(descriptor, { bigint: true }).ino;
  assert.deepEqual(packet.descriptors.map(identity), sent.map(identity));
  for (const descriptor of packet.descriptors) {
    const flags = /^flags:\s+0(\d+)$/m.exec(
      readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'),
    );
    assert.equal(Number.parseInt(flags?.[1] as string, 8) & 0o2000000, 0o2000000);
  }
  assert.deepEqual(received(client), { text: 'none', descriptors: [], isCut: false });
});

test('sendPacket() takes as many descriptors as the kernel does, and no more', () => {
  const [client, server] = pair(newName());
  const many = new Array<number>(PASSED_MAX).fill(server);
  assert.equal(sendPacket(server, 'many', many), 4);
  assert.equal(received(client).descriptors.length, PASSED_MAX);
  assert.equal(sendPacket(server, 'more', [...many, server]), -EINVAL);
  assert.equal(sendPacket(server, 'x'.repeat(20_000)), -EINVAL);
});

test('peerCredentials() tells who is at the other end', () => {
  const [client, server] = pair(newName());
  const self = { pid: process.pid, uid: process.getuid?.() };
  assert.deepEqual(peerCredentials(client), self);
  assert.deepEqual(peerCredentials(server), self);
});

test('a peer that closes is an empty packet', () => {
  const [client, server] = pair(newName());
  assert.equal(receivePacket(server), -EAGAIN);
  closeDescriptor(opened.splice(opened.indexOf(client), 1)[0] as number);
  assert.deepEqual(received(server), { text: '', descriptors: [], isCut: false });
});

test('a name that is taken, unknown, empty or too long is an error number', () => {
  const name = newName();
  pair(name);
  assert.equal(listenUnix(open('packets'), name, 1), -EADDRINUSE);
  assert.equal(connectUnix(open('packets'), newName()), -ECONNREFUSED);
  assert.equal(bindUnix(open('packets'), ''), -EINVAL);
  assert.equal(bindUnix(open('packets'), `@${'x'.repeat(107)}`), -EINVAL);
  assert.equal(bindUnix(open('packets'), `@${'x'.repeat(90)}${process.pid}`), 0);
});

test('unix sockets leave no descriptor behind', () => {
  opened.splice(0).forEach(closeDescriptor);
  const before = readdirSync('/proc/self/fd').length;
  const [client, server] = pair(newName());
  sendPacket(server, 'x', [client]);
  received(client);
  opened.splice(0).forEach(closeDescriptor);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});
