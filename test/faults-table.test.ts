// docs/operating/faults.md names tests and metrics: each must exist, so that the table cannot outlive what it promises.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const TABLE = 'docs/operating/faults.md';

interface Row {
  readonly fault: string;
  readonly metrics: readonly string[];
  readonly file: string;
  readonly name: string;
}

function readRows(): Row[] {
  return readFileSync(TABLE, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| fault'))
    .map((line) => {
      const cells = line.split('|').map((cell) => cell.trim());
      const [, fault = '', , metrics = '', reference = ''] = cells;
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
  const metrics = readFileSync('src/control/metrics.ts', 'utf8');
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
