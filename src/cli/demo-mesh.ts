// `edgeproxy demo --mesh`: three POPs and their backends in network namespaces of this machine, with tunnels between them, and
// a path that is cut and healed. Takes everything away at its end, however that comes.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ProxyError } from '../base/errors.ts';
import type { ConfigFlags } from '../config.ts';
import { mayAdministerNetwork } from '../mesh/programs.ts';
import { nativeRefusal } from '../sys/native.ts';
import { printGuide } from './mesh-demo/guide.ts';
import { removeRemains, removeStale } from './mesh-demo/remains.ts';
import { DemoStage } from './mesh-demo/stage.ts';
import { DemoStory } from './mesh-demo/story.ts';
import { EXIT_DONE, EXIT_FAILED, print, printProblem, usageError } from './output.ts';

const OWN_FLAGS = ['mesh', 'stay'];
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function isAllowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

function hasProgram(name: string): boolean {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.some((folder) => isAllowed(join(folder, name), constants.X_OK));
}

/** What the demo needs and this machine does not have. */
function missing(): string[] {
  if (process.platform !== 'linux') return [`Linux (this is ${process.platform})`];
  const needs: [boolean, string][] = [
    [process.getuid?.() === 0, 'root: start it with sudo'],
    [mayAdministerNetwork(), 'CAP_NET_ADMIN (containers: --privileged)'],
    [
      isAllowed('/dev/net/tun', constants.R_OK | constants.W_OK),
      '/dev/net/tun (load the module tun, or give it to the container)',
    ],
    [hasProgram('ip'), 'the program "ip" (package iproute2)'],
    [nativeRefusal === '', `calls to the system: ${nativeRefusal}`],
  ];
  return needs.filter(([isThere]) => !isThere).map(([, what]) => what);
}

function refuse(): void {
  const lacks = missing();
  if (lacks.length === 0) return;
  const message = `The mesh demo needs, and does not have here:\n${lacks.map((what) => `  ${what}`).join('\n')}`;
  throw new ProxyError('ERR_DEMO_MISSING', message);
}

function checkFlags(flags: ConfigFlags): void {
  const others = Object.keys(flags).filter((flag) => !OWN_FLAGS.includes(flag));
  if (others.length === 0) return;
  throw usageError('demo --mesh has settings of its own: besides --stay it takes no other flag');
}

/** Says how it went; the exit code. */
function conclude(differences: readonly string[]): number {
  if (differences.length === 0) {
    print('\nAll of it happened as expected.');
    return EXIT_DONE;
  }
  printProblem(`\n${differences.length} not as expected:\n${differences.join('\n')}`);
  return EXIT_FAILED;
}

async function perform(stage: DemoStage, stays: boolean): Promise<number> {
  const story = new DemoStory(stage);
  await story.tell();
  const exitCode = conclude(story.differences);
  if (!stays) return exitCode;
  await printGuide(stage);
  const { signal } = stage;
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  return exitCode;
}

/** Calls `end` at signals, and when nobody reads the output any more: what is up is to be taken down then, too. */
function watchEnd(end: () => void): void {
  for (const signal of SIGNALS) process.on(signal, end);
  for (const stream of [process.stdout, process.stderr]) {
    stream.removeAllListeners('error').on('error', end);
  }
}

export async function demoMesh(flags: ConfigFlags): Promise<number> {
  checkFlags(flags);
  refuse();
  const ending = new AbortController();
  watchEnd(() => ending.abort());
  print('Three POPs (sa, us, eu), each with a backend host, in network namespaces of this machine');
  const stale = await removeStale();
  if (stale.length > 0) print(`Removed what ended demos have left: ${stale.join(', ')}`);
  let stage: DemoStage | null = null;
  try {
    stage = new DemoStage(ending.signal);
    return await perform(stage, flags.stay === true);
  } catch (error) {
    if (!ending.signal.aborted) throw error;
    printProblem('\nStopped before its end');
    return EXIT_FAILED;
  } finally {
    print('Removing namespaces, tunnels and files');
    if (stage === null) await removeRemains(process.pid);
    else await stage.close();
  }
}
