// docs/operating/faults.md and docs/security.md name tests and metrics in tables: each must exist, so that a table cannot
// outlive what it promises. The last cell of such a row is `file`: part of the test's name.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const TABLES = ['docs/operating/faults.md', 'docs/security.md'];

interface Row {
  readonly fault: string;
  readonly metrics: readonly string[];
  readonly file: string;
  readonly name: string;
}

function readRows(): Row[] {
  return TABLES.flatMap((path) => readFileSync(path, 'utf8').split('\n'))
    .filter((line) => line.startsWith('| ') && !/^\| (fault|attack|who|\*\*)/.test(line))
    .map((line) => {
      const cells = line.split('|').map((cell) => cell.trim());
      const fault = cells[1] ?? '';
      const reference = cells.at(-2) ?? '';
      const metrics = cells.slice(2, -2).join(' ');
      const [, file = '', name = ''] = /^`(.+?)`: (.+)$/.exec(reference) ?? [];
      return {
        fault,
        metrics: [...metrics.matchAll(/edge_\w+/g)].map(([text]) => text),
        file,
        name,
      };
    });
}

test('faults: every row of the table names a test and metrics that exist', () => {
  const rows = readRows();
  assert.ok(rows.length > 30, `${rows.length} rows`);
  // Held to the live page by operating.test.ts.
  const metrics = readFileSync('docs/operating/metrics.md', 'utf8');
  for (const row of rows) {
    assert.ok(existsSync(row.file), `"${row.fault}" names ${row.file}, which does not exist`);
    const names = readFileSync(row.file, 'utf8').match(/^\s*(?:test|it)\(\s*['"`].*$/gm) ?? [];
    const found = names.some((line) => line.replaceAll(/\$\{.*?\}/g, '').includes(row.name));
    assert.ok(found, `"${row.fault}" names the test "${row.name}", which ${row.file} has not`);
    for (const metric of row.metrics) {
      assert.ok(metrics.includes(metric), `"${row.fault}" names ${metric}, which does not exist`);
    }
  }
});
