import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerTimers } from './peer-timers.ts';
import { PROTOCOL_TIMES } from './times.ts';

const OFF = Infinity;

function timers(jitter = 0): PeerTimers {
  return new PeerTimers(PROTOCOL_TIMES, () => jitter);
}

test('PeerTimers has nothing due at first', () => {
  assert.equal(timers().deadline(), OFF);
});

test('data that was received is answered after 10 s, unless anything is sent before', () => {
  const all = timers();
  all.receivedData(1_000);
  assert.equal(all.deadline(), 11_000);
  all.sent(5_000);
  assert.equal(all.deadline(), OFF);
});

test('more data before the keepalive makes one more keepalive, and no third', () => {
  const all = timers();
  all.receivedData(0);
  all.receivedData(4_000);
  all.keepaliveFired(10_000);
  assert.equal(all.keepaliveMs, 20_000);
  all.keepaliveFired(20_000);
  assert.equal(all.keepaliveMs, OFF);
  all.receivedData(0);
  all.receivedData(4_000);
  all.sent(5_000);
  all.receivedData(6_000);
  all.keepaliveFired(16_000);
  assert.equal(all.keepaliveMs, OFF, 'what was answered is forgotten');
});

test('data that was sent awaits an answer for 15 s and jitter, from the first of it', () => {
  const all = timers(0.5);
  all.sentData(1_000);
  all.sentData(9_000);
  assert.equal(all.silenceMs, 16_000 + 333 / 2);
  all.received(10_000);
  assert.equal(all.silenceMs, OFF);
});

test('the persistent keepalive counts from the last packet of either direction', () => {
  const all = timers();
  all.sent(1_000);
  assert.equal(all.persistentMs, OFF);
  all.persistentIntervalMs = 25_000;
  all.sent(2_000);
  assert.equal(all.deadline(), 27_000);
  all.received(3_000);
  assert.equal(all.deadline(), 28_000);
  all.persistentIntervalMs = 0;
  all.received(4_000);
  assert.equal(all.deadline(), OFF);
});

test('an initiation is repeated after 5 s and jitter, until it is answered or given up', () => {
  const all = timers(0.999);
  all.initiated(0);
  assert.ok(all.retransmitMs > 5_300 && all.retransmitMs <= 5_333);
  all.initiateAfter(1);
  assert.ok(all.retransmitMs > 5_300, 'what is under way stays');
  all.completed();
  assert.equal(all.deadline(), OFF);
  all.initiateAfter(1_000);
  assert.ok(all.retransmitMs >= 1_000 && all.retransmitMs <= 1_333);
  all.receivedData(0);
  all.gaveUp();
  assert.equal(all.deadline(), OFF);
});
