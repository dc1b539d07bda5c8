// The command line through the real executable: exit codes, texts, JSON. Each test has its own
// working directory and no EDGEPROXY_ variable of the outside.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { plainRunFlags } from '../src/cli/flags.ts';
import { SETTING_KEYS, SETTINGS } from '../src/config.ts';

const EDGEPROXY = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));
const LIMIT = { timeout: 60_000 };

const root = mkdtempSync(join(tmpdir(), 'edgeproxy-cli-'));
after(() => rmSync(root, { recursive: true }));
const newFolder = (): string => mkdtempSync(join(root, 'w-'));

function environment(extra: Record<string, string> = {}): Record<string, string | undefined> {
  const clean = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('EDGEPROXY_') && name !== 'DEBUG',
  );
  return { ...Object.fromEntries(clean), ...extra };
}

/** A working directory with `call` bound to it: the exit code and both outputs of one command. */
function shell(env: Record<string, string> = {}) {
  const cwd = newFolder();
  const call = (...words: string[]) => {
    const { status, stdout, stderr } = spawnSync(EDGEPROXY, words, {
      cwd,
      env: environment(env),
      encoding: 'utf8',
      timeout: 30_000,
    });
    return { status, stdout, stderr };
  };
  const ok = (...words: string[]): string => {
    const { status, stdout, stderr } = call(...words);
    assert.equal(status, 0, `${words.join(' ')}: ${stderr}`);
    return stdout;
  };
  return { cwd, call, ok };
}

interface ExplainJson {
  ip: string;
  country: string | null;
  country_reason: string | null;
  region: string | null;
  pop: { region: string; country: string | null };
  app: string;
  choice: string | null;
  reason: string;
  note: string;
  candidates: {
    id: string;
    tier: number;
    score: number | null;
    active: number;
    excluded: string | null;
    reason: string;
  }[];
}

test('edgeproxy --version and --help exit 0, no command exits 2', LIMIT, () => {
  const { call, ok } = shell();
  const { version } = JSON.parse(
    readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
  ) as { version: string };
  assert.equal(ok('--version'), `${version}\n`);
  for (const command of ['run', 'demo', 'init', 'backend', 'explain']) {
    assert.match(ok('--help'), new RegExp(`^ {2}${command}\\b`, 'm'));
    assert.match(ok(command, '--help'), /^Usage: edgeproxy /);
  }
  const subcommands =
    'list add remove restore delete enable disable drain undrain weight limits'.split(' ');
  const help = ok('backend', '--help');
  for (const name of subcommands) assert.match(help, new RegExp(`^ {2}${name}\\b`, 'm'));
  assert.equal(call().status, 2);
  assert.equal(call('backend').status, 2);
});

test('edgeproxy run --help shows every setting with its environment variable', LIMIT, () => {
  const help = shell().ok('run', '--help').replace(/\s+/g, ' ');
  for (const key of SETTING_KEYS) assert.ok(help.includes(`env: ${SETTINGS[key].env})`), key);
  assert.ok(help.includes('EDGEPROXY_CONFIG'));
});

test('edgeproxy answers wrong usage with exit code 2', LIMIT, () => {
  const { call } = shell();
  for (const words of [
    ['rnu'],
    ['run', '--wokers', '2'],
    ['run', '--workers'],
    ['run', 'extra'],
    ['backend', 'lst'],
    ['backend', 'add', 'x'],
    ['backend', 'add', 'x', '10.0.0.1:80'],
    ['backend', 'weight', 'x'],
    ['backend', 'weight', 'x', 'heavy'],
    ['backend', 'limits', 'x'],
    ['backend', 'limits', 'x', '--hard', '1.5'],
    ['backend', 'add', 'x', '10.0.0.1', '--region', 'sa'],
    ['explain'],
    ['explain', 'not-an-address'],
    ['explain', '10.0.0.256'],
  ]) {
    const { status, stdout, stderr } = call(...words);
    assert.equal(status, 2, words.join(' '));
    assert.equal(stdout, '', words.join(' '));
    assert.notEqual(stderr, '', words.join(' '));
  }
  assert.match(call('run', '--wokers', '2').stderr, /--workers/);
});

