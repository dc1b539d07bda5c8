// From exec to the first connection accepted: a connection is tried every millisecond. Not pinned to one core, because a
// service starts on all of them. Figures: `listening` and `answered` (the first exchange done), in ms.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { addSample, type Bench, figuresText, PROXIES, say, type Workload } from '../bench.ts';
import { inTurn } from '../measure.ts';
import type { ProxyKind } from '../proxies/prepare.ts';

const LIMIT_MS = 10_000;
const STARTS_PER_ROUND = 3;
/** Counted before this process confines itself to the load's core. */
const lastCpu = availableParallelism() - 1;

/** When a connection was accepted and answered, or null where nobody listens yet. */
async function tryExchange(port: number): Promise<{ listening: number; answered: number } | null> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  try {
    await once(socket, 'connect');
    const listening = performance.now();
    socket.write('hello');
    await once(socket, 'data');
    return { listening, answered: performance.now() };
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

async function measureStart(bench: Bench, kind: ProxyKind): Promise<Record<string, number>> {
  const { run, machine } = bench;
  const prepared = await kind.prepare(run, { descriptors: machine.descriptors });
  if (prepared === null) throw new Error(`${kind.name} has no process to start`);
  const everywhere = ['--pdeathsig', 'KILL', '--', 'taskset', '-c', `0-${lastCpu}`];
  const args = [...everywhere, prepared.command, ...prepared.args];
  const startedAt = performance.now();
  const child = spawn('setpriv', args, { stdio: 'ignore' });
  try {
    while (performance.now() - startedAt < LIMIT_MS && child.exitCode === null) {
      const done = await tryExchange(prepared.ports.echo);
      if (done !== null) {
        return { listening: done.listening - startedAt, answered: done.answered - startedAt };
      }
      await sleep(1);
    }
    throw new Error(`${kind.name} does not answer after ${LIMIT_MS} ms`);
  } finally {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
}

export const STARTUP: Workload = {
  name: 'startup',
  async measure(bench) {
    const starts = bench.plan.rounds * STARTS_PER_ROUND;
    for (let round = 0; round < starts; round++) {
      for (const kind of inTurn(PROXIES, round)) {
        const values = await measureStart(bench, kind);
        addSample(bench, { workload: 'startup', case: 'start', proxy: kind.name, round, values });
        say(`  ${round} startup, ${kind.name}: ${figuresText(values)}`);
      }
    }
  },
};
