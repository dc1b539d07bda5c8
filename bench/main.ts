// `npm run bench`: edgeproxy beside HAProxy on this machine, in two to five minutes. Proxies stay on CPU 0, load client and
// backend on CPU 1, and one proxy is loaded at a time; so figures are CPU time of the proxy's process per operation.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { type LoadProxy, LoadRun } from '../src/testing/load-run.ts';
import { ALLOCATION_NOISE, measureAllocation, measureIdle, WARM_CLIENTS } from './footprint.ts';
import { haproxyVersion, startHaproxy } from './haproxy.ts';
import { describeMachine, type Report, reportText } from './report.ts';
import { measureSideBySide, type RowPlan } from './side-by-side.ts';

const SECTIONS = ['conn', 'idle', 'alloc', 'exchange', 'bulk'] as const;
type Section = (typeof SECTIONS)[number];
const ENGINES = ['uring', 'epoll'] as const;
type Engine = (typeof ENGINES)[number];

const USAGE = `Usage: npm run bench -- [--rounds N] [--seconds S] [--only ${SECTIONS.join('|')}]
                        [--engine uring|epoll] [--json]
  --rounds N   rounds of each row (default 5; bulk rows take 2 at most)
  --seconds S  window of each measurement (default 1)
  --only ROW   only these rows, comma separated
  --engine E   edgeproxy's engine (default uring)
  --json       JSON instead of a table
`;
const PROXY_CPU = 0;
const LOAD_CPU = 1;
/** V8 has optimised the path of a connection after about 20,000. */
const WARM_CONNECTIONS = 30_000;
const WARM_EXCHANGES = 40_000;
/** Twelve cells a round: more rounds would not fit into the time. */
const BULK_ROUNDS_MAX = 2;
const IDLE_SESSIONS = 10_000;
/** Descriptors a proxy needs besides its sessions'. */
const DESCRIPTORS_SPARE = 600;

/** A run takes two to four minutes on an idle machine; on a busy one it ends here. */
const LIMIT_SECONDS_MIN = 300;
const LIMIT_SECONDS_PER_ROUND = 20;

interface Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly only: readonly Section[];
  readonly engine: Engine;
  readonly json: boolean;
}

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}

