import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readTcpCounters } from './netstat.ts';

test('readTcpCounters() pairs names with values, and is empty where there is no file', () => {
  const text =
    'TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\n' +
    'IpExt: ListenOverflows\nIpExt: 9\n';
  const counters = readTcpCounters(() => text);
  assert.equal(counters.get('ListenOverflows'), 22);
  assert.equal(counters.get('ListenDrops'), 333);
  const missing = readTcpCounters(() => {
    throw new Error('ENOENT');
  });
  assert.equal(missing.get('ListenDrops'), undefined);
});

test('readTcpCounters() reads this machine', { skip: process.platform !== 'linux' }, () => {
  const overflows = readTcpCounters().get('ListenOverflows');
  assert.ok(overflows !== undefined && overflows >= 0);
});
