import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseExposition } from './exposition-parser.ts';

const HEAD = '# HELP edge_x Help\n# TYPE edge_x gauge\n';
const COUNTER = '# HELP edge_x_total Help\n# TYPE edge_x_total counter\n';
const HISTOGRAM = '# HELP edge_x Help\n# TYPE edge_x histogram\n';

test('parseExposition() reads samples with labels, escapes, and every kind of number', () => {
  const text = `${HEAD}edge_x{a="1",b="q\\"b\\\\n\\n"} -1.5e+3\nedge_x{a="2"} +Inf\nedge_x NaN\n`;
  assert.deepEqual(parseExposition(text), [
    {
      name: 'edge_x',
      type: 'gauge',
      help: 'Help',
      samples: [
        { name: 'edge_x', labels: { a: '1', b: 'q"b\\n\n' }, value: -1500 },
        { name: 'edge_x', labels: { a: '2' }, value: Number.POSITIVE_INFINITY },
        { name: 'edge_x', labels: {}, value: Number.NaN },
      ],
    },
  ]);
});

const WRONG: readonly (readonly [text: string, said: RegExp])[] = [
  ['edge_x 1\n', /without HELP and TYPE/],
  ['# TYPE edge_x gauge\nedge_x 1\n', /TYPE without its HELP/],
  ['# HELP edge_x Help\nedge_x 1\n', /without HELP and TYPE/],
  ['# HELP edge_x Help\n# HELP edge_y Help\n', /HELP of edge_x without TYPE/],
  ['# HELP edge_x \n# TYPE edge_x gauge\n', /an empty HELP/],
  ['# HELP edge_x a\\b\n# TYPE edge_x gauge\n', /a wrong escape/],
  ['# HELP edge_x Help\n# TYPE edge_x number\n', /an unknown type/],
  ['# some remark\n', /no HELP or TYPE/],
  [`${HEAD}edge_x 1\n${HEAD}`, /a family twice/],
  [`${HEAD}edge_y 1\n`, /among those of edge_x/],
  [`${HEAD}edge_x_y 1\n`, /no sample of the gauge edge_x/],
  [`${HEAD}edge_x 1\nedge_x 2\n`, /a series twice/],
  [`${HEAD}edge_x{a="1",b="2"} 1\nedge_x{b="2",a="1"} 2\n`, /a series twice/],
  [`${HEAD}edge_x{a="1",a="2"} 1\n`, /label a twice/],
  [`${HEAD}edge_x{__a="1"} 1\n`, /reserved label/],
  [`${HEAD}edge_x{a-b="1"} 1\n`, /no "="" at column/],
  [`${HEAD}edge_x{a="1} 1\n`, /no end of a label value/],
  [`${HEAD}edge_x{a="\\t"} 1\n`, /no allowed escape/],
  [`${HEAD}edge_x{a=1} 1\n`, /no "="" at column/],
  [`${HEAD}edge_x{} 1\n`, /no label name/],
  [`${HEAD}edge_x  1\n`, /is not a number/],
  [`${HEAD}edge_x one\n`, /is not a number/],
  [`${HEAD}edge_x 1 \n`, /is not a number/],
  [`${HEAD}edge_x\n`, /no " " at column/],
  [`${HEAD}edge_x 1`, /the last line has no end/],
  [`${COUNTER}edge_x_total -1\n`, /is -1/],
  [`${COUNTER}edge_x_total NaN\n`, /is NaN/],
  ['# HELP edge_x Help\n# TYPE edge_x counter\nedge_x 1\n', /is not named _total/],
  ['# HELP edge_x_total Help\n# TYPE edge_x_total gauge\n', /is a gauge and named _total/],
  [`${HISTOGRAM}edge_x 1\n`, /no sample of the histogram/],
  [`${HISTOGRAM}edge_x_bucket 1\n`, /a bucket without le/],
  [`${HISTOGRAM}edge_x_bucket{le="+Inf"} 1\nedge_x_sum 1\n`, /no _sum or no _count/],
  [`${HISTOGRAM}edge_x_bucket{le="1"} 1\nedge_x_sum 1\nedge_x_count 1\n`, /is not \+Inf/],
  [`${HISTOGRAM}edge_x_bucket{le="+Inf"} 1\nedge_x_sum 1\nedge_x_count 2\n`, /is not _count/],
  [
    `${HISTOGRAM}edge_x_bucket{le="1"} 2\nedge_x_bucket{le="+Inf"} 1\nedge_x_sum 1\nedge_x_count 1\n`,
    /holds less than the one before/,
  ],
  [
    `${HISTOGRAM}edge_x_bucket{le="2"} 1\nedge_x_bucket{le="1"} 1\nedge_x_bucket{le="+Inf"} 1\nedge_x_sum 1\nedge_x_count 1\n`,
    /not in order/,
  ],
];

for (const [text, said] of WRONG) {
  test(`parseExposition() refuses ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseExposition(text), said);
  });
}
