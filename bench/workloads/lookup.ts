// Selection and country look-up alone, in a process of its own without any connection. Figures: `ns` per call, and for the
// country data `bytes` of the table that all workers share.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { addSample, figuresText, say, type Workload } from '../bench.ts';
import type { LookupFigure } from './lookup-process.ts';

const PROGRAM = fileURLToPath(new URL('lookup-process.ts', import.meta.url));
const LIMIT_MS = 120_000;

export const LOOKUP: Workload = {
  name: 'lookup',
  async measure(bench) {
    const { plan, machine } = bench;
    const calls = plan.quick ? '300000' : '3000000';
    const args = ['-c', String(machine.placement[0]), process.execPath, PROGRAM, calls];
    for (let round = 0; round < plan.rounds; round++) {
      const text = execFileSync('taskset', args, { encoding: 'utf8', timeout: LIMIT_MS });
      for (const { name, values } of JSON.parse(text) as LookupFigure[]) {
        addSample(bench, { workload: 'lookup', case: name, proxy: 'edgeproxy', round, values });
        say(`  ${round} lookup, ${name}: ${figuresText(values)}`);
      }
    }
  },
};
