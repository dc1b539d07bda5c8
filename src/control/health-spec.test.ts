import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeAnswer } from './health-probe.ts';
import { parseExpect, type RowCheck, resolveCheck } from './health-spec.ts';

const DEFAULTS = { type: 'tcp', path: '/health' } as const;
const NONE: RowCheck = { type: null, port: null, path: null, expect: null };

test('parseExpect() takes codes, ranges and lists of both', () => {
  assert.deepEqual(parseExpect('200'), [{ first: 200, last: 200 }]);
  assert.deepEqual(parseExpect('200-299'), [{ first: 200, last: 299 }]);
  assert.deepEqual(parseExpect(' 200 , 204,300 - 399 '), [
    { first: 200, last: 200 },
    { first: 204, last: 204 },
    { first: 300, last: 399 },
  ]);
});

test('parseExpect() refuses what is no list of status codes', () => {
  const many = Array.from({ length: 33 }, () => '200').join();
  for (const text of [
    '',
    ',',
    '200,',
    '20',
    '2000',
    '600',
    '099',
    '299-200',
    '2xx',
    '-200',
    many,
  ]) {
    assert.equal(parseExpect(text), null, text);
  }
});

test('resolveCheck() takes the settings where the row says nothing', () => {
  const expect = [{ first: 200, last: 399 }];
  const check = { type: 'tcp', port: 80, path: '/health', expect, proxyProtocol: 0 };
  assert.deepEqual(resolveCheck(null, 80, DEFAULTS), check);
  assert.deepEqual(resolveCheck({ ...NONE, port: 81 }, 80, DEFAULTS), { ...check, port: 81 });
  assert.deepEqual(resolveCheck(null, 80, { type: 'http', path: '/up' }), {
    ...check,
    type: 'http',
    path: '/up',
  });
  assert.equal(resolveCheck({ ...NONE, type: 'none' }, 80, DEFAULTS), null);
});

test('resolveCheck() sends a PROXY header to where clients are served, and nowhere else', () => {
  assert.equal(resolveCheck(null, 80, DEFAULTS, 2)?.proxyProtocol, 2);
  assert.equal(resolveCheck({ ...NONE, port: 80 }, 80, DEFAULTS, 1)?.proxyProtocol, 1);
  assert.equal(resolveCheck({ ...NONE, port: 81 }, 80, DEFAULTS, 2)?.proxyProtocol, 0);
});

test('resolveCheck() takes a path or a status as HTTP, unless the row says tcp', () => {
  assert.equal(resolveCheck({ ...NONE, path: '/up' }, 80, DEFAULTS)?.type, 'http');
  const byStatus = resolveCheck({ ...NONE, expect: '204' }, 80, DEFAULTS);
  assert.equal(byStatus?.type, 'http');
  assert.deepEqual(byStatus?.expect, [{ first: 204, last: 204 }]);
  assert.equal(resolveCheck({ ...NONE, path: '/up', type: 'tcp' }, 80, DEFAULTS)?.type, 'tcp');
});

test('judgeAnswer() reads the status of a whole start, and waits for more of a part', () => {
  const expect = [{ first: 200, last: 399 }];
  const answer = 'HTTP/1.1 200 OK\r\n';
  for (let bytes = 0; bytes < 13; bytes++) {
    assert.equal(judgeAnswer(answer.slice(0, bytes), expect), null, `${bytes} bytes`);
  }
  assert.deepEqual(judgeAnswer(answer.slice(0, 13), expect), {
    result: 'success',
    reason: 'HTTP 200',
  });
  assert.equal(judgeAnswer('HTTP/1.0 399\r\n', expect)?.result, 'success');
  assert.equal(judgeAnswer('HTTP/1.1 400 Bad', expect)?.result, 'failure');
  assert.equal(judgeAnswer('HTTP/1.1 199 Odd', expect)?.reason, 'HTTP 199');
});

test('judgeAnswer() refuses what is not HTTP at the first byte that shows it', () => {
  const starts = [
    'S',
    'HTTQ',
    'HTTP/2.0 200 ',
    'HTTP/1.1 2000 ',
    'HTTP/1.1  200 ',
    '\0',
    'http/1.1',
  ];
  for (const start of starts) {
    assert.deepEqual(
      judgeAnswer(start, [{ first: 100, last: 599 }]),
      { result: 'failure', reason: 'the answer is not HTTP' },
      start,
    );
  }
});