test('edgeproxy run answers wrong settings with exit code 2 and one line each', LIMIT, () => {
  const { call, cwd } = shell({ EDGEPROXY_REGION: 'no such', EDGEPROXY_WORKERS: '0' });
  writeFileSync(join(cwd, 'settings.toml'), 'listen = "127.0.0.1:1"\n');
  const { status, stderr } = call('run', '--config', 'settings.toml', '--engine=warp');
  assert.equal(status, 2);
  const lines = stderr.trimEnd().split('\n');
  assert.equal(lines.length, 4, stderr);
  assert.match(stderr, /^Unknown key "listen" in settings\.toml/m);
  assert.match(stderr, /^EDGEPROXY_REGION is "no such", allowed: /m);
  assert.match(stderr, /^EDGEPROXY_WORKERS is "0", allowed: /m);
  assert.match(stderr, /^--engine is "warp", allowed: one of auto, /m);
});

test('edgeproxy run and backend list say what to run when routing.db is missing', LIMIT, () => {
  const { call } = shell();
  for (const words of [['run'], ['backend', 'list'], ['explain', '8.8.8.8']]) {
    const { status, stderr } = call(...words, '--db-path', 'some.db');
    assert.equal(status, 1, words.join(' '));
    assert.match(stderr, /edgeproxy init --db-path some\.db/);
    assert.equal(stderr.trimEnd().split('\n').length, 1, 'one line, no stack');
  }
});

/** The columns that a row has only where somebody set them. */
const UNSET = {
  check_type: null,
  check_port: null,
  check_path: null,
  check_expect: null,
  draining: false,
  drain_close_at: null,
  drain_close_rate: null,
  proxy_protocol: null,
};

test('edgeproxy backend changes rows, and list shows them', LIMIT, () => {
  const { ok, cwd } = shell();
  assert.match(ok('init'), /^Created routing\.db/);
  assert.ok(existsSync(join(cwd, 'routing.db')));
  assert.match(ok('init'), /nothing was changed/);
  assert.match(ok('backend', 'list'), /^No backends/);
  ok('backend', 'add', 'br-1', '10.0.0.1:80', '--region', 'SA', '--country', 'br', '--app', 'web');
  const checks = '--check-type http --check-port 8080 --check-path /up --check-expect 200,204';
  const limits = ['--soft', '10', '--hard', '20'];
  ok('backend', 'add', 'us-1', '[fd00::1]:443', '--region', 'us', ...limits, ...checks.split(' '));
  const list = (): Record<string, unknown>[] => JSON.parse(ok('backend', 'list', '--json'));
  assert.deepEqual(list(), [
    {
      id: 'br-1',
      app: 'web',
      region: 'sa',
      country: 'BR',
      wg_ip: '10.0.0.1',
      port: 80,
      healthy: true,
      weight: 1,
      soft_limit: 100,
      hard_limit: 0,
      deleted: false,
      ...UNSET,
    },
    {
      id: 'us-1',
      app: 'default',
      region: 'us',
      country: null,
      wg_ip: 'fd00::1',
      port: 443,
      healthy: true,
      weight: 1,
      soft_limit: 10,
      hard_limit: 20,
      deleted: false,
      ...UNSET,
      check_type: 'http',
      check_port: 8080,
      check_path: '/up',
      check_expect: '200,204',
    },
  ]);
  const steps: [words: string[], column: string, value: unknown][] = [
    [['disable', 'br-1'], 'healthy', false],
    [['enable', 'br-1'], 'healthy', true],
    [['weight', 'br-1', '2.5'], 'weight', 2.5],
    [['limits', 'br-1', '--soft', '7'], 'soft_limit', 7],
    [['limits', 'br-1', '--hard', '9'], 'hard_limit', 9],
    [['remove', 'br-1'], 'deleted', true],
    [['restore', 'br-1'], 'deleted', false],
  ];
  for (const [words, column, value] of steps) {
    assert.match(ok('backend', ...words), /^Backend "br-1" /, words.join(' '));
    assert.equal(list()[0]?.[column], value, words.join(' '));
  }
  assert.equal(list()[0]?.soft_limit, 7, 'limits --hard leaves the soft limit');
  const table = ok('backend', 'list');
  assert.match(table, /^ID +APP +REGION +CC +ADDRESS +WEIGHT +SOFT +HARD +STATE$/m);
  assert.match(table, /^us-1 +default +us +- +\[fd00::1\]:443 +1 +10 +20 +enabled$/m);
  assert.ok(table.split('\n').every((line) => line.length <= 80));
  assert.equal(ok('backend', 'list', '--app', 'web').trimEnd().split('\n').length, 2);
  ok('backend', 'delete', 'br-1');
  assert.deepEqual(
    list().map(({ id }) => id),
    ['us-1'],
  );
});

