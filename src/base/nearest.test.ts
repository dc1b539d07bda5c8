import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearestNames } from './nearest.ts';

test('nearestNames() finds a slip, a swap and a part, nearest first', () => {
  const known = ['workers', 'region', 'region_map_path', 'listen_addr'];
  assert.deepEqual(nearestNames('wokers', known), ['workers']);
  assert.deepEqual(nearestNames('wroekrs', known), ['workers']);
  assert.deepEqual(nearestNames('regio', known), ['region', 'region_map_path']);
  assert.deepEqual(nearestNames('LISTEN_ADR', known), ['listen_addr']);
});

test('nearestNames() offers nothing when nothing is close', () => {
  assert.deepEqual(nearestNames('zzz', ['workers', 'region']), []);
  assert.deepEqual(nearestNames('x', []), []);
});

test('nearestNames() counts an adjacent swap as one slip', () => {
  // Four letters allow one slip: two substitutions would be too far.
  assert.deepEqual(nearestNames('abdc', ['abcd']), ['abcd']);
  assert.deepEqual(nearestNames('axyd', ['abcd']), []);
});

test('nearestNames() gives at most the limit', () => {
  const known = ['sa-1', 'sa-2', 'sa-3', 'sa-4', 'sa-5'];
  assert.equal(nearestNames('sa-9', known).length, 3);
  assert.deepEqual(nearestNames('sa-9', known, 1), ['sa-1']);
});
