import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createLogger } from '../base/log.ts';
import { type ControlEvent, EVENT_TYPES, EventBus } from './events.ts';

/** Fills the ring; types take turns because each has a limit per second. */
function publishMany(bus: EventBus, count: number): void {
  const types = Object.keys(EVENT_TYPES) as (keyof typeof EVENT_TYPES)[];
  for (let at = 0; at < count; at++) {
    bus.publish(types[at % types.length] as keyof typeof EVENT_TYPES, 'info', String(at), {});
  }
}

test('tap() publishes records that name an event, whatever is logged, and passes all on', () => {
  const bus = new EventBus();
  const lines: string[] = [];
  const inner = createLogger({ level: 'error', json: true, write: (line) => lines.push(line) });
  const logger = bus.tap(inner);
  logger.info('Quiet', { event: 'routing_reloaded', version: 3 });
  logger.info('No event at all', { version: 4 });
  logger.error('Loud', { event: 'worker_died', stack: 'at f', worker: 2 });
  logger.error('Of another program', { event: 'toString' });
  const { events, missed } = bus.since(0);
  assert.equal(missed, 0);
  assert.deepEqual(
    events.map(({ sequence, type, level, message, fields }) => ({
      ...{ sequence, type, level, message, fields },
    })),
    [
      {
        sequence: 1,
        type: 'routing_reloaded',
        level: 'info',
        message: 'Quiet',
        fields: { version: 3 },
      },
      { sequence: 2, type: 'worker_died', level: 'error', message: 'Loud', fields: { worker: 2 } },
    ],
  );
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).event),
    ['worker_died', 'toString'],
  );
});

test('since() gives what came after a sequence number and says how many are gone', () => {
  let nowMs = 0;
  const bus = new EventBus(() => nowMs);
  assert.deepEqual(bus.since(0), { events: [], missed: 0 });
  publishMany(bus, 800);
  assert.equal(bus.since(798).events.length, 2);
  assert.deepEqual(bus.since(800), { events: [], missed: 0 });
  assert.deepEqual(bus.since(9999), { events: [], missed: 0 }, 'from the future');
  nowMs = 1000;
  publishMany(bus, 800);
  const { events, missed } = bus.since(0);
  assert.equal(events.length, 1000);
  assert.equal(missed, 600);
  assert.deepEqual([events[0]?.sequence, events.at(-1)?.sequence], [601, 1600]);
});

test('publish() leaves out what is too much of one type in a second, and says so afterwards', () => {
  let nowMs = 0;
  const bus = new EventBus(() => nowMs);
  const seen: ControlEvent[] = [];
  const unsubscribe = bus.subscribe((event) => seen.push(event));
  for (let at = 0; at < 1000; at++) bus.publish('backend_unhealthy', 'warn', 'down', { at });
  bus.publish('worker_died', 'error', 'still heard', {});
  assert.equal(seen.length, 51);
  assert.equal(seen.at(-1)?.type, 'worker_died');
  nowMs = 1000;
  bus.publish('backend_unhealthy', 'warn', 'down', {});
  bus.publish('backend_unhealthy', 'warn', 'down', {});
  assert.deepEqual(
    seen.slice(-2).map(({ fields }) => fields),
    [{ suppressed: 950 }, {}],
  );
  unsubscribe();
  const count = seen.length;
  bus.publish('worker_replaced', 'info', 'unheard', {});
  assert.equal(seen.length, count);
});

test('every event type is published by some file of control or mesh, and every published one is a type', () => {
  const named = new Set<string>();
  const folders = ['.', '../mesh'].map((folder) => new URL(folder, import.meta.url).pathname);
  for (const path of globSync(folders.map((folder) => `${folder}/**/*.ts`))) {
    if (path.endsWith('.test.ts')) continue;
    const text = readFileSync(path, 'utf8');
    for (const [, names] of text.matchAll(/\bevent(?:: | = )(?:\w+ \? )?('[^,;})\n]*')/g)) {
      for (const [, name] of (names as string).matchAll(/'(\w+)'/g)) named.add(name as string);
    }
    if (/publish\('config_problem'/.test(text)) named.add('config_problem');
  }
  assert.deepEqual([...named].sort(), Object.keys(EVENT_TYPES).sort());
});