test('edgeproxy backend names similar ids for an unknown one, exit code 1', LIMIT, () => {
  const { ok, call } = shell();
  ok('init');
  ok('backend', 'add', 'sao-paulo-1', '10.0.0.1:80', '--region', 'sa');
  for (const words of [['disable'], ['remove'], ['restore'], ['delete'], ['enable'], ['undrain']]) {
    const { status, stderr } = call('backend', ...words, 'sao-palo-1');
    assert.equal(status, 1, words.join());
    assert.equal(stderr, 'Unknown backend "sao-palo-1": similar ids are sao-paulo-1\n');
  }
  assert.equal(call('backend', 'weight', 'zzz', '1').status, 1);
  assert.equal(call('backend', 'limits', 'zzz', '--soft', '1').status, 1);
  const taken = call('backend', 'add', 'sao-paulo-1', '10.0.0.2:80', '--region', 'sa');
  assert.equal(taken.status, 1);
  const wrong = call('backend', 'add', 'x', '10.0.0.2:0', '--region', 'sa', '--country', 'XX');
  assert.equal(wrong.status, 2);
  assert.match(wrong.stderr, /country is "XX".*port is 0/);
});

test('edgeproxy backend finds the database by flag, environment and file', LIMIT, () => {
  const { ok, cwd } = shell({ EDGEPROXY_DB_PATH: 'by-env.db', EDGEPROXY_WORKERS: 'zero' });
  ok('init');
  assert.ok(existsSync(join(cwd, 'by-env.db')), 'the wrong EDGEPROXY_WORKERS is not its business');
  ok('init', '--db-path', 'by-flag.db');
  assert.ok(existsSync(join(cwd, 'by-flag.db')));
  const plain = shell();
  writeFileSync(join(plain.cwd, 's.toml'), 'db_path = "by-file.db"\n');
  plain.ok('init', '--config', 's.toml');
  assert.ok(existsSync(join(plain.cwd, 'by-file.db')));
});

/** Three backends in three regions, one of them better in each way. */
function explainShell(env: Record<string, string> = {}) {
  const made = shell(env);
  made.ok('init');
  const add = (id: string, port: number, ...rest: string[]): string =>
    made.ok('backend', 'add', id, `10.0.0.1:${port}`, '--region', ...rest);
  add('br-1', 1, 'sa');
  add('ar-1', 2, 'sa', '--country', 'AR');
  add('us-1', 3, 'us');
  const json = (...words: string[]): ExplainJson =>
    JSON.parse(made.ok('explain', ...words, '--json')) as ExplainJson;
  return { ...made, add, json };
}

test('edgeproxy explain shows country, tiers and scores as the data plane has them', LIMIT, () => {
  const { json, ok } = explainShell();
  const answer = json('200.160.2.3');
  assert.equal(answer.ip, '200.160.2.3');
  assert.deepEqual([answer.country, answer.region], ['BR', 'sa']);
  assert.deepEqual(answer.pop, { region: 'sa', country: null });
  assert.deepEqual([answer.app, answer.choice], ['*', 'br-1']);
  assert.deepEqual(
    answer.candidates.map(({ id, tier, score, excluded }) => [id, tier, score, excluded]),
    [
      ['br-1', 0, 0.01, null],
      ['ar-1', 1, 100.01, null],
      ['us-1', 3, 300.01, null],
    ],
  );
  assert.ok(answer.candidates.every(({ active }) => active === 0));
  assert.match(answer.note, /not the running process/);
  const text = ok('explain', '200.160.2.3');
  assert.match(text, /^Country +Brazil \(BR\), region sa$/m);
  assert.match(text, /^Choice +br-1: /m);
  assert.match(text, /^\* +br-1 +sa\/BR +0 +0\.01 +chosen/m);
  assert.match(text, /Load is 0/);
});

