import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createLogger } from '../base/log.ts';
import {
  claimRecord,
  openRecordRing,
  publishRecord,
  type RecordRing,
} from '../base/record-ring.ts';
import {
  REASON_COMPLETED,
  REASON_CONNECT_FAILED,
  REJECT_NO_BACKEND,
  REJECT_RATE_LIMITED,
} from '../proxy/close-reason.ts';
import * as record from '../proxy/session-records.ts';
import { createWorkerStats, openWorkerStats, STAT_REJECTED } from '../proxy/stats.ts';
import { countryIndex } from '../route/regions.ts';
import { monotonicMs } from '../sys/clock.ts';
import { until } from '../testing/wait.ts';
import { Counters } from './counters.ts';
import { readableSessionLine, readableSummary } from './session-line.ts';
import { type SessionEvent, SessionLog } from './session-log.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
});
after(() => rmSync(directory, { recursive: true }));

interface Bench {
  readonly log: SessionLog;
  readonly rings: readonly RecordRing[];
  readonly totals: Float64Array;
  readonly warnings: string[];
  /** Closes the log and gives its lines. */
  lines(): Record<string, unknown>[];
}

let files = 0;

function open(options: { workers?: number; records?: number } = {}): Bench {
  const buffers = Array.from({ length: options.workers ?? 1 }, () =>
    record.createRecordBuffer(options.records ?? 1024),
  );
  const stats = createWorkerStats();
  const path = join(directory, `log-${files++}`);
  const fd = openSync(path, 'w');
  const warnings: string[] = [];
  const log = new SessionLog(buffers, {
    counters: new Counters(() => [stats]),
    logger: createLogger({ json: true, write: (line) => warnings.push(line) }),
    listeners: [
      { app: '*', address: '0.0.0.0:80' },
      { app: 'web', address: '[::]:443' },
    ],
    publisher: { backendName: (index, incarnation) => `b${index} "${incarnation}"` },
    output: { fd, json: true },
  });
  return {
    log,
    rings: buffers.map((buffer) => openRecordRing(buffer, record.RECORD_WORDS)),
    totals: openWorkerStats(stats).totals,
    warnings,
    lines: () => {
      log.close();
      closeSync(fd);
      const text = readFileSync(path, 'utf8');
      return text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    },
  };
}

interface Fields {
  readonly words?: Readonly<Record<number, number>>;
  readonly times?: Readonly<Record<number, number>>;
}

/** What a worker writes; fields that are left out are 0. */
function write(ring: RecordRing, kind: number, reason: number, fields: Fields = {}): boolean {
  const at = claimRecord(ring);
  if (at < 0) return false;
  ring.words.fill(0, at, at + record.RECORD_WORDS);
  ring.words[at + record.RECORD_KIND] = kind;
  ring.words[at + record.RECORD_REASON] = reason;
  ring.doubles[(at + record.RECORD_TIMES) / 2 + record.TIME_NOW] = monotonicMs();
  for (const [word, value] of Object.entries(fields.words ?? {})) {
    ring.words[at + Number(word)] = value;
  }
  for (const [time, value] of Object.entries(fields.times ?? {})) {
    ring.doubles[(at + record.RECORD_TIMES) / 2 + Number(time)] = value;
  }
  publishRecord(ring);
  return true;
}

const CLIENT = {
  [record.RECORD_CLIENT + 2]: 0xffff,
  [record.RECORD_CLIENT + 3]: 0xcb00_7107 | 0,
  [record.RECORD_CLIENT_PORT]: 50_123,
};

test('SessionLog writes what a worker recorded of a session', () => {
  const { rings, lines } = open();
  const ring = rings[0] as RecordRing;
  write(ring, record.RECORD_END, REASON_COMPLETED, {
    words: {
      ...CLIENT,
      [record.RECORD_COUNTRY]: countryIndex('BR'),
      [record.RECORD_LISTENER]: 1,
      [record.RECORD_BACKEND]: 8,
      [record.RECORD_INCARNATION]: 3,
      [record.RECORD_TIER]: 1,
      [record.RECORD_ATTEMPTS]: 2,
      [record.RECORD_SLOT]: 42,
      [record.RECORD_GENERATION]: 77,
    },
    times: {
      [record.TIME_CONNECT]: 0.41234567,
      [record.TIME_OPEN]: 1234.5,
      [record.TIME_BYTES_UP]: 2 ** 40,
      [record.TIME_BYTES_DOWN]: 17,
    },
  });
  write(ring, record.RECORD_END, REASON_CONNECT_FAILED, {
    words: { [record.RECORD_CLIENT]: 0x2001_0db8, [record.RECORD_CLIENT + 3]: 1 },
    times: { [record.TIME_CONNECT]: -1, [record.TIME_OPEN]: 3 },
  });
  const [completed, failed, ...more] = lines();
  const time = Date.parse(String(completed?.time));
  assert.ok(Math.abs(time - Date.now()) < 60_000, String(completed?.time));
  assert.deepEqual(Object.entries(completed ?? {}).slice(1), [
    ['level', 'info'],
    ['message', 'Session ended'],
    ['event', 'session_ended'],
    ['reason', 'completed'],
    ['client', '203.0.113.7'],
    ['clientPort', 50_123],
    ['country', 'BR'],
    ['app', 'web'],
    ['listener', '[::]:443'],
    ['backend', 'b7 "3"'],
    ['tier', 1],
    ['bytesUp', 2 ** 40],
    ['bytesDown', 17],
    ['connectMs', 0.412],
    ['durationMs', 1234.5],
    ['attempts', 2],
    ['session', '1.42.77'],
  ]);
  delete failed?.time;
  assert.deepEqual(failed, {
    level: 'info',
    message: 'Session ended',
    event: 'session_ended',
    reason: 'connect_failed',
    client: '2001:db8::1',
    clientPort: 0,
    app: '*',
    listener: '0.0.0.0:80',
    bytesUp: 0,
    bytesDown: 0,
    durationMs: 3,
    attempts: 0,
    session: '1.0.0',
  });
  assert.deepEqual(more, []);
});

