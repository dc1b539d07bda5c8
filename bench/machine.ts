// The machine a run is made on: what it is, what it lacks for the benchmark, and how many descriptors a process may have.

import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { haproxyVersion } from './proxies/haproxy.ts';
import { nginxVersion } from './proxies/nginx.ts';

export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryGigabytes: number;
  readonly kernel: string;
  readonly virtual: string;
  readonly congestionControl: string;
  readonly node: string;
  readonly haproxy: string;
  readonly nginx: string;
  readonly commit: string;
  /** Of the last minute, at the start: others' work disturbs figures. */
  readonly loadAverage: number;
  /** CPUs of the proxy, of the load client and of the load backend. */
  readonly placement: readonly [proxy: number, client: number, backend: number];
  /** Limit of open files that proxies get. */
  readonly descriptors: number;
}

const DESCRIPTORS_WANTED = 300_000;

function output(command: string, ...args: string[]): string {
  try {
    const stdio: ['ignore', 'pipe', 'ignore'] = ['ignore', 'pipe', 'ignore'];
    return execFileSync(command, args, { encoding: 'utf8', stdio }).trim();
  } catch {
    return '';
  }
}

function commitName(): string {
  const commit = output('git', 'rev-parse', '--short', 'HEAD');
  if (commit === '') return 'none';
  // The report itself changes with every run.
  const changed = output(
    'git',
    'status',
    '--porcelain',
    '--',
    '.',
    ':!bench/report',
    ':!README.md',
  );
  return changed === '' ? commit : `${commit} with changes`;
}

/** The hard limit, or more where this user may raise it. */
function descriptorsToHave(): number {
  const raised = spawnSync('prlimit', [`--nofile=${DESCRIPTORS_WANTED}`, '--', 'true']);
  if (raised.status === 0) return DESCRIPTORS_WANTED;
  const limits = readFileSync('/proc/self/limits', 'utf8');
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? '1024';
  return hard === 'unlimited' ? DESCRIPTORS_WANTED : Math.min(DESCRIPTORS_WANTED, Number(hard));
}

export function describeMachine(): Machine {
  const proc = (path: string): string => readFileSync(path, 'utf8').trim();
  const count = availableParallelism();
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cpus: count,
    memoryGigabytes: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    virtual: output('systemd-detect-virt', '--vm') || 'unknown',
    congestionControl: proc('/proc/sys/net/ipv4/tcp_congestion_control'),
    node: process.version,
    haproxy: haproxyVersion(),
    nginx: nginxVersion(),
    commit: commitName(),
    loadAverage: Number(proc('/proc/loadavg').split(' ', 1)[0]),
    placement: [0, 1, count > 2 ? 2 : 1],
    descriptors: descriptorsToHave(),
  };
}

/** What is missing, in words that say what to install; empty when the benchmark can run. */
export function missingParts(): string[] {
  const missing: string[] = [];
  if (process.platform !== 'linux') return ['Linux: CPU time and memory are read from /proc'];
  const tools = ['taskset', 'setpriv', 'prlimit', 'chrt'];
  const absent = tools.filter((name) => spawnSync('which', [name]).status !== 0);
  if (absent.length > 0) missing.push(`${absent.join(', ')}: apt-get install util-linux`);
  if (haproxyVersion() === '') missing.push('HAProxy: apt-get install haproxy');
  if (nginxVersion() === '') {
    missing.push('nginx with its stream module: apt-get install nginx-light libnginx-mod-stream');
  }
  if (availableParallelism() < 2) missing.push('a second CPU: one for the proxy, one for the load');
  return missing;
}