test('edgeproxy explain says why each backend is excluded', LIMIT, () => {
  const { json, ok, add } = explainShell();
  ok('backend', 'disable', 'br-1');
  ok('backend', 'remove', 'ar-1');
  ok('backend', 'weight', 'us-1', '0');
  const none = json('200.160.2.3');
  assert.equal(none.choice, null);
  assert.equal(none.reason, 'every backend is excluded');
  const reasons = new Map(none.candidates.map(({ id, reason }) => [id, reason]));
  assert.equal(reasons.get('br-1'), 'disabled');
  assert.equal(reasons.get('ar-1'), 'removed');
  assert.match(reasons.get('us-1') as string, /^weight 0/);
  assert.equal(none.candidates.find(({ id }) => id === 'us-1')?.score, null);
  add('eu-1', 9, 'eu');
  assert.equal(json('200.160.2.3').choice, 'eu-1');
});

test('edgeproxy explain says why an address has no country', LIMIT, () => {
  const { json } = explainShell();
  for (const [ip, reason] of [
    ['10.1.2.3', /private/],
    ['127.0.0.1', /loopback/],
    ['::1', /loopback/],
    ['fd00::1', /private/],
    ['::ffff:192.168.0.1', /private/],
    ['100.64.0.1', /carrier-grade/],
    ['192.0.2.1', /database does not know/],
  ] as const) {
    const answer = json(ip);
    assert.equal(answer.country, null, ip);
    assert.match(answer.country_reason as string, reason, ip);
    // No country starts at the POP's region, where two take turns.
    assert.deepEqual(
      answer.candidates.map(({ tier }) => tier),
      [2, 2, 3],
      ip,
    );
    assert.match(answer.reason, /takes turns/, ip);
  }
});

test('edgeproxy explain reads IPv6 and IPv4-mapped clients', LIMIT, () => {
  const { json } = explainShell();
  assert.equal(json('2804:14d::1').country, 'BR');
  const mapped = json('::ffff:200.160.2.3');
  assert.deepEqual([mapped.ip, mapped.country], ['200.160.2.3', 'BR']);
});

test('edgeproxy explain follows region, country, app and region map', LIMIT, () => {
  const { json, call, cwd } = explainShell();
  assert.equal(json('10.0.0.1', '--region', 'us').choice, 'us-1');
  writeFileSync(join(cwd, 'map.toml'), '[countries]\nBR = "us"\n');
  const mapped = json('200.160.2.3', '--region-map-path', 'map.toml');
  assert.equal(mapped.region, 'us');
  const { status, stderr } = call('explain', '8.8.8.8', '--app', 'defualt');
  assert.equal(status, 1);
  assert.match(stderr, /similar apps are default/);
  assert.equal(json('8.8.8.8', '--app', 'default').app, 'default');
});

test('edgeproxy backend list and explain report bad rows on standard error', LIMIT, (t) => {
  const { ok, call, cwd } = shell();
  ok('init');
  ok('backend', 'add', 'good', '10.0.0.1:80', '--region', 'sa');
  const sql =
    "INSERT INTO backends(id, app, region, wg_ip, port) VALUES ('bad', 'w', 'sa', 'x', 0)";
  if (spawnSync('sqlite3', ['routing.db', sql], { cwd }).error) {
    t.skip('sqlite3 is not installed');
    return;
  }
  for (const words of [
    ['backend', 'list', '--json'],
    ['explain', '8.8.8.8', '--json'],
  ]) {
    const { status, stdout, stderr } = call(...words);
    assert.equal(status, 0);
    JSON.parse(stdout);
    assert.match(stderr, /^Backend "bad" is skipped: wg_ip is "x", must be/m);
    assert.match(stderr, /^Backend "bad" is skipped: port is 0, must be/m);
  }
});

