// The benchmark's report: machine, text table, JSON.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import type { AllocationRow, IdleRow } from './footprint.ts';
import { haproxyVersion } from './haproxy.ts';
import type { Row } from './side-by-side.ts';
import type { Spread } from './statistics.ts';

export interface Machine {
  readonly cpu: string;
  readonly cpus: number;
  readonly kernel: string;
  readonly node: string;
  readonly haproxy: string;
  readonly congestionControl: string;
  readonly commit: string;
  /** Of the last minute, at the start: others' work disturbs figures. */
  readonly loadAverage: number;
}

export interface Report {
  readonly machine: Machine;
  readonly rows: Row[];
  readonly idle: IdleRow[];
  readonly allocation: AllocationRow[];
}

function commitName(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    const changed = git('status', '--porcelain') === '' ? '' : ' with changes';
    return `${git('rev-parse', '--short', 'HEAD')}${changed}`;
  } catch {
    return 'none';
  }
}

export function describeMachine(): Machine {
  const proc = (path: string): string => readFileSync(path, 'utf8').trim();
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cpus: cpus().length,
    kernel: release(),
    node: process.version,
    haproxy: haproxyVersion(),
    congestionControl: proc('/proc/sys/net/ipv4/tcp_congestion_control'),
    commit: commitName(),
    loadAverage: Number(proc('/proc/loadavg').split(' ', 1)[0]),
  };
}

/** Three significant digits: more would claim a precision that no run has. */
function short(value: number): string {
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.max(Math.abs(value), 1e-9))));
  return value.toFixed(Math.min(digits, 3));
}

function range({ median, low, high }: Spread): string {
  return `${short(median)} (${short(low)}–${short(high)})`;
}

function megabytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(2);
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function verdict({ target, figures }: Row, index: number): string {
  const ratio = figures[index].edgeproxyRatio;
  if (ratio === null || target === null || index !== 0) return '';
  return ratio.median <= target ? `met (${target})` : `MISSED (${target})`;
}

function sideBySideTable(rows: readonly Row[]): string {
  const head = ['row', 'proxy', 'CPU per operation', 'rate', 'cores', 'edgeproxy ÷ it', 'target'];
  const body = rows.flatMap((row) =>
    row.figures.map(({ proxy, cost, rate, cores, edgeproxyRatio, failures }, index) => [
      index === 0 ? row.name : '',
      failures === 0 ? proxy : `${proxy} (${failures} FAILED)`,
      `${range(cost)} ${row.unit}`,
      `${short(rate.median)} ${row.rateUnit}`,
      short(cores.median),
      edgeproxyRatio === null ? '' : range(edgeproxyRatio),
      verdict(row, index),
    ]),
  );
  return table([head, ...body]);
}

function idleTable(rows: readonly IdleRow[]): string {
  const head = [
    'idle sessions',
    'from clients',
    'proxy',
    'PSS before',
    'PSS added',
    'per session',
    'at 10,000',
  ];
  const body = rows.map(({ proxy, clients, sessions, pssBytesBefore, pssBytesAdded }) => [
    String(sessions),
    String(clients),
    proxy,
    `${megabytes(pssBytesBefore)} MB`,
    `${megabytes(pssBytesAdded)} MB`,
    `${Math.round(pssBytesAdded / sessions)} B`,
    `${megabytes((pssBytesAdded / sessions) * 10_000)} MB`,
  ]);
  return table([head, ...body]);
}

function allocationTable(rows: readonly AllocationRow[]): string {
  const head = ['V8 heap of the worker', 'allocated', 'over', 'each'];
  const body = rows.map(({ per, operations, heapBytes }) => [
    `per ${per}`,
    `${heapBytes} B`,
    `${operations} ${per}s`,
    `${(heapBytes / operations).toFixed(2)} B`,
  ]);
  return table([head, ...body]);
}

export function reportText({ machine, rows, idle, allocation }: Report): string {
  const { cpu, cpus, kernel, node, haproxy, congestionControl, commit, loadAverage } = machine;
  const parts = [
    `${cpus} × ${cpu}, Linux ${kernel} (${congestionControl}), Node.js ${node}, HAProxy ${haproxy}, commit ${commit}, load before ${loadAverage}`,
  ];
  if (rows.length > 0) parts.push(sideBySideTable(rows), 'Medians over rounds (lowest–highest).');
  if (idle.length > 0) parts.push(idleTable(idle));
  if (allocation.length > 0) parts.push(allocationTable(allocation));
  return parts.join('\n\n');
}
