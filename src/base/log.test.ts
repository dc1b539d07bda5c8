import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from './log.ts';

function capture(options: { level?: 'debug' | 'info' | 'warn' | 'error'; json: boolean }) {
  const lines: string[] = [];
  const logger = createLogger({ ...options, write: (line) => lines.push(line) });
  return { logger, lines };
}

test('createLogger() writes one JSON object per record, with ISO 8601 time', () => {
  const { logger, lines } = capture({ json: true });
  logger.warn('Two\nlines', { count: 3, nothing: undefined, text: 'a\nb' });
  assert.equal(lines.length, 1);
  assert.ok(lines[0]?.endsWith('}\n'));
  assert.equal(lines[0]?.indexOf('\n'), (lines[0]?.length ?? 0) - 1);
  const record = JSON.parse(lines[0] as string) as Record<string, unknown>;
  assert.match(String(record.time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  delete record.time;
  assert.deepEqual(record, { level: 'warn', message: 'Two\nlines', count: 3, text: 'a\nb' });
});

test('createLogger() drops records below its level', () => {
  for (const [level, kept] of [
    ['debug', ['debug', 'info', 'warn', 'error']],
    ['info', ['info', 'warn', 'error']],
    ['warn', ['warn', 'error']],
    ['error', ['error']],
  ] as const) {
    const { logger, lines } = capture({ level, json: true });
    for (const name of ['debug', 'info', 'warn', 'error'] as const) logger[name]('x');
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as { level: string }).level),
      kept,
    );
  }
});

test('createLogger() carries BigInt: small ones as numbers, large ones exactly as text', () => {
  const { logger, lines } = capture({ json: true });
  logger.info('x', { small: 7n, large: 2n ** 64n, nested: [1n] });
  const record = JSON.parse(lines[0] as string) as Record<string, unknown>;
  assert.equal(record.small, 7);
  assert.equal(record.large, '18446744073709551616');
  assert.deepEqual(record.nested, [1]);
});

test('createLogger() never throws: cycles, throwing getters, a failing writer', () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  const hostile = {
    get boom(): never {
      throw new Error('boom');
    },
  };
  for (const json of [true, false]) {
    const { logger, lines } = capture({ json });
    logger.info('x', { cycle, hostile, after: 1 });
    assert.equal(lines.length, 1);
    assert.match(lines[0] as string, /after/);
    logger.info('y', hostile as Record<string, unknown>);
    const broken = createLogger({
      json,
      write: () => {
        throw new Error('disk full');
      },
    });
    broken.error('z');
  }
});

test('createLogger() keeps its own names apart from fields of the same name', () => {
  const { logger, lines } = capture({ json: true });
  logger.info('real', { message: 'fake', level: 'fake', time: 'fake' });
  const record = JSON.parse(lines[0] as string) as Record<string, unknown>;
  assert.equal(record.message, 'real');
  assert.equal(record.level, 'info');
  assert.equal(record.message_, 'fake');
  assert.equal(record.time_, 'fake');
});

test('createLogger() reports errors with code and cause', () => {
  const { logger, lines } = capture({ json: true });
  const cause = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  logger.error('x', { error: new Error('outer', { cause }) });
  const { error } = JSON.parse(lines[0] as string) as {
    error: { message: string; cause: { message: string; code: string } };
  };
  assert.equal(error.message, 'outer');
  assert.equal(error.cause.code, 'ENOSPC');
});

test('createLogger() readable form is one line and escapes control characters', () => {
  const { logger, lines } = capture({ json: false });
  logger.info('Listening\u001b[2J', { address: '0.0.0.0:8080', note: 'two words', bad: 'a\nb=c' });
  assert.equal(lines.length, 1);
  const line = lines[0] as string;
  assert.match(line, /^\S+Z INFO {2}Listening\\u001b\[2J address=0\.0\.0\.0:8080 note="two words"/);
  assert.equal(line.indexOf('\n'), line.length - 1);
  assert.ok(!line.includes('\u001b'));
});
