import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseExposition } from '../testing/exposition-parser.ts';
import { exposition, type Family, histogramLines, labelText, sampleLine } from './exposition.ts';

function family(lines: readonly string[], fields: Partial<Family> = {}): Family {
  return { type: 'gauge', name: 'edge_x', help: 'Some help', lines: () => lines, ...fields };
}

test('exposition() carries any label value and any number through a strict parser', () => {
  const values = fc.uniqueArray(fc.tuple(fc.string({ unit: 'binary' }), fc.double()), {
    selector: ([label]) => label,
  });
  fc.assert(
    fc.property(values, (samples) => {
      const lines = samples.map(([id, value]) =>
        sampleLine('edge_x', labelText('backend', id), value),
      );
      const [parsed] = parseExposition([...exposition([family(lines)])].join(''));
      assert.deepEqual(
        parsed?.samples.map(({ labels, value }) => [labels.backend, value]),
        // The format has one zero.
        samples.map(([id, value]) => [id, value === 0 ? 0 : value]),
      );
    }),
  );
});

test('exposition() escapes help and writes families without samples', () => {
  const text = [...exposition([family([], { help: 'a\\b\nc' })])].join('');
  assert.equal(text, '# HELP edge_x a\\\\b\\nc\n# TYPE edge_x gauge\n');
});

test('histogramLines() adds up its buckets and ends with +Inf, sum and count', () => {
  const lines = histogramLines('edge_x', 'backend="a"', [0.5, 10], (bucket) => bucket + 1, 7.5);
  const histogram = family([lines], { type: 'histogram' });
  const [parsed] = parseExposition([...exposition([histogram])].join(''));
  assert.deepEqual(
    parsed?.samples.map(({ name, labels, value }) => [name, labels.le, value]),
    [
      ['edge_x_bucket', '0.5', 1],
      ['edge_x_bucket', '10', 3],
      ['edge_x_bucket', '+Inf', 6],
      ['edge_x_sum', undefined, 7.5],
      ['edge_x_count', undefined, 6],
    ],
  );
});

test('exposition() comes in pieces, however many lines a family has', () => {
  const line = sampleLine('edge_x', '', 1);
  const pieces = [...exposition([family(Array.from({ length: 100_000 }, () => line))])];
  assert.ok(pieces.length > 10);
  for (const piece of pieces) assert.ok(piece.length < 65_536 && piece.endsWith('\n'));
  assert.equal(pieces.join('').split('\n').length, 100_003);
});
