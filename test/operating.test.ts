// What operators are given beside the program is held to it: each metric in the documents, the dashboard and the alerts
// exists in a scrape, each metric of a scrape is documented, and each reason has a line that says what to do.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { CLOSE_REASONS, REASON_NONE, REJECT_REASONS } from '../src/proxy/close-reason.ts';
import { exchange } from '../src/testing/clients.ts';
import type { ParsedFamily } from '../src/testing/exposition-parser.ts';
import type { Metrics } from '../src/testing/metrics-text.ts';
import { startProxy } from '../src/testing/proxy-process.ts';
import { echo, startBackend } from '../src/testing/test-backends.ts';

let metrics: Metrics;

before(async () => {
  await using backend = await startBackend(echo);
  await using proxy = await startProxy({
    backends: [
      { id: 'a', ...backend.row },
      { id: 'b', ...backend.row },
    ],
    settings: { HEALTH_CHECK_ENABLED: 'true', METRICS_BACKENDS_MAX: 1 },
  });
  await exchange(proxy.address, 'hello');
  metrics = await proxy.untilMetric('edge_session_end_total', 1, { reason: 'completed' });
});

function file(path: string): string {
  return readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
}

/** The cells of every row of every table in a document that has so many columns. */
function tableRows(text: string, columns: number): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    )
    .filter((cells) => cells.length === columns);
}

function unquote(cell: string): string {
  return cell.replaceAll('`', '');
}

test('operating: docs/operating/metrics.md has each metric, with its type and its labels', () => {
  const documented = new Map(
    tableRows(file('docs/operating/metrics.md'), 4).map(([name, type, labels, meaning]) => [
      unquote(name as string),
      {
        type,
        labels: unquote(labels as string)
          .split(/, */)
          .filter(Boolean)
          .sort(),
        meaning,
      },
    ]),
  );
  const own = metrics.families.filter(({ name }) => name.startsWith('edge_'));
  assert.deepEqual(
    own.map(({ name }) => name).sort(),
    [...documented.keys()].sort(),
    'the names in the document',
  );
  for (const { name, type, samples } of own) {
    const row = documented.get(name);
    assert.equal(row?.type, type, name);
    assert.ok((row?.meaning ?? '').length > 5 || row?.meaning === '1', name);
    if (samples.length === 0) continue;
    const labels = new Set(samples.flatMap((sample) => Object.keys(sample.labels)));
    for (const label of ['le', 'summed']) labels.delete(label);
    assert.deepEqual(row?.labels, [...labels].sort(), `labels of ${name}`);
  }
});

/** `up` is Prometheus's own: whether the scrape succeeded. */
const FROM_ELSEWHERE = ['up'];

/** The metrics that a query asks for: words that are followed by a selector or a range, or by nothing that calls them. */
function metricsOf(query: string): string[] {
  const bare = query.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/\{[^}]*\}|\[[^\]]*\]/g, ' ');
  const grouped = bare.replace(/\b(?:by|without|on|ignoring|group_left)\s*\([^)]*\)/g, ' ');
  const words = grouped.match(/[a-zA-Z_:][\w:]*(?!\w*\s*\()/g) ?? [];
  return words.filter((word) => !['bool', 'and', 'or', 'unless', 'e'].includes(word));
}

function familyOf(name: string): ParsedFamily | undefined {
  const base = name.replace(/_(bucket|sum|count)$/, '');
  return metrics.families.find(
    (family) => family.name === name || (family.name === base && family.type === 'histogram'),
  );
}

/** Each metric, each label in a selector, and each reason asked for must exist. */
function checkQuery(query: string): void {
  const names = metricsOf(query);
  assert.ok(names.length > 0, `no metric in: ${query}`);
  for (const name of names) {
    if (FROM_ELSEWHERE.includes(name)) continue;
    assert.ok(familyOf(name), `${name} does not exist: ${query}`);
  }
  for (const [, name, selector] of query.matchAll(/([a-zA-Z_:][\w:]*)\{([^}]*)\}/g)) {
    const samples = familyOf(name as string)?.samples ?? [];
    for (const [, label, value] of (selector as string).matchAll(/(\w+)[=!]~?"([^"]*)"/g)) {
      if (['job', 'instance'].includes(label as string) || samples.length === 0) continue;
      const found = samples.filter((sample) => sample.labels[label as string] !== undefined);
      assert.ok(found.length > 0, `${name} has no label ${label}: ${query}`);
      if (label !== 'reason') continue;
      const values = new Set(found.map(({ labels }) => labels.reason));
      for (const reason of (value as string).split('|')) {
        assert.ok(values.has(reason), `${reason} is no reason of ${name}`);
      }
    }
  }
}