function readOptions(): Options {
  let values: {
    rounds: string;
    seconds: string;
    only: string;
    engine: string;
    json: boolean;
    help: boolean;
  };
  try {
    ({ values } = parseArgs({
      options: {
        rounds: { type: 'string', default: '5' },
        seconds: { type: 'string', default: '1' },
        only: { type: 'string', default: SECTIONS.join(',') },
        engine: { type: 'string', default: 'uring' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    fail(`${(error as Error).message}\n${USAGE}`);
  }
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  const only = values.only.split(',') as Section[];
  const engine = values.engine as Engine;
  const isKnown = only.every((section) => SECTIONS.includes(section)) && ENGINES.includes(engine);
  if (!Number.isInteger(rounds) || rounds < 1 || !(seconds > 0) || !isKnown) fail(USAGE);
  return { rounds, seconds, only, engine, json: values.json };
}

function checkMachine(): void {
  const missing = ['taskset'].filter((name) => spawnSync('which', [name]).status !== 0);
  if (haproxyVersion() === '') missing.push('haproxy');
  if (missing.length > 0) {
    fail(`The benchmark needs ${missing.join(' and ')}: apt-get install haproxy util-linux`);
  }
  if (availableParallelism() < 2)
    fail('The benchmark needs 2 CPUs: one for the proxy, one for the load');
}

/** What the limit of open files lets one proxy hold, at two descriptors a session. */
function idleSessions(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? '1024';
  const descriptors = hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
  return Math.min(IDLE_SESSIONS, Math.floor((descriptors - DESCRIPTORS_SPARE) / 2));
}

function connectPlan({ rounds, seconds }: Options): RowPlan {
  const order = { mode: 'connect', connections: 64 } as const;
  return {
    name: 'connection',
    target: 0.9,
    rounds,
    bulk: false,
    request: { ...order, seconds, warmSeconds: 0.2 },
    warmUp: { ...order, operations: WARM_CONNECTIONS },
  };
}

function exchangePlan({ rounds, seconds }: Options): RowPlan {
  const order = { mode: 'exchange', connections: 100 } as const;
  return {
    name: 'exchange, 100 open',
    target: 0.8,
    rounds,
    bulk: false,
    request: { ...order, seconds, warmSeconds: 0.2 },
    warmUp: { ...order, operations: WARM_EXCHANGES },
  };
}

function bulkPlans({ rounds, seconds }: Options): RowPlan[] {
  return (['download', 'upload'] as const).flatMap((mode) =>
    [1, 4].map(
      (connections): RowPlan => ({
        name: `${mode}, ${connections} stream${connections === 1 ? '' : 's'}`,
        target: 0.4,
        rounds: Math.min(rounds, BULK_ROUNDS_MAX),
        bulk: true,
        request: { mode, connections, seconds: seconds / 2, warmSeconds: 0.2 },
        warmUp: null,
      }),
    ),
  );
}

async function sideBySide(run: LoadRun, options: Options, report: Report): Promise<void> {
  const place = { cpu: PROXY_CPU };
  const haproxy = await startHaproxy(run, place);
  const edgeproxy = await run.startEdgeproxy({ ...place, engine: options.engine });
  const pair = [haproxy, edgeproxy];
  if (options.only.includes('conn')) {
    report.rows.push(await measureSideBySide(run, pair, connectPlan(options)));
  }
  if (options.only.includes('exchange')) {
    report.rows.push(await measureSideBySide(run, pair, exchangePlan(options)));
  }
  if (options.only.includes('bulk')) {
    const splicing = await startHaproxy(run, { ...place, splice: true });
    for (const plan of bulkPlans(options)) {
      report.rows.push(await measureSideBySide(run, [haproxy, splicing, edgeproxy], plan));
    }
    await run.stop(splicing);
  }
  await run.stop(haproxy);
  await run.stop(edgeproxy);
}

async function footprint(run: LoadRun, { only, engine }: Options, report: Report): Promise<void> {
  const place = { cpu: PROXY_CPU };
  if (only.includes('idle')) {
    const sessions = idleSessions();
    const haproxy = (): Promise<LoadProxy> => startHaproxy(run, place);
    const edgeproxy = (): Promise<LoadProxy> =>
      run.startEdgeproxy({ ...place, engine, watchHeap: true });
    const cases = [
      { start: haproxy, clients: sessions },
      { start: edgeproxy, clients: WARM_CLIENTS },
      { start: edgeproxy, clients: sessions },
    ];
    for (const { start, clients } of cases) {
      const proxy = await start();
      report.idle.push(await measureIdle(run, proxy, sessions, clients, WARM_CONNECTIONS));
      await run.stop(proxy);
    }
  }
  if (only.includes('alloc')) {
    const proxy = await run.startEdgeproxy({ ...place, engine, watchHeap: true });
    for (const mode of ['connect', 'exchange'] as const) {
      report.allocation.push(await measureAllocation(run, proxy, mode, ALLOCATION_NOISE));
    }
    await run.stop(proxy);
  }
}

const options = readOptions();
checkMachine();
const report: Report = { machine: describeMachine(), rows: [], idle: [], allocation: [] };
const limitSeconds = LIMIT_SECONDS_MIN + options.rounds * options.seconds * LIMIT_SECONDS_PER_ROUND;
setTimeout(() => {
  process.stderr.write(
    `The benchmark is not done after ${limitSeconds} s: this machine is too busy\n`,
  );
  process.exit(1);
}, limitSeconds * 1000).unref();
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
const run = await LoadRun.start({ cpu: LOAD_CPU });
try {
  if (options.only.some((name) => ['conn', 'exchange', 'bulk'].includes(name))) {
    await sideBySide(run, options, report);
  }
  await footprint(run, options, report);
} finally {
  run.close();
}
const text = options.json ? JSON.stringify(report, null, 2) : reportText(report);
process.stdout.write(`${text}\n`);
