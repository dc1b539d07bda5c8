// One run of the benchmark, as its workloads see it: how long to measure, where things go, and how a proxy is started.

import type { LoadProxy, LoadRun } from '../src/testing/load-run.ts';
import type { Machine } from './machine.ts';
import { EDGEPROXY_EPOLL, EDGEPROXY_URING } from './proxies/edgeproxy.ts';
import { HAPROXY, HAPROXY_SPLICE_AUTO, HAPROXY_SPLICING } from './proxies/haproxy.ts';
import { NGINX } from './proxies/nginx.ts';
import { NODE_NET } from './proxies/node-net.ts';
import type { ProxyKind, ProxyNeeds } from './proxies/prepare.ts';
import type { Sample, Values } from './samples.ts';

/** How much is measured: everything that differs between a quick run and a whole one. */
export interface Plan {
  readonly quick: boolean;
  readonly rounds: number;
  /** Window of a measurement, and of one at a fixed rate, whose high percentiles need more. */
  readonly seconds: number;
  readonly latencySeconds: number;
  /** V8 has optimised the path of a connection after about 20,000. */
  readonly warmConnections: number;
  readonly warmExchanges: number;
  readonly idleSessions: readonly number[];
  readonly idleRounds: number;
  /** Long enough for delayed work after a load: code that V8 drops, memory that is given back. */
  readonly settleMs: number;
  readonly reloads: number;
  readonly backendCounts: readonly number[];
  readonly clientCounts: readonly number[];
}

export interface Bench {
  readonly run: LoadRun;
  readonly machine: Machine;
  readonly plan: Plan;
  readonly samples: Sample[];
  readonly notes: string[];
}

export interface Workload {
  readonly name: string;
  measure(bench: Bench): Promise<void>;
}

const DIRECT: ProxyKind = { name: 'direct', prepare: () => null };
export const PROXIES = [HAPROXY, NGINX, NODE_NET, EDGEPROXY_URING, EDGEPROXY_EPOLL] as const;
export const WITH_DIRECT = [DIRECT, ...PROXIES] as const;
/** Splicing matters to bulk flows only. */
export const FOR_BULK = [...WITH_DIRECT, HAPROXY_SPLICE_AUTO, HAPROXY_SPLICING] as const;

export async function startProxy(
  { run, machine }: Bench,
  kind: ProxyKind,
  options: Omit<ProxyNeeds, 'descriptors'> = {},
): Promise<LoadProxy> {
  const { descriptors, placement } = machine;
  const prepared = await kind.prepare(run, { ...options, descriptors });
  if (prepared === null) return { name: kind.name, pid: 0, ports: run.backendPorts };
  const { command, args, ports } = prepared;
  const child = run.spawn(command, args, { cpu: placement[0], descriptors });
  await run.whenReady(child, ports);
  return { name: kind.name, pid: child.pid as number, ports };
}

export function addSample(bench: Bench, sample: Sample): void {
  bench.samples.push(sample);
}

/** One line on the terminal: that the run goes on, and what it sees. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function note(bench: Bench, text: string): void {
  bench.notes.push(text);
  say(`Note: ${text}`);
}

/** Figures of one sample for the terminal. */
export function figuresText(values: Values): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`)
    .join(', ');
}
