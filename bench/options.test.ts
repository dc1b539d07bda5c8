// The command line: what is refused, and that a part of the workloads is known to be a part.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Options, readOptions } from './options.ts';

function parsed(...args: string[]): Options {
  const options = readOptions(args);
  assert.ok(options !== null && typeof options !== 'string', String(options));
  return options;
}

test('readOptions() makes a whole plan, a quick one and a part', () => {
  assert.deepEqual([parsed().plan.quick, parsed().partial, parsed().out], [false, false, null]);
  const quick = parsed('--quick', '--rounds', '3', '--only', 'bulk,connect');
  assert.deepEqual([quick.plan.quick, quick.plan.rounds, quick.partial], [true, 3, true]);
  assert.deepEqual(
    quick.workloads.map(({ name }) => name),
    ['connect', 'bulk'],
  );
});

test('readOptions() refuses what it does not know, by name', () => {
  assert.match(String(readOptions(['--rounds', '0'])), /--rounds is 0, allowed: a whole number/);
  assert.match(String(readOptions(['--only', 'conect'])), /--only is conect, allowed: lookup/);
  assert.throws(() => readOptions(['--fast']), /fast/);
  assert.equal(readOptions(['--help']), null);
});
