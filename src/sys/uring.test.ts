// io_uring set-up: it works here, or the refusal says which of kernel, sysctl, seccomp or memory limit it was.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { skipReason } from '../testing/netns.ts';
import { EINVAL, ENOMEM, ENOSYS, EPERM } from './errno.ts';
import { closeRing, enterRing, explainRefusal, openRing, uringRefusal } from './uring.ts';

const URING = fileURLToPath(new URL('./uring.ts', import.meta.url));

test('openRing() opens a ring that can be entered, and closeRing() gives its descriptor back', () => {
  assert.equal(uringRefusal(), '');
  const numbers = new Set<number>();
  for (let turn = 0; turn < 20; turn++) {
    const ring = openRing(128);
    assert.ok(typeof ring !== 'number', `refused with ${ring}`);
    assert.ok(ring.sqEntries >= 128);
    assert.equal(enterRing(ring, 0, 0), 0);
    numbers.add(ring.fd);
    closeRing(ring);
  }
  assert.equal(numbers.size, 1, 'the descriptor was closed each time');
});

test('explainRefusal() says for each errno what it was and what to do', () => {
  assert.match(explainRefusal(-ENOSYS), /ENOSYS.*Linux 6\.0 or newer/);
  assert.match(explainRefusal(-EINVAL), /too old \(EINVAL\).*Linux 6\.0/);
  assert.match(explainRefusal(-ENOMEM), /RLIMIT_MEMLOCK is \d+ bytes.*ulimit -l unlimited/);
  assert.match(explainRefusal(-EPERM), /EPERM/);
  assert.match(explainRefusal(-4000), /cannot be set up \(errno 4000\)/);
  for (const errno of [ENOSYS, EINVAL, ENOMEM, EPERM, 4000]) {
    assert.doesNotMatch(explainRefusal(-errno), /\n|\.$/);
  }
});

/** Runs a command whose io_uring_setup fails with this error; null where strace cannot do it. */
function withoutUring(
  error: string,
  command: readonly string[],
): { code: number; text: string } | string {
  const inject = `inject=io_uring_setup:error=${error}`;
  const line = [
    '-f',
    '-qqq',
    '-e',
    'trace=io_uring_setup',
    '-e',
    inject,
    '-o',
    '/dev/null',
    ...command,
  ];
  const result = spawnSync('strace', line, { encoding: 'utf8', timeout: 60_000 });
  if (result.error) return `Cannot run strace: ${result.error.message}`;
  if (/ptrace|PTRACE/.test(result.stderr)) return `Cannot trace here: ${result.stderr.trim()}`;
  return { code: result.status ?? -1, text: result.stdout + result.stderr };
}

const PRINT = `import(${JSON.stringify(URING)}).then((m) => console.log(m.uringRefusal()))`;

for (const [error, expected] of [
  ['EPERM', /io_uring is (refused|switched off|kept to one group)/],
  ['ENOSYS', /io_uring is missing \(ENOSYS\).*needs Linux 6\.0/],
  ['ENOMEM', /io_uring got no memory \(ENOMEM\)/],
] as const) {
  test(`uringRefusal() explains a kernel that answers ${error}`, (t) => {
    const result = withoutUring(error, [process.execPath, '-e', PRINT]);
    if (typeof result === 'string') {
      t.skip(skipReason(result));
      return;
    }
    assert.match(result.text, expected);
  });
}