test('operating: a query for what does not exist is noticed', () => {
  assert.deepEqual(metricsOf('sum by (a, b) (rate(x_total{c="d"}[5m])) / y > bool 0.5 or z'), [
    'x_total',
    'y',
    'z',
  ]);
  for (const query of [
    'edge_nothing',
    'rate(edge_nothing_total[5m])',
    'edge_connections_total_bucket',
    'edge_rejected_total{reason="no_reason"}',
    'edge_rejected_total{raison="no_backend"}',
    '1 > 0',
  ]) {
    assert.throws(() => checkQuery(query), query);
  }
});

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets?: readonly { readonly expr: string }[];
}

interface Dashboard {
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: unknown }[];
  };
}

test('operating: each metric of the dashboard exists, and no panel lies on another', () => {
  const { panels, templating } = JSON.parse(file('packaging/grafana-dashboard.json')) as Dashboard;
  const queries = panels.flatMap(({ targets }) => targets ?? []).map(({ expr }) => expr);
  assert.ok(queries.length > 50);
  const variables = templating.list.map(({ name }) => name);
  for (const query of queries) {
    for (const [, name] of query.matchAll(/\$(\w+)/g)) {
      assert.ok(name === '__rate_interval' || variables.includes(name as string), query);
    }
    checkQuery(query.replaceAll('$', ''));
  }
  const taken = new Map<string, string>();
  for (const { title, gridPos } of panels) {
    assert.ok(gridPos.x + gridPos.w <= 24, title);
    for (let at = 0; at < gridPos.w * gridPos.h; at++) {
      const cell = `${gridPos.x + (at % gridPos.w)} ${gridPos.y + Math.floor(at / gridPos.w)}`;
      assert.equal(taken.get(cell), undefined, title);
      taken.set(cell, title);
    }
  }
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
});

test('operating: each metric of the alert rules exists, and each alert says what to do', () => {
  const alerts = file('packaging/alerts.yml').split('      - alert: ').slice(1);
  assert.ok(alerts.length > 15);
  const names = new Set<string>();
  for (const alert of alerts) {
    const name = alert.split('\n', 1)[0] as string;
    assert.match(name, /^Edgeproxy[A-Z]\w+$/);
    assert.ok(!names.has(name), name);
    names.add(name);
    const expr = /\n {8}expr: (?:>-\n)?([\s\S]*?)\n {8}(?:for|labels):/.exec(alert)?.[1] ?? '';
    checkQuery(expr.replace(/\s+/g, ' '));
    assert.match(alert, /\n {10}severity: (critical|warning|info)\n/, name);
    assert.match(alert, /\n {10}summary: ".{10,}"\n/, name);
    assert.match(alert, /\n {10}description: ".{10,}"\n/, name);
  }
});

test('operating: docs/operating/close-reasons.md says of each reason what it means and what to do', () => {
  const [ends = '', rejections = ''] = file('docs/operating/close-reasons.md').split(
    '## Rejections',
  );
  for (const [text, reasons] of [
    [ends, CLOSE_REASONS.filter((_, reason) => reason !== REASON_NONE)],
    [rejections, REJECT_REASONS],
  ] as const) {
    const rows = tableRows(text, 3).filter(([name]) => name !== '`reason`');
    assert.deepEqual(
      rows.map(([name]) => unquote(name as string)).sort(),
      reasons.map(({ name }) => name).sort(),
    );
    for (const [name, meaning = '', remedy = ''] of rows) {
      assert.ok(meaning.length > 10 && remedy.length > 5, name);
    }
  }
});

test('operating: docs/operating/logs.md has each field and event of the session log', () => {
  const source = file('src/control/session-line.ts');
  const fields = new Set([...source.matchAll(/"(\w+)":/g)].map(([, name]) => name as string));
  assert.ok(fields.size > 15, [...fields].join());
  const text = file('docs/operating/logs.md');
  for (const field of fields)
    assert.ok(text.includes(`"${field}"`) || text.includes(`\`${field}\``));
  const events = source.match(/\b(?:session|connections?)_(?:ended|lasting|rejected)\b/g) ?? [];
  for (const event of new Set(events)) assert.ok(text.includes(`\`${event}\``), event);
});