test('SessionLog leaves out the client of a rejection where it is not known, and its listener', () => {
  const { rings, lines } = open();
  const ring = rings[0] as RecordRing;
  write(ring, record.RECORD_REJECTION, REJECT_RATE_LIMITED, { words: CLIENT });
  write(ring, record.RECORD_REJECTION, REJECT_NO_BACKEND, {
    words: { [record.RECORD_LISTENER]: record.NO_LISTENER },
  });
  const told = lines().map(({ time, ...fields }) => fields);
  const common = { level: 'info', message: 'Connection rejected', event: 'connection_rejected' };
  assert.deepEqual(told, [
    {
      ...common,
      reason: 'rate_limited',
      client: '203.0.113.7',
      clientPort: 50_123,
      app: '*',
      listener: '0.0.0.0:80',
    },
    { ...common, reason: 'no_backend' },
  ]);
});

test('SessionLog sums up rejections that have no record, and those alone', async () => {
  const { log, rings, totals, lines } = open();
  const ring = rings[0] as RecordRing;
  totals[STAT_REJECTED + REJECT_RATE_LIMITED] = 100;
  totals[STAT_REJECTED + REJECT_NO_BACKEND] = 1;
  for (let round = 0; round < 3; round++) {
    write(ring, record.RECORD_REJECTION, REJECT_RATE_LIMITED, { words: CLIENT });
  }
  write(ring, record.RECORD_REJECTION, REJECT_NO_BACKEND);
  // Four records and one sum, after it was missing twice.
  await until('the sum', () => log.lines === 5);
  totals[STAT_REJECTED + REJECT_RATE_LIMITED] = 150;
  const sums = lines().filter(({ event }) => event === 'connections_rejected');
  assert.deepEqual(
    sums.map(({ reason, count, message }) => [reason, count, message]),
    [
      ['rate_limited', 97, 'Further connections rejected'],
      ['rate_limited', 50, 'Further connections rejected'],
    ],
  );
});

test('SessionLog tells subscribers and remembers the last thousand, from all workers, in turns', async () => {
  const { log, rings, lines } = open({ workers: 3, records: 2048 });
  const heard: SessionEvent[] = [];
  const unsubscribe = log.subscribe((event) => heard.push(event));
  const each = 2000;
  for (const ring of rings) {
    for (let slot = 0; slot < each; slot++) {
      write(ring, record.RECORD_END, REASON_COMPLETED, { words: { [record.RECORD_SLOT]: slot } });
    }
  }
  await until('every record', () => heard.length === each * 3);
  for (const worker of [1, 2, 3]) {
    const own = heard.filter(({ session }) => session.startsWith(`${worker}.`));
    assert.deepEqual(
      own.map(({ session }) => session),
      Array.from({ length: each }, (_, slot) => `${worker}.${slot}.0`),
    );
  }
  assert.deepEqual(log.recent(), heard.slice(-1000));
  unsubscribe();
  write(rings[0] as RecordRing, record.RECORD_END, REASON_COMPLETED);
  assert.equal(lines().length, each * 3 + 1);
  assert.equal(heard.length, each * 3);
});

test('SessionLog counts what its rings dropped, and the program log says so', () => {
  const { log, rings, warnings, lines } = open({ records: 16 });
  const ring = rings[0] as RecordRing;
  const taken = Array.from({ length: 20 }, () =>
    write(ring, record.RECORD_END, REASON_COMPLETED),
  ).filter(Boolean);
  assert.equal(taken.length, 16);
  assert.equal(lines().length, 16);
  assert.deepEqual(log.dropped, { ring: 4, limit: 0, output: 0 });
  assert.equal(log.lines, 16);
  const [warning = '{}'] = warnings;
  const { message, lines: lost } = JSON.parse(warning) as Record<string, unknown>;
  assert.deepEqual([message, lost], ['Lines of the session log were dropped', 4]);
});

test('readableSessionLine() has the same fields in the form of the other log lines', () => {
  const event: SessionEvent = {
    name: 'session_lasting',
    timeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    reason: '',
    client: '2001:db8::1',
    clientPort: 5,
    country: 'DE',
    app: 'an app',
    listener: '[::]:443',
    backend: 'b',
    tier: 0,
    bytesUp: 1,
    bytesDown: 2,
    connectMs: 3,
    durationMs: 4,
    attempts: 1,
    session: '1.2.3',
  };
  assert.equal(
    readableSessionLine(event),
    '2026-01-02T03:04:05.678Z INFO  Session goes on event=session_lasting client=2001:db8::1 ' +
      'clientPort=5 country=DE app="an app" listener=[::]:443 backend=b tier=0 bytesUp=1 ' +
      'bytesDown=2 connectMs=3 durationMs=4 attempts=1 session=1.2.3\n',
  );
  assert.match(
    readableSummary('rate_limited', 7),
    /Z INFO {2}Further connections rejected event=connections_rejected reason=rate_limited count=7\n$/,
  );
});
