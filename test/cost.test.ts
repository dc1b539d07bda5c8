// Guards against a gross loss of speed without looking at a clock: what edgeproxy asks of the kernel per connection and per
// exchange, beside what HAProxy asks for the same load in the same run. Bounds leave room for everything but a change in kind.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { HAPROXY } from '../bench/proxies/haproxy.ts';
import { uringRefusal } from '../src/sys/uring.ts';
import { type LoadProxy, type LoadRequest, LoadRun } from '../src/testing/load-run.ts';
import { skipReason } from '../src/testing/netns.ts';
import { countKernelWork, type KernelWork, kernelWorkOf } from '../src/testing/syscall-count.ts';

const DESCRIPTORS = 1024;
const CONNECT = { mode: 'connect', connections: 32, operations: 1000 } as const;
const EXCHANGE = { mode: 'exchange', connections: 50, operations: 2000 } as const;

function skipIfMissing(): string | false {
  const refusal = uringRefusal();
  if (refusal !== '') return refusal;
  const missing = ['strace', 'haproxy'].filter((name) => spawnSync('which', [name]).status !== 0);
  return missing.length > 0 && skipReason(`${missing.join(' and ')} not installed`);
}

interface Cost {
  readonly calls: number;
  readonly operations: number;
}

function describeCost({ calls, operations }: Cost, { calls: names }: KernelWork): string {
  const most = [...names].sort(([, one], [, two]) => two - one).slice(0, 12);
  const list = most.map(([name, count]) => `${name} ${count}`).join(', ');
  return `${calls.toFixed(2)} system calls, ${operations.toFixed(2)} operations each: ${list}`;
}

describe('cost', { skip: skipIfMissing() }, () => {
  let run: LoadRun;
  const proxies = new Map<string, LoadProxy>();
  const haproxyCosts = new Map<LoadRequest, Cost>();

  async function costOf(name: string, request: LoadRequest): Promise<[Cost, string]> {
    const proxy = proxies.get(name) as LoadProxy;
    // Pools grow and caches fill with the first of them.
    await run.load(proxy, request);
    const path = run.filePath('strace.txt');
    let done = 0;
    const work = await kernelWorkOf(proxy.pid, path, async () => {
      done = (await run.load(proxy, request)).operations;
    });
    const cost = { calls: work.callsTotal / done, operations: work.operations / done };
    return [cost, `${name}, ${request.mode}: ${describeCost(cost, work)}`];
  }

  before(async () => {
    run = await LoadRun.start();
    proxies.set('uring', await run.startEdgeproxy({ engine: 'uring' }));
    proxies.set('epoll', await run.startEdgeproxy({ engine: 'epoll' }));
    const { command, args, ports } = (await HAPROXY.prepare(run, {
      descriptors: DESCRIPTORS,
    })) as NonNullable<Awaited<ReturnType<typeof HAPROXY.prepare>>>;
    const child = run.spawn(command, args, {});
    await run.whenReady(child, ports);
    proxies.set('haproxy', { name: 'haproxy', pid: child.pid as number, ports });
    for (const request of [CONNECT, EXCHANGE]) {
      haproxyCosts.set(request, (await costOf('haproxy', request))[0]);
    }
  });
  after(() => run?.close());

  for (const [engine, request, ratioMax, operationsMax] of [
    // Seen: 0.23, 0.04, 0.81, 0.97, and 7.1 and 2.1 operations. Smaller batches on another machine cost more io_uring_enter.
    ['uring', CONNECT, 0.4, 9],
    ['uring', EXCHANGE, 0.5, 3],
    ['epoll', CONNECT, 0.95, 0],
    ['epoll', EXCHANGE, 1.1, 0],
  ] as const) {
    it(`${engine}: ${request.mode} asks the kernel for at most ${ratioMax} of HAProxy's calls`, async (t) => {
      const [cost, text] = await costOf(engine, request);
      t.diagnostic(text);
      const ratio = cost.calls / (haproxyCosts.get(request)?.calls ?? Number.NaN);
      assert.ok(ratio <= ratioMax, `${ratio.toFixed(2)} of HAProxy's, ${text}`);
      assert.ok(cost.operations <= operationsMax, `at most ${operationsMax} operations, ${text}`);
    });
  }
});

it('countKernelWork() counts calls by name, and what io_uring took', () => {
  const { calls, callsTotal, operations } = countKernelWork(
    [
      'socket(AF_INET, SOCK_STREAM, 0) = 7',
      'io_uring_enter(5, 3, 1, IORING_ENTER_GETEVENTS, NULL, 8) = 3',
      'read(4, "io_uring_enter(1) = 9", 21) = 21',
      'io_uring_enter(5, 2, 0, 0, NULL, 8) = 2',
      'io_uring_enter(5, 0, 1, 0, NULL, 8) = -1 EINTR (Interrupted system call)',
      '+++ exited with 0 +++',
    ].join('\n'),
  );
  assert.deepEqual(Object.fromEntries(calls), { socket: 1, io_uring_enter: 3, read: 1 });
  assert.deepEqual([callsTotal, operations], [5, 5]);
});
