// Writes the report of a run: README.md with all tables, the charts, and the summary in the project's README.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Results } from '../samples.ts';
import { CHARTS, chartOf } from './charts.ts';
import { machineText, summaryText, withSummary } from './summary.ts';
import { budgetTable, resultTables } from './tables.ts';

const README = fileURLToPath(new URL('../../README.md', import.meta.url));

function reportText(results: Results, charts: readonly string[]): string {
  const { machine, notes } = results;
  const [proxy, client, backend] = machine.placement;
  const { memoryGigabytes, congestionControl, loadAverage, descriptors } = machine;
  const facts = [
    `${memoryGigabytes} GB of memory, TCP ${congestionControl}, load average at the start ${loadAverage}`,
    `Proxy on CPU ${proxy}, load client on CPU ${client}, load backend on CPU ${backend}`,
    `Limit of open files ${descriptors.toLocaleString('en-US')}`,
    ...notes,
  ];
  const about =
    'Made by `npm run bench`; how to read it: [docs/benchmarks.md](../../docs/benchmarks.md). ' +
    'Raw figures: [results.json](results.json).';
  return [
    '# Benchmark report',
    about,
    machineText(results),
    facts.map((text) => `* ${text}.`).join('\n'),
    'Figures are medians over the rounds, with quartiles in brackets.',
    '## Budgets',
    budgetTable(results.samples),
    '## Charts',
    charts.map((file) => `![${file.replace('.svg', '')}](${file})`).join('\n\n'),
    '## Figures',
    resultTables(results),
  ].join('\n\n');
}

/** `inReadme`: this is the report that README quotes. */
export function writeReport(results: Results, directory: string, inReadme: boolean): void {
  const made: string[] = [];
  for (const spec of CHARTS) {
    const svg = chartOf(results.samples, spec);
    const path = join(directory, spec.file);
    if (svg === null) rmSync(path, { force: true });
    else {
      writeFileSync(path, svg);
      made.push(spec.file);
    }
  }
  writeFileSync(join(directory, 'README.md'), reportText(results, made));
  if (!inReadme) return;
  writeFileSync(README, withSummary(readFileSync(README, 'utf8'), summaryText(results)));
}
