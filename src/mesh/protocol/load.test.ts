import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LoadMeter, SourceLimits } from './load.ts';

/** 10.0.x.y, or the IPv6 address 2001:db8::/32 with these words as the next 32 and the last 32 bits. */
function endpoint(isV4: boolean, host: number, low = 0): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  if (isV4) view.setUint32(8, 0xffff);
  else view.setUint32(0, 0x2001_0db8);
  view.setUint32(isV4 ? 12 : 4, host);
  if (!isV4) view.setUint32(12, low);
  return bytes;
}

/** How many of `count` messages at once are allowed. */
function burst(limits: SourceLimits, now: number, source: Uint8Array, count = 20): number {
  let allowed = 0;
  for (let message = 0; message < count; message++) allowed += Number(limits.allows(now, source));
  return allowed;
}

test('SourceLimits lets an address send 5 at once and 20 a second', () => {
  const limits = new SourceLimits();
  const source = endpoint(true, 1);
  assert.equal(burst(limits, 0, source), 5);
  assert.equal(burst(limits, 50, source), 1);
  assert.equal(burst(limits, 150, source), 2);
  assert.equal(burst(limits, 10_000, source), 5);
  let allowed = 0;
  for (let now = 20_000; now < 30_000; now++) allowed += burst(limits, now, source, 1);
  assert.equal(allowed, 204);
});

test('SourceLimits counts IPv4 by the address, IPv6 by the /64, and no port', () => {
  const limits = new SourceLimits();
  assert.equal(burst(limits, 0, endpoint(true, 1)), 5);
  assert.equal(burst(limits, 0, endpoint(true, 2)), 5);
  assert.equal(burst(limits, 0, endpoint(true, 1).fill(7, 16)), 0);
  assert.equal(burst(limits, 0, endpoint(false, 1, 1)), 5);
  assert.equal(burst(limits, 0, endpoint(false, 1, 2)), 0);
  assert.equal(burst(limits, 0, endpoint(false, 2, 1)), 5);
});

test('SourceLimits is bounded, and has room again when addresses are quiet', () => {
  const limits = new SourceLimits();
  for (let host = 0; host < 16_384; host++) assert.ok(limits.allows(0, endpoint(true, host)));
  assert.ok(!limits.allows(0, endpoint(true, 20_000)));
  assert.ok(!limits.allows(900, endpoint(true, 20_000)), 'searched once a second at most');
  assert.ok(limits.allows(1_000, endpoint(true, 20_000)));
});

test('LoadMeter says load from the excess on until a second after the last of it', () => {
  const meter = new LoadMeter(1_000);
  for (let message = 0; message < 500; message++) assert.ok(!meter.isLoaded(0));
  assert.ok(meter.isLoaded(0));
  assert.ok(meter.isLoaded(999));
  assert.ok(!meter.isLoaded(2_100));
  for (let now = 10_000; now < 20_000; now += 4) assert.ok(!meter.isLoaded(now));
});
