// `edgeproxy doctor`: says what this machine will do with these settings at scale, and what to run; with --fix prints the
// files that mend it, and after asking writes and applies them.

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { errorMessage } from '../base/errors.ts';
import { type ConfigFlags, loadConfig } from '../config.ts';
import { examine } from '../control/doctor/doctor.ts';
import type { Finding, FindingStatus, Remedy } from '../control/doctor/finding.ts';
import { type FixFile, fixFiles } from '../control/doctor/fix.ts';
import { thisMachine } from '../control/doctor/machine.ts';
import { EXIT_DONE, EXIT_FAILED, print, printJson, printProblem } from './output.ts';

const MARKS: Readonly<Record<FindingStatus, string>> = {
  ok: 'ok  ',
  warn: 'WARN',
  fail: 'FAIL',
  unknown: '?   ',
};

function remedyText(remedy: Remedy): string {
  if (remedy.kind === 'sysctl') return `sysctl -w ${remedy.key}="${remedy.value}"`;
  if (remedy.kind === 'descriptors')
    return `LimitNOFILE=${remedy.count} (ulimit -n ${remedy.count})`;
  return remedy.text;
}

function printFindings(findings: readonly Finding[]): void {
  for (const { status, text, remedy } of findings) {
    print(`${MARKS[status]}  ${text}`);
    if (status !== 'ok' && remedy !== undefined) print(`      -> ${remedyText(remedy)}`);
  }
  const count = (status: FindingStatus): number =>
    findings.filter((finding) => finding.status === status).length;
  print(`\n${count('ok')} ok, ${count('warn')} warnings, ${count('fail')} failures`);
}

/** Writes the files and makes them effective; false when something went wrong, which is said. */
function applyFiles(files: readonly FixFile[]): boolean {
  let good = true;
  for (const { path, content, apply } of files) {
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
      print(`Wrote ${path}`);
    } catch (error) {
      printProblem(`Cannot write ${path}: ${errorMessage(error)}`);
      good = false;
      continue;
    }
    for (const [program = '', ...args] of apply) {
      const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
      if (status === 0) continue;
      const why = error ? errorMessage(error) : stderr.trim();
      printProblem(`Cannot run ${[program, ...args].join(' ')}: ${why}`);
      good = false;
    }
  }
  return good;
}

async function isAgreed(flags: ConfigFlags): Promise<boolean> {
  if (flags.yes === true) return true;
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    print('Nothing is written without a terminal to ask at, or --yes');
    return false;
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Write and apply them? [y/N] ');
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

async function fix(findings: readonly Finding[], flags: ConfigFlags): Promise<boolean> {
  const files = fixFiles(findings);
  if (files.length === 0) {
    print('\nNothing to mend by a file');
    return true;
  }
  for (const { path, content } of files) print(`\n# ${path}\n${content}`);
  return (await isAgreed(flags)) ? applyFiles(files) : true;
}

/** 0: nothing would break under the configured limits; 1: something would, or a fix failed. */
export async function doctor(flags: ConfigFlags): Promise<number> {
  const config = loadConfig(flags, process.env);
  const findings = await examine(config, thisMachine());
  if (flags.json) printJson(findings);
  else printFindings(findings);
  const isMended = flags.fix !== true || flags.json === true || (await fix(findings, flags));
  const breaks = findings.some(({ status }) => status === 'fail');
  return breaks || !isMended ? EXIT_FAILED : EXIT_DONE;
}
