// The userspace WireGuard device side by side with wireguard-go, in the same two network namespaces in one run: throughput
// of one TCP connection, CPU seconds per GB of each end, and what an idle ping takes beyond the bare cable. Needs root, wg,
// wireguard-go, iperf3 and ping. `npm run bench:mesh [-- ROUNDS]`; a round takes some 25 s. Table on stderr, JSON on stdout.

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import {
  type Implementation,
  type WireguardHost,
  WireguardNet,
  wireguardProblem,
} from '../src/testing/wireguard-net.ts';

const SECONDS = 4;
const TICKS_PER_SECOND = 100;
const PINGS = 30;
const PAIRS: readonly (readonly [Implementation, Implementation])[] = [
  ['wireguard-go', 'wireguard-go'],
  ['ours', 'wireguard-go'],
  ['wireguard-go', 'ours'],
  ['ours', 'ours'],
];

interface Row {
  readonly pair: string;
  readonly gbitPerSecond: number;
  readonly senderCpuPerGb: number;
  readonly receiverCpuPerGb: number;
  readonly pingMs: number;
  readonly barePingMs: number;
}

/** CPU time of the device's process so far. */
function cpuSeconds({ pid }: WireguardHost): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function inside(host: WireguardHost, command: readonly string[]): string {
  const args = ['netns', 'exec', host.namespace, ...command];
  const result = spawnSync('ip', args, { encoding: 'utf8', timeout: 60_000 });
  if (result.status !== 0)
    throw new Error(`${command.join(' ')}: ${result.stderr}${result.stdout}`);
  return result.stdout;
}

/** The median, which a few slow ones do not move. */
function pingMs(host: WireguardHost, address: string): number {
  const text = inside(host, ['ping', '-c', String(PINGS), '-i', '0.05', address]);
  const times = [...text.matchAll(/time=([\d.]+)/g)].map(([, time]) => Number(time));
  return times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN;
}

async function measure(first: Implementation, second: Implementation): Promise<Row> {
  await using net = await new WireguardNet({ first, second }).start();
  const [a, b] = [net.first, net.second];
  pingMs(a, b.inner[0]);
  const idle = pingMs(a, b.inner[0]);
  const bare = pingMs(a, b.outer[0]);
  const args = ['netns', 'exec', b.namespace, 'iperf3', '-s', '-1', '-B', b.inner[0]];
  const server = spawn('ip', args, { stdio: 'ignore' });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = [cpuSeconds(a), cpuSeconds(b)] as const;
  const run = ['iperf3', '-c', b.inner[0], '-C', 'cubic', '-t', String(SECONDS), '-J'];
  const report = JSON.parse(inside(a, run)) as {
    end: { sum_received: { bytes: number; bits_per_second: number } };
  };
  server.kill();
  const { bytes, bits_per_second } = report.end.sum_received;
  const perGb = (seconds: number): number => seconds / (bytes / 1e9);
  return {
    pair: `${first} -> ${second}`,
    gbitPerSecond: bits_per_second / 1e9,
    senderCpuPerGb: perGb(cpuSeconds(a) - before[0]),
    receiverCpuPerGb: perGb(cpuSeconds(b) - before[1]),
    pingMs: idle,
    barePingMs: bare,
  };
}

function median(rows: readonly Row[], field: Exclude<keyof Row, 'pair'>): number {
  const sorted = rows.map((row) => row[field]).sort((a, b) => a - b);
  return Number((sorted[sorted.length >> 1] ?? Number.NaN).toFixed(3));
}

const problem = wireguardProblem();
if (problem !== '') {
  process.stderr.write(`Cannot measure: ${problem}\n`);
  process.exit(2);
}
const rounds = Number(process.argv[2] ?? 2);
const rows: Row[] = [];
for (let round = 0; round < rounds; round++) {
  for (const [first, second] of PAIRS) {
    const row = await measure(first, second);
    rows.push(row);
    process.stderr.write(`${JSON.stringify(row)}\n`);
  }
}
const medians = PAIRS.map(([first, second]) => {
  const pair = `${first} -> ${second}`;
  const own = rows.filter((row) => row.pair === pair);
  return {
    pair,
    gbitPerSecond: median(own, 'gbitPerSecond'),
    senderCpuPerGb: median(own, 'senderCpuPerGb'),
    receiverCpuPerGb: median(own, 'receiverCpuPerGb'),
    addedPingMs: Number((median(own, 'pingMs') - median(own, 'barePingMs')).toFixed(3)),
  };
});
process.stderr.write(
  '\nsender -> receiver              Gbit/s  CPU s/GB: sender, receiver  ping ms added\n',
);
for (const row of medians) {
  const numbers = [row.gbitPerSecond, row.senderCpuPerGb, row.receiverCpuPerGb, row.addedPingMs];
  const columns = numbers.map((value) => value.toFixed(2).padStart(8)).join('  ');
  process.stderr.write(`${row.pair.padEnd(30)}${columns}\n`);
}
const machine = { cpus: cpus().length, model: cpus()[0]?.model, kernel: release() };
process.stdout.write(
  `${JSON.stringify({ machine, node: process.version, rounds, medians, rows })}\n`,
);
