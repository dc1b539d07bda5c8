// The native layer on this machine: calls are direct, errors carry their errno, memory has an owner, sockets obey.

import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'node:test';
import { monotonicMs } from './clock.ts';
import * as errno from './errno.ts';
import { createEventfd, signalEventfd } from './eventfd.ts';
import { addressHigh, addressLow, discardPages, mapMemory, unmap } from './memory.ts';
import { checked, native, nativeRefusal, num, viewNative, wrappedNatives } from './native.ts';
import { memoryLockLimit, raiseDescriptorLimit } from './rlimit.ts';
import { parseAddress, type SocketAddress } from './sockaddr.ts';
import {
  boundAddress,
  closeDescriptor,
  openListener,
  openPipe,
  openSocket,
  pipeEnds,
  readPeerAddress,
  setLongLived,
  setNoDelay,
  setNonblocking,
  setResetOnClose,
  shutdownWrite,
} from './socket.ts';

/** Only tests meet it: the program closes nothing twice. */
const EBADF = constants.errno.EBADF;

test('native functions are called directly, without a JavaScript wrapper', () => {
  assert.equal(nativeRefusal, '');
  assert.deepEqual(wrappedNatives(), []);
});

test('checked() turns a failed call into -errno', () => {
  assert.equal(closeDescriptor(100_000), -EBADF);
  assert.equal(setNonblocking(100_000, true), -EBADF);
  assert.equal(checked(7), 7);
});

test('errno constants and names are those of this system', () => {
  const own = Object.entries(errno).filter(([name]) => /^E[A-Z]+$/.test(name));
  assert.ok(own.length > 20);
  const known = constants.errno as Record<string, number>;
  for (const [name, value] of own) {
    if (known[name] !== undefined) assert.equal(value, known[name], name);
    assert.equal(errno.errnoName(-(value as number)), name);
    assert.equal(errno.errnoName(value as number), name);
  }
  assert.equal(errno.errnoName(-4000), 'errno 4000');
});

test('isConnectionError() tells an error of one connection from one of the system', () => {
  for (const value of [errno.ECONNABORTED, errno.EPROTO, errno.EHOSTUNREACH]) {
    assert.equal(errno.isConnectionError(-value), true, errno.errnoName(value));
  }
  for (const value of [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]) {
    assert.equal(errno.isConnectionError(-value), false, errno.errnoName(value));
  }
});

test('mapMemory() gives zeroed pages at one address for kernel and typed arrays', () => {
  const mapping = mapMemory(5000, 'a test');
  assert.equal(mapping.bytes, 8192);
  const bytes = new Uint8Array(mapping.buffer);
  assert.ok(bytes.every((byte) => byte === 0));
  bytes[4096] = 42;
  assert.equal(new Uint8Array(viewNative(mapping.address + 4096n, 1))[0], 42);
  discardPages(mapping, 4096, 4096);
  assert.equal(bytes[4096], 0);
  unmap(mapping);
});

test('addressLow() and addressHigh() split an address into signed words', () => {
  assert.equal(addressLow(0x7f12_8000_0001n), -0x7fff_ffff);
  assert.equal(addressHigh(0x7f12_8000_0001n), 0x7f12);
});

test('monotonicMs() goes forward and agrees with the time that passes in process.hrtime', () => {
  const [start, other] = [monotonicMs(), Number(process.hrtime.bigint()) / 1e6];
  for (let previous = start, turn = 0; turn < 1000; turn++) {
    const now = monotonicMs();
    assert.ok(now >= previous);
    previous = now;
  }
  // Both read CLOCK_MONOTONIC: the second reading is never before the first.
  assert.ok(other >= start);
  assert.ok(monotonicMs() >= other);
});

test('num() gives n as a BigInt, small or large', () => {
  for (const n of [0, 1, 255, 65_536, 131_072, 2 ** 31, 2 ** 32 - 1])
    assert.equal(num(n), BigInt(n));
});

