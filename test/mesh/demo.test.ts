// `edgeproxy demo --mesh` for real: what it shows, how it ends, and that nothing of it is left, also when it is ended in the
// middle, or killed and followed by another one.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { attempt, skipReason } from '../../src/testing/netns.ts';
import { until } from '../../src/testing/wait.ts';

const BIN = new URL('../../bin/edgeproxy', import.meta.url).pathname;

function demoProblem(): string {
  if (process.getuid?.() !== 0) return 'the mesh demo needs root';
  try {
    accessSync('/dev/net/tun', constants.W_OK);
  } catch {
    return 'the mesh demo needs /dev/net/tun';
  }
  const name = `edgeproxy-test-${process.pid}`;
  const problem = attempt('ip', ['netns', 'add', name]);
  return problem === '' ? attempt('ip', ['netns', 'del', name]) : problem;
}

/** A whole run, on a machine that is busy with other tests. */
const SAY_MS_MAX = 180_000;

const problem = demoProblem();
const skip = problem === '' ? false : skipReason(problem);

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

class Demo implements AsyncDisposable {
  readonly child: ChildProcess;
  text = '';
  readonly ended: Promise<number | null>;

  constructor(...words: readonly string[]) {
    // A group of its own, as of a terminal's foreground job. Settings of the caller are not the demo's.
    this.child = spawn(BIN, ['demo', '--mesh', ...words], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, EDGEPROXY_REGION: 'nowhere', EDGEPROXY_DB_PATH: '/none' },
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.text += stripVTControlCharacters(text);
      });
    }
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
  }

  get pid(): number {
    return this.child.pid as number;
  }

  async says(pattern: RegExp): Promise<void> {
    const hasSaid = (): boolean => {
      if (pattern.test(this.text)) return true;
      if (this.child.exitCode !== null) throw new Error(`The demo ended:\n${this.text}`);
      return false;
    };
    await until(`the demo to say ${pattern}`, hasSaid, SAY_MS_MAX);
  }

  /** What Ctrl-C sends: to the whole group. */
  signal(signal: NodeJS.Signals): void {
    process.kill(-this.pid, signal);
  }

  /** Namespaces, files, device sockets and processes that have its process id in their names. */
  remains(): string[] {
    const names = new RegExp(`edgeproxy-demo-${this.pid}-|demo${this.pid}[a-z]`);
    const files = ['/run/netns', '/var/run/wireguard', tmpdir()].flatMap(entries);
    const commands = entries('/proc').flatMap((pid) => {
      try {
        if (!/^\d+$/.test(pid)) return [];
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8') + readlinkSync(`/proc/${pid}/cwd`);
      } catch {
        return [];
      }
    });
    const links = spawnSync('ip', ['-o', 'link'], { encoding: 'utf8' }).stdout.split('\n');
    return [...files, ...commands, ...links].filter((name) => names.test(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.signal('SIGTERM');
    await this.ended;
  }
}

const LINES = [
  /^ {3}app-sa +backend +192\.0\.2\.20:51820 +10\.213\.\d+\.\d+ +\S{44}$/m,
  /^ {3}sa: runs, (kernel|userspace) device \(.+\)$/m,
  /^ {3}app-eu +backend +ok +\d+s +[\d.]+ +0\.0% .* 203\.0\.113\.20:51820$/m,
  /^ {3}200\.160\.2\.\d+ +Brazil +sa +app-sa$/m,
  /^ {3}18\.9\.22\.\d+ +United States +us +app-us$/m,
  /^ {3}5\.9\.0\.\d+ +Germany +eu +app-eu$/m,
  /^ {3}200\.160\.2\.\d+ +Brazil +eu +app-sa$/m,
  /^ {3}After [\d.]+ s, sa's path to app-sa: ok -> dead: no answer for \d+ s$/m,
  /^ {3}app-sa +backend +dead /m,
  /^ {3}The path to app-sa is dead: no answer for \d+ s$/m,
  /^ {3}New client \S+ \(Brazil\) at POP sa: served by app-us/m,
  /^ {3}New client \S+ \(Brazil\) at POP eu: served by app-sa/m,
  /^ {3}\s*app-sa +sa\/BR .* no path to it: no answer for \d+ s$/m,
  /^ {3}After [\d.]+ s, sa's path to app-sa: dead -> ok$/m,
  /^ {3}New client \S+ \(Brazil\) at POP sa: served by app-sa again$/m,
  /^All of it happened as expected\.$/m,
];

test('edgeproxy demo --mesh: all happens as expected, stays with dashboards when told so, and leaves nothing', {
  skip,
}, async () => {
  await using demo = new Demo('--stay');
  await demo.says(/^Heal it:$/m);
  for (const line of LINES) assert.match(demo.text, line);
  assert.doesNotMatch(demo.text, /NOT AS EXPECTED/);
  const urls = [...demo.text.matchAll(/^ {2}(sa|us|eu) +(http:\S+)$/gm)];
  assert.equal(urls.length, 3);
  for (const [, region, url] of urls) {
    const status = await (await fetch(`${url}api/status`)).json();
    assert.equal((status as { pop: { region: string } }).pop.region, region);
  }
  assert.ok(demo.remains().length > 20, 'what is looked for is there while it runs');
  demo.signal('SIGINT');
  assert.equal(await demo.ended, 0, demo.text);
  assert.deepEqual(demo.remains(), []);
});

test('edgeproxy demo --mesh: Ctrl-C in the middle takes everything away, also what a killed one has left', {
  skip,
}, async () => {
  await using killed = new Demo();
  await killed.says(/^ {3}app-\w+: \S+ is up/m);
  killed.child.kill('SIGKILL');
  await killed.ended;
  assert.ok(killed.remains().length > 10);
  await using demo = new Demo();
  await demo.says(new RegExp(`^Removed what ended demos have left: .*\\b${killed.pid}\\b`, 'm'));
  assert.deepEqual(killed.remains(), []);
  await demo.says(/^ {3}app-\w+: \S+ is up/m);
  demo.signal('SIGINT');
  assert.equal(await demo.ended, 1);
  assert.match(demo.text, /^Stopped before its end$/m);
  assert.deepEqual(demo.remains(), []);
});

test('edgeproxy demo --mesh: says what is missing, exit code 1; other flags are refused, 2', () => {
  const call = (program: string, ...words: readonly string[]) =>
    spawnSync(program, words, { encoding: 'utf8', env: { PATH: process.env.PATH } });
  for (const words of [
    ['demo', '--mesh', '--region', 'eu'],
    ['demo', '--stay'],
  ]) {
    const { status, stderr } = call(BIN, ...words);
    assert.equal(status, 2, stderr);
    assert.match(stderr, /--stay/);
  }
  const isRoot = process.getuid?.() === 0;
  const { status, stderr } = isRoot
    ? call('setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin', BIN, 'demo', '--mesh')
    : call(BIN, 'demo', '--mesh');
  assert.equal(status, 1, stderr);
  assert.match(stderr, /^The mesh demo needs, and does not have here:$/m);
  assert.match(stderr, isRoot ? /^ {2}CAP_NET_ADMIN/m : /^ {2}root/m);
});
