import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adminText } from './admin-client.ts';
import { type DrainLook, type DrainPlan, DrainWatch, sessionsText } from './drain-watch.ts';
import { backendSample } from './proxy-look.ts';

const PLAN: DrainPlan = {
  closeAtMs: null,
  closeRate: null,
  address: '127.0.0.1:9090',
  dbPath: 'routing.db',
};
const GONE: DrainLook = { kind: 'unreachable', reason: 'ECONNREFUSED' };
const UNKNOWN: DrainLook = { kind: 'unknown' };
const seen = (open: number, draining = true): DrainLook => ({ kind: 'seen', draining, open });

/** What the watch says to each look, one every second: '' it goes on, `empty`, or the problem. */
function watch(looks: readonly DrainLook[], plan: Partial<DrainPlan> = {}): string[] {
  const drain = new DrainWatch({ ...PLAN, ...plan }, 0);
  return looks.map((look, second) => {
    const { done, problem } = drain.see(look, second * 1000);
    return problem === '' && done ? 'empty' : problem;
  });
}

/** The same look for so many seconds. */
const during = (seconds: number, look: DrainLook): DrainLook[] => Array(seconds).fill(look);

test('DrainWatch is done at the second look without a session', () => {
  assert.deepEqual(watch([seen(2), seen(0), seen(1), seen(0), seen(0)]), ['', '', '', '', 'empty']);
  // Before the proxy has taken the drain, no session means nothing.
  assert.deepEqual(watch([seen(0, false), seen(0, false), seen(0), seen(0)]).at(-1), 'empty');
  assert.equal(watch(during(3, seen(0, false))).at(-1), '');
});

test('DrainWatch waits for ever without a time', () => {
  assert.ok(watch(during(100_000, seen(5))).every((said) => said === ''));
});

test('DrainWatch gives up when no proxy answers, but outlasts its restart', () => {
  assert.match(watch([GONE])[0] ?? '', /no proxy answers at 127\.0\.0\.1:9090: ECONNREFUSED/);
  const restart = [seen(5), ...during(10, GONE), seen(0), seen(0)];
  assert.equal(watch(restart).at(-1), 'empty');
  assert.match(watch([seen(5), ...during(20, GONE)]).at(-1) ?? '', /no proxy answers/);
});

test('DrainWatch gives up on a proxy that does not follow the drain', () => {
  for (const [look, what] of [
    [UNKNOWN, /has no such backend; does it read routing\.db\?/],
    [seen(5, false), /does not drain it; does it read routing\.db\?/],
  ] as const) {
    const said = watch(during(30, look));
    assert.equal(said[10], '', 'it may poll');
    assert.match(said.at(-1) ?? '', what);
  }
  for (const look of [UNKNOWN, seen(5, false)]) {
    assert.match(watch([seen(5), look]).at(-1) ?? '', /was ended, or its row deleted/);
  }
});

test('DrainWatch gives up when the time is over and sessions stay', () => {
  const plan = { closeAtMs: 60_000 };
  const said = watch(during(90, seen(5)), plan);
  assert.equal(said[70], '');
  assert.match(said.at(-1) ?? '', /5 sessions open though the time is over/);
  // Slow is not stuck: one every 20 seconds.
  const slow = [5, 4, 3, 2, 1].flatMap((open) => during(20, seen(open)));
  const paced = [...during(60, seen(5)), ...slow, seen(0), seen(0)];
  assert.equal(watch(paced, { ...plan, closeRate: 0.05 }).at(-1), 'empty');
  assert.ok(
    watch(paced, { ...plan, closeRate: 0.05 })
      .slice(0, -1)
      .every((one) => one === ''),
  );
});

test('sessionsText() counts', () => {
  assert.deepEqual([0, 1, 2].map(sessionsText), ['0 sessions', '1 session', '2 sessions']);
});

test('backendSample() reads the sample of exactly that backend', () => {
  const page = [
    '# HELP open Sessions',
    'open{backend="a"} 1',
    'open{backend="aa",app="web"} 2',
    'open{app="web",backend="b"} 3e5',
    'open{backend="quo\\"te\\\\"} 4',
    'open_other{backend="c"} 5',
    'open{other="x,backend=\\"d\\""} 6',
    '',
  ].join('\n');
  const values = ['a', 'aa', 'b', 'quo"te\\', 'c', 'd'].map((id) =>
    backendSample(page, 'open', id),
  );
  assert.deepEqual(values, [1, 2, 300_000, 4, null, null]);
});

test('adminText() asks a proxy that listens everywhere on this machine', () => {
  const at = (host: string, family: 4 | 6): string => adminText({ host, port: 1, family });
  assert.equal(at('0.0.0.0', 4), '127.0.0.1:1');
  assert.equal(at('::', 6), '[::1]:1');
  assert.equal(at('10.0.0.1', 4), '10.0.0.1:1');
});
