// Tables, charts and README made from the samples of a small made-up run.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Results } from '../samples.ts';
import { barChart } from './chart.ts';
import { summaryText, withSummary } from './summary.ts';
import { resultTables } from './tables.ts';
import { markdownTable, short, spreadText } from './text.ts';
import { writeReport } from './write.ts';

const RESULTS: Results = {
  machine: {
    cpu: 'Some CPU',
    cpus: 2,
    memoryGigabytes: 4,
    kernel: '6.1',
    virtual: 'none',
    congestionControl: 'cubic',
    node: 'v26.0.0',
    haproxy: '2.6',
    nginx: '1.22',
    commit: 'abc',
    loadAverage: 0,
    placement: [0, 1, 1],
    descriptors: 1024,
  },
  quick: true,
  rounds: 2,
  startedAt: '2026-01-02T03:04:05.000Z',
  seconds: 61,
  notes: ['Something was left out'],
  samples: ['edgeproxy uring', 'haproxy'].flatMap((proxy) =>
    [0, 1].map((round) => {
      const cpu = (proxy === 'haproxy' ? 100 : 90) + round;
      const values = { cpu, rate: 1000, failures: 0 };
      return { workload: 'connect', case: '64 at once', proxy, round, values };
    }),
  ),
};

test('short() has three digits, spreadText() quartiles only where they differ', () => {
  assert.deepEqual([12345.6, 0.98765, 0, 0.00001].map(short), ['12,346', '0.988', '0', '1.0e-5']);
  assert.equal(spreadText({ median: 2, q1: 1, q3: 3 }), '2 (1–3)');
  assert.equal(spreadText({ median: 2, q1: 2, q3: 2 }), '2');
  assert.equal(markdownTable(['a', 'b'], [['1', '2']]), '| a | b |\n| --- | --- |\n| 1 | 2 |');
});

test('resultTables() has a column per proxy, yardsticks first, and no table without figures', () => {
  const text = resultTables(RESULTS);
  assert.match(text, /\|\s+\| haproxy \| edgeproxy uring \|/);
  assert.match(text, /\| 64 at once \| 101 \(100–101\) \| 90\.5 \(90\.3–90\.8\) \|/);
  assert.doesNotMatch(text, /failures|Latency|Idle/);
});

test('summaryText() says that a run was quick and which budget is missed', () => {
  const text = summaryText(RESULTS);
  assert.match(text, /^2 × Some CPU, Linux 6\.1.*2 rounds, 2 minutes\. \*\*A quick run/);
  assert.match(text, /CPU per connection.*\| 0\.9\d*, \*\*missed\*\* \| \*\*not measured\*\* \|/);
});

test('withSummary() replaces what is between the markers, however often', () => {
  const readme = 'before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n';
  const once = withSummary(readme, 'new');
  assert.equal(once, 'before\n<!-- bench -->\nnew\n<!-- /bench -->\nafter\n');
  assert.equal(withSummary(once, 'new'), once);
  assert.throws(() => withSummary('no markers', 'new'), /README has no/);
});

test('barChart() escapes names and draws a bar in proportion, with its quartiles', () => {
  const bars = [
    { name: 'a<b', value: { median: 10, q1: 5, q3: 20 } },
    { name: 'c', value: { median: 20, q1: 20, q3: 20 } },
  ];
  const svg = barChart('Title & more', 'µs', [{ label: 'case', bars }]);
  assert.match(svg, /Title &amp; more, µs/);
  assert.match(svg, /a&lt;b/);
  const widths = [...svg.matchAll(/<rect x="180"[^>]* width="([\d.]+)"/g)].map(
    ([, width]) => width,
  );
  assert.deepEqual(widths, ['245.0', '490.0']);
  assert.equal(svg.match(/<path /g)?.length, 1);
});

test('writeReport() leaves tables and the charts of what was measured', () => {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-report-'));
  try {
    writeReport(RESULTS, directory, false);
    assert.deepEqual(readdirSync(directory).sort(), ['README.md', 'connect.svg']);
    const text = readFileSync(join(directory, 'README.md'), 'utf8');
    assert.match(text, /Something was left out/);
    assert.match(text, /!\[connect\]\(connect\.svg\)/);
    assert.match(text, /\| 64 at once \| uring \| ÷ haproxy \| ≤ 0\.8 \| 0\.9.* \| missed \|/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