test('plainRunFlags() reads plain lines and leaves all others to commander', () => {
  assert.deepEqual(plainRunFlags([]), {});
  assert.deepEqual(plainRunFlags(['--workers', '2', '--db-path=a=b', '--config', 'x.toml']), {
    workers: '2',
    dbPath: 'a=b',
    config: 'x.toml',
  });
  for (const words of [
    ['--help'],
    ['-h'],
    ['extra'],
    ['--'],
    ['--workers'],
    ['--workers', '-1'],
    ['--no-such', '1'],
    ['--debug'],
    ['--tcp-fast-open', 'off'],
    ['--workers', '2', '--'],
  ]) {
    assert.equal(plainRunFlags(words), null, words.join(' '));
  }
});

test('edgeproxy run reads the same line alike with and without commander', LIMIT, () => {
  const { call } = shell();
  const words = ['run', '--workers', '0', '--db-path=', '--region=x y'];
  const plain = call(...words);
  // A switch makes the line one for commander.
  const viaCommander = call(...words, '--tcp-fast-open', 'on');
  assert.equal(plain.status, 2);
  assert.deepEqual(viaCommander, plain);
});

const DEMO_PORTS = [9001, 9002, 9003];

async function hold(port: number): Promise<Server | null> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(null));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

async function portsFree(): Promise<boolean> {
  const servers = await Promise.all(DEMO_PORTS.map(hold));
  for (const server of servers)
    await new Promise((done) => (server ? server.close(done) : done(0)));
  return servers.every((server) => server !== null);
}

test('edgeproxy demo names a busy port and exits 1', LIMIT, async (t) => {
  if (!(await portsFree())) {
    t.skip('ports 9001 to 9003 are in use');
    return;
  }
  const { call, cwd } = shell();
  const holder = await hold(9002);
  const { status, stderr } = call('demo');
  holder?.close();
  assert.equal(status, 1);
  assert.match(stderr, /127\.0\.0\.1:9002: the port is in use/);
  assert.equal(existsSync(join(cwd, 'demo-routing.db')), false, 'nothing is left behind');
});

/** The demo on a free port; resolves with its address once it listens, or with why it cannot. */
async function startDemo(
  t: TestContext,
  cwd: string,
): Promise<{ child: ChildProcess; address: string; output: () => string } | string> {
  const words = ['demo', '--listen-addr', '127.0.0.1:0', '--metrics-listen-addr', 'off'];
  const child = spawn(EDGEPROXY, words, { cwd, env: environment() });
  t.after(() => child.kill('SIGKILL'));
  let [output, log] = ['', ''];
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    log += chunk;
  });
  for (;;) {
    const address = /"addresses":\["\*@([^"]+)"/.exec(log)?.[1];
    if (address) return { child, address, output: () => output };
    if (child.exitCode !== null) return log;
    await sleep(10, undefined, { signal: t.signal });
  }
}

test(
  'edgeproxy demo serves its sample backends and follows edits of its database',
  LIMIT,
  async (t) => {
    if (!(await portsFree())) {
      t.skip('ports 9001 to 9003 are in use');
      return;
    }
    const { cwd, ok } = shell();
    const demo = await startDemo(t, cwd);
    if (typeof demo === 'string') {
      if (/io_uring|node:ffi/.test(demo)) t.skip(demo);
      else assert.fail(demo);
      return;
    }
    const hello = async (): Promise<string> =>
      (await fetch(`http://${demo.address}/x`, { headers: { connection: 'close' } })).text();
    assert.equal(await hello(), 'Hello from demo-sa (region sa)\n');
    assert.match(demo.output(), /demo-routing\.db/);
    for (const hint of [
      /1\. curl /,
      /2\. .*backend disable demo-sa/,
      /3\. .*explain /,
      /Ctrl\+C/,
    ]) {
      assert.match(demo.output(), hint);
    }
    ok('backend', 'disable', 'demo-sa', '--db-path', 'demo-routing.db');
    while ((await hello()) !== 'Hello from demo-us (region us)\n') {
      await sleep(10, undefined, { signal: t.signal });
    }
    const exited = new Promise((resolve) => demo.child.once('exit', resolve));
    demo.child.kill('SIGTERM');
    assert.equal(await exited, 0);
  },
);