test('signalEventfd() adds to the counter that a read returns', () => {
  const fd = createEventfd();
  assert.ok(fd >= 0);
  signalEventfd(fd);
  signalEventfd(fd);
  const counter = mapMemory(8, 'a counter');
  const SYS_READ = process.arch === 'x64' ? 0n : 63n;
  assert.equal(native.syscall(SYS_READ, num(fd), counter.address, 8n, 0n, 0n), 8);
  assert.equal(new BigUint64Array(counter.buffer)[0], 2n);
  unmap(counter);
  assert.equal(closeDescriptor(fd), 0);
});

test('raiseDescriptorLimit() leaves the soft limit at the hard one', () => {
  const { soft, hard } = raiseDescriptorLimit();
  assert.equal(soft, hard);
  assert.ok(soft > 0);
  assert.ok(memoryLockLimit().soft > 0);
});

const PLAIN = { backlog: 16, fastOpenQueue: 0, reusePort: false, v6Only: false };

function listenAddress(text: string, port = 0): SocketAddress {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return { ...parsed, port };
}

for (const host of ['127.0.0.1', '::1']) {
  test(`openListener() listens on ${host}, and says EADDRINUSE for a port that is taken`, () => {
    const fd = openListener(listenAddress(host), PLAIN);
    assert.ok(fd >= 0);
    const bound = boundAddress(fd);
    assert.ok(bound !== null && bound.port > 0);
    assert.deepEqual(bound.words, listenAddress(host).words);
    assert.equal(openListener(bound, PLAIN), -errno.EADDRINUSE);
    assert.equal(openListener(bound, { ...PLAIN, reusePort: true }), -errno.EADDRINUSE);
    closeDescriptor(fd);
    assert.throws(() => fstatSync(fd), /EBADF/);
  });
}

test('openListener() shares a port among sockets that all ask for it', () => {
  const shared = { ...PLAIN, reusePort: true, fastOpenQueue: 8 };
  const first = openListener(listenAddress('127.0.0.1'), shared);
  const bound = boundAddress(first);
  assert.ok(bound);
  const second = openListener(bound, shared);
  assert.ok(second >= 0);
  closeDescriptor(first);
  closeDescriptor(second);
});

test('openListener() closes its socket when it fails', () => {
  const highest = openSocket(4);
  closeDescriptor(highest);
  for (let turn = 0; turn < 5; turn++) {
    assert.equal(openListener(listenAddress('192.0.2.1'), PLAIN), -errno.EADDRNOTAVAIL);
  }
  const next = openSocket(4);
  assert.equal(next, highest, 'no descriptor was left open');
  closeDescriptor(next);
});

test('a fresh socket takes every option, and has no peer yet', () => {
  for (const family of [4, 6]) {
    const fd = openSocket(family);
    assert.ok(fd >= 0);
    assert.equal(setNoDelay(fd), 0);
    assert.equal(setResetOnClose(fd), 0);
    assert.equal(setNonblocking(fd, true), 0);
    assert.equal(setNonblocking(fd, false), 0);
    setLongLived(fd, 60, 60);
    assert.equal(shutdownWrite(fd), -errno.ENOTCONN);
    const peer = { family: 4, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 };
    assert.equal(readPeerAddress(fd, peer), -errno.ENOTCONN);
    assert.equal(closeDescriptor(fd), 0);
  }
});

test('openPipe() opens two ends that do not block', () => {
  assert.equal(openPipe(1 << 20), 0);
  const { read, write } = { ...pipeEnds };
  const page = mapMemory(4096, 'a pipe test');
  const SYS_READ = process.arch === 'x64' ? 0n : 63n;
  const readPipe = (): number =>
    checked(native.syscall(SYS_READ, num(read), page.address, 4096n, 0n, 0n));
  assert.equal(readPipe(), -errno.EAGAIN);
  assert.equal(native.write(num(write), page.address, 5n), 5);
  assert.equal(readPipe(), 5);
  for (const fd of [read, write]) assert.equal(closeDescriptor(fd), 0);
  unmap(page);
});
