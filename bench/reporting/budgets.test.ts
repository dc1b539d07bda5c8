// Budgets held and missed by made-up samples: ratios within rounds, the worst item decides, what was not measured is not
// held.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Sample } from '../samples.ts';
import { type BudgetRow, evaluateBudgets, itemVerdict, rowVerdict } from './budgets.ts';

function samples(
  workload: string,
  name: string,
  figure: string,
  byProxy: Readonly<Record<string, readonly number[]>>,
): Sample[] {
  return Object.entries(byProxy).flatMap(([proxy, values]) =>
    values.map((value, round) => {
      return { workload, case: name, proxy, round, values: { [figure]: value } };
    }),
  );
}

function rowOf(title: string, all: readonly Sample[]): BudgetRow {
  const row = evaluateBudgets(all).find((one) => one.title.startsWith(title));
  assert.ok(row, `there is a row ${title}`);
  return row;
}

test('a ratio is taken within a round and its median compared with the limit', () => {
  // The second round was twice as slow for all; the third disturbed edgeproxy alone.
  const row = rowOf(
    'CPU per connection',
    samples('connect', '64 at once', 'cpu', {
      haproxy: [100, 200, 100],
      'nginx stream': [80, 160, 80],
      'edgeproxy uring': [75, 150, 300],
      'edgeproxy epoll': [94, 188, 94],
    }),
  );
  const found = row.items.map((item) => {
    return [item.engine, item.against, item.value?.median, item.limit, itemVerdict(item)];
  });
  assert.deepEqual(found, [
    ['uring', 'haproxy', 0.75, 0.8, 'held'],
    ['uring', 'nginx stream', 0.9375, 0.8, 'missed'],
    ['epoll', 'haproxy', 0.94, 0.95, 'held'],
    ['epoll', 'nginx stream', 1.175, 0.95, 'missed'],
  ]);
  assert.equal(rowVerdict(row.items), 'missed');
  assert.equal(rowVerdict(row.items.filter(({ against }) => against === 'haproxy')), 'held');
});

test('a row of which a part was not measured is not held, but a missed part is missed', () => {
  const figures = { 'edgeproxy uring': [30], 'edgeproxy epoll': [30] };
  const main = samples('reload', 'reloading', 'mainMs', figures);
  assert.equal(rowVerdict(rowOf('Hot reload', main).items), 'not measured');
  const slow = samples('reload', 'reloading', 'mainMs', { 'edgeproxy uring': [51] });
  assert.equal(rowVerdict(rowOf('Hot reload', slow).items), 'missed');
  const p99 = (name: string, value: number): Sample[] =>
    samples('reload', name, 'p99', { 'edgeproxy uring': [value], 'edgeproxy epoll': [value] });
  const whole = [...main, ...p99('quiet', 100), ...p99('reloading', 109)];
  assert.equal(rowVerdict(rowOf('Hot reload', whole).items), 'held');
  const felt = [...main, ...p99('quiet', 100), ...p99('reloading', 111)];
  assert.equal(rowVerdict(rowOf('Hot reload', felt).items), 'missed');
});

test('figures have units, and memory the limit of its number of sessions', () => {
  const both = (value: number) => ({ 'edgeproxy uring': [value], 'edgeproxy epoll': [value] });
  const row = rowOf('User memory', [
    ...samples('idle', '10,000 sessions', 'user', both(499)),
    ...samples('idle', '10,000 sessions', 'after', both(121e6)),
    ...samples('idle', '100,000 sessions', 'user', both(10)),
    ...samples('idle', '100,000 sessions', 'after', both(121e6)),
  ]);
  const uring = row.items.filter(({ engine }) => engine === 'uring');
  const found = uring.map((item) => `${item.what}: ${item.value?.median} ${item.unit}`);
  assert.deepEqual(found, [
    'per session, 10,000 sessions: 0.499 KB',
    'process, 10,000 sessions: 121 MB',
    'per session, 100,000 sessions: 0.01 KB',
    'process, 100,000 sessions: 121 MB',
  ]);
  assert.deepEqual(uring.map(itemVerdict), ['held', 'missed', 'held', 'held']);
});

test('without the large number of idle sessions the row says that it was not measured', () => {
  const items = rowOf('User memory', []).items;
  assert.ok(items.every((item) => item.what.endsWith('100,000 sessions')));
  assert.equal(rowVerdict(items), 'not measured');
});

test('every budget of the design has a row, all of them not measured in an empty run', () => {
  const rows = evaluateBudgets([]);
  assert.equal(rows.length, 10);
  assert.deepEqual(new Set(rows.map(({ items }) => rowVerdict(items))), new Set(['not measured']));
});
