// `node bench/start.ts [RUNS] [PROGRAM...]`: milliseconds from exec until `edgeproxy run` of each program (of this checkout
// unless others are named) says that it listens, and the CPU time of all its threads until then; beside Node.js that only
// listens. In turn, so that a machine that gets slower does so for all; medians, with the lowest.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeRouting } from '../src/testing/routing-file.ts';

const [runs = '15', ...named] = process.argv.slice(2);
const programs =
  named.length > 0 ? named : [fileURLToPath(new URL('../bin/edgeproxy', import.meta.url))];
const BARE =
  "require('node:net').createServer().listen(0, '127.0.0.1', () => console.error('Listening'))";
const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-start-'));
const env = {
  PATH: process.env.PATH,
  EDGEPROXY_DB_PATH: join(directory, 'routing.db'),
  EDGEPROXY_LISTEN_ADDR: '127.0.0.1:0',
  EDGEPROXY_METRICS_LISTEN_ADDR: '127.0.0.1:0',
  EDGEPROXY_HEALTH_CHECK_ENABLED: 'false',
};

/** Of all threads, in ms (schedstat of proc(5)). */
function cpuMs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const used = readdirSync(tasks).map((task) =>
    Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]),
  );
  return used.reduce((sum, ns) => sum + ns, 0) / 1e6;
}

async function start(command: string, words: readonly string[]): Promise<[number, number]> {
  const before = performance.now();
  const child = spawn(command, words, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  while (!text.includes('Listening')) {
    const [chunk] = await once(child.stderr, 'data');
    text += chunk;
  }
  const figures: [number, number] = [performance.now() - before, cpuMs(child.pid as number)];
  child.kill('SIGTERM');
  await once(child, 'exit');
  return figures;
}

function summary(values: number[]): string {
  const sorted = values.sort((a, b) => a - b);
  const [low, middle] = [sorted[0] as number, sorted[sorted.length >> 1] as number];
  return `${middle.toFixed(1)} ms (lowest ${low.toFixed(1)})`;
}

writeRouting(env.EDGEPROXY_DB_PATH, [{ id: 'a', port: 9 }]);
const subjects: [name: string, command: string, words: string[]][] = [
  ['Node.js alone', process.execPath, ['-e', BARE]],
  ...programs.map((program): [string, string, string[]] => [program, program, ['run']]),
];
const seen = subjects.map(() => ({ wall: [] as number[], cpu: [] as number[] }));
for (let run = -1; run < Number(runs); run++) {
  for (const [index, [, command, words]] of subjects.entries()) {
    const [wall, cpu] = await start(command, words);
    if (run < 0) continue; // warms the page cache
    seen[index]?.wall.push(wall);
    seen[index]?.cpu.push(cpu);
  }
}
for (const [index, [name]] of subjects.entries()) {
  const { wall, cpu } = seen[index] as (typeof seen)[number];
  process.stdout.write(`${name}: ${summary(wall)}, CPU ${summary(cpu)}\n`);
}
rmSync(directory, { recursive: true });
