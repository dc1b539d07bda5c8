import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import {
  claimRecord,
  firstRecord,
  openRecordRing,
  publishRecord,
  type RecordRing,
  recordRingBytes,
  recordsDropped,
  recordsWaiting,
  releaseRecord,
} from './record-ring.ts';

function write(ring: RecordRing, value: number): boolean {
  const at = claimRecord(ring);
  if (at < 0) return false;
  ring.words[at] = value;
  ring.doubles[at / 2 + 1] = value / 8;
  publishRecord(ring);
  return true;
}

function read(ring: RecordRing): number {
  const at = firstRecord(ring);
  const value = ring.words[at] as number;
  assert.equal(ring.doubles[at / 2 + 1], value / 8, 'the fields of one record');
  releaseRecord(ring);
  return value;
}

test('a record ring is a bounded queue that counts what it drops, also where its counts wrap', () => {
  const step = fc.record({ isWrite: fc.boolean(), times: fc.integer({ min: 1, max: 7 }) });
  const start = fc.constantFrom(0, -3, 2 ** 31 - 3, -(2 ** 31));
  fc.assert(
    fc.property(start, fc.array(step), (first, steps) => {
      const buffer = new SharedArrayBuffer(recordRingBytes(4, 4));
      const ring = openRecordRing(buffer, 4);
      ring.words[0] = first;
      ring.words[16] = first;
      const model: number[] = [];
      let next = 1;
      let dropped = 0;
      for (const { isWrite, times } of steps) {
        for (let time = 0; time < times; time++) {
          assert.equal(recordsWaiting(ring), model.length);
          if (isWrite) {
            const taken = write(ring, next);
            assert.equal(taken, model.length < 4);
            if (taken) model.push(next);
            else dropped++;
            next++;
          } else if (model.length > 0) assert.equal(read(ring), model.shift());
        }
      }
      assert.equal(recordsDropped(ring), dropped);
    }),
  );
});

test('a record ring carries every record in order between two threads', async () => {
  const count = 200_000;
  const buffer = new SharedArrayBuffer(recordRingBytes(64, 4));
  const ring = openRecordRing(buffer, 4);
  const script = `
    const { workerData } = require('node:worker_threads');
    import(workerData.module).then(({ openRecordRing, claimRecord, publishRecord }) => {
      const ring = openRecordRing(workerData.buffer, 4);
      for (let value = 1; value <= ${count}; ) {
        const at = claimRecord(ring);
        if (at < 0) continue;
        ring.words[at] = value;
        ring.doubles[at / 2 + 1] = value / 8;
        publishRecord(ring);
        value++;
      }
    });`;
  const module = new URL('record-ring.ts', import.meta.url).href;
  const writer = new Worker(script, { eval: true, workerData: { buffer, module } });
  const exited = once(writer, 'exit');
  let last = 0;
  while (last < count) {
    if (recordsWaiting(ring) > 0) assert.equal(read(ring), ++last);
    else await new Promise((resolve) => setImmediate(resolve));
  }
  await exited;
  assert.equal(recordsWaiting(ring), 0);
});

test('recordRingBytes() refuses what is no ring', () => {
  assert.throws(() => recordRingBytes(3, 4), /power of two/);
  assert.throws(() => recordRingBytes(4, 3), /float64/);
  assert.throws(() => openRecordRing(new SharedArrayBuffer(200), 4));
});
