// `npm run sim -- --seed N --sessions M --runs R`: simulated runs from consecutive seeds. Prints each failure with its
// seed, and ends with 1 if there was one. One run of one seed prints the hash of its history, to compare replays by.

import { parseArgs } from 'node:util';
import { CLOSE_REASONS, REJECT_REASONS } from '../src/proxy/close-reason.ts';
import {
  STAT_BUFFER_WAITS,
  STAT_END,
  STAT_PUMPS,
  STAT_REJECTED,
  STAT_RETRIES,
} from '../src/proxy/stats.ts';
import { simulate } from '../src/testing/sim-run.ts';

const FAILURES_MAX = 5;

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    sessions: { type: 'string', default: '1000' },
    runs: { type: 'string', default: '1' },
    failures: { type: 'string', default: String(FAILURES_MAX) },
  },
});

function whole(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  process.stderr.write(`Cannot use --${name} "${text}": must be a whole number, 0 or more\n`);
  process.exit(2);
}

/** What the runs met, so that nobody mistakes an empty run for a good one. */
function addTotals(totals: Float64Array): void {
  const add = (name: string, stat: number): void => {
    sums.set(name, (sums.get(name) ?? 0) + (totals[stat] as number));
  };
  for (const [reason, { name }] of CLOSE_REASONS.entries()) add(name, STAT_END + reason);
  for (const [reason, { name }] of REJECT_REASONS.entries()) {
    add(`rejected ${name}`, STAT_REJECTED + reason);
  }
  add('retries', STAT_RETRIES);
  add('pumps', STAT_PUMPS);
  add('buffer waits', STAT_BUFFER_WAITS);
}

const first = whole('seed', values.seed ?? String(Date.now() % 2 ** 31));
const sessions = whole('sessions', values.sessions);
const runs = whole('runs', values.runs);
const failuresMax = whole('failures', values.failures);
process.stdout.write(`Seeds ${first} to ${first + runs - 1}, ${sessions} sessions each\n`);

const started = process.hrtime.bigint();
let accepted = 0;
const sums = new Map<string, number>();
let steps = 0;
let failures = 0;
let done = 0;
for (let run = 0; run < runs && failures < failuresMax; run++) {
  const result = simulate(first + run, sessions);
  accepted += result.accepted;
  steps += result.steps;
  addTotals(result.totals);
  done++;
  if (runs === 1) process.stdout.write(`History ${result.hash}, ${result.steps} steps\n`);
  if (result.failure === '') continue;
  failures++;
  process.stdout.write(`\n${result.failure}\n`);
}
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
const perSession = ((seconds * 1e6) / Math.max(1, accepted)).toFixed(0);
process.stdout.write(
  `${done} runs, ${accepted} sessions accepted, ${steps} steps in ${seconds.toFixed(1)} s ` +
    `(${perSession} µs per session), ${failures} failed\n`,
);
process.stdout.write(`${[...sums].map(([name, count]) => `${name} ${count}`).join(', ')}\n`);
process.exit(failures === 0 ? 0 : 1);
