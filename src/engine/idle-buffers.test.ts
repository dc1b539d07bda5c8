import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mapMemory, pageBytes, unmap } from '../sys/memory.ts';
import { nativeRefusal } from '../sys/native.ts';
import { skipReason } from '../testing/netns.ts';
import { until } from '../testing/wait.ts';
import { IdleBuffers } from './idle-buffers.ts';

const COUNT = 200;
/** Those whose memory stays. */
const WARM = 64;
const WAIT_MS = 100;
const skip = nativeRefusal === '' ? false : skipReason(nativeRefusal);

/** A pool of buffers, all of them used once and filled. */
function usedPool(bufferBytes: number, t: { after(done: () => void): void }) {
  const region = mapMemory(COUNT * bufferBytes, 'a test');
  t.after(() => unmap(region));
  const idle = new IdleBuffers(region, bufferBytes, COUNT);
  const bytes = new Uint8Array(region.buffer);
  const used = Array.from({ length: COUNT }, () => idle.pop());
  for (const buffer of used) bytes[buffer * bufferBytes] = 1;
  const hasMemory = (buffer: number): boolean => bytes[buffer * bufferBytes] === 1;
  return { idle, used, withMemory: () => used.filter(hasMemory) };
}

test('IdleBuffers hands out each buffer once, the one used last first', { skip }, (t) => {
  const region = mapMemory(COUNT * 64, 'a test');
  t.after(() => unmap(region));
  const idle = new IdleBuffers(region, 64, COUNT);
  const first = Array.from({ length: COUNT }, () => idle.pop());
  assert.equal(idle.count, 0);
  assert.deepEqual(
    first,
    first.map((_, index) => index),
  );
  idle.push(7);
  idle.push(3);
  assert.deepEqual([idle.pop(), idle.pop(), idle.count], [3, 7, 0]);
});

test('IdleBuffers gives back what a burst touched, and then lets the engine sleep', {
  skip,
}, async (t) => {
  const { idle, used, withMemory } = usedPool(pageBytes(), t);
  for (const buffer of used.slice(10)) idle.push(buffer);
  // An engine with nothing else to do wakes until all is given back.
  assert.ok(idle.review(-1) > 0);
  assert.equal(idle.review(WAIT_MS), WAIT_MS);
  await until('the engine to be let asleep', () => idle.review(-1) === -1);
  const kept = withMemory();
  assert.equal(kept.length, WARM + 10);
  for (const buffer of used.slice(0, 10)) assert.ok(kept.includes(buffer), 'it is in use');
  assert.ok(kept.includes(idle.pop()), 'the one used last is warm');
});

test('IdleBuffers keeps what is needed now and then', { skip }, async (t) => {
  const { idle, used, withMemory } = usedPool(pageBytes(), t);
  for (const buffer of used) idle.push(buffer);
  const start = performance.now();
  // Longer than two reviews: without the pops the first would have given back most of it.
  await until('some reviews', () => {
    const taken = Array.from({ length: COUNT }, () => idle.pop());
    idle.review(WAIT_MS);
    for (const buffer of taken.toReversed()) idle.push(buffer);
    idle.review(WAIT_MS);
    return performance.now() - start > 2500;
  });
  assert.equal(withMemory().length, COUNT);
});

test('IdleBuffers leaves buffers alone that share a page', { skip }, async (t) => {
  const { idle, used, withMemory } = usedPool(pageBytes() / 2, t);
  for (const buffer of used) idle.push(buffer);
  assert.equal(idle.review(-1), -1);
  assert.equal(withMemory().length, COUNT);
});
