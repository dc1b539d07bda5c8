// The event stream through the real process: what happens is told as it happens, nothing is told twice or left out after a
// break. (What a subscriber that does not read meets: src/control/api/event-stream.test.ts.)

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import * as schemas from '../src/control/api/response-schemas.ts';
import {
  type AdminStream,
  askAdmin,
  openStream,
  type StreamMessage,
} from '../src/testing/admin-client.ts';
import { clientFate } from '../src/testing/clients.ts';
import { type ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { changeRouting } from '../src/testing/routing-file.ts';
import { refusedPort } from '../src/testing/test-backends.ts';
import { until } from '../src/testing/wait.ts';

const BACKENDS = [{ id: 'a', port: 1 }];

function patch(proxy: ProxyProcess, weight: number) {
  return askAdmin(proxy, '/api/backends/a', { method: 'PATCH', body: { weight } });
}

/** The types of the control events so far. */
function typesOf({ messages }: AdminStream): string[] {
  return messages.filter(({ event }) => event === 'event').map(({ data }) => String(data.type));
}

test('admin events: the status comes at once and then again and again, unless it is not wanted', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  using stream = await openStream(proxy);
  using quiet = await openStream(proxy, '/api/events?status=false');
  await until('three statuses', () => stream.messages.length >= 3);
  const [first, , third] = stream.messages as [StreamMessage, StreamMessage, StreamMessage];
  for (const { event, data } of [first, third]) {
    assert.equal(event, 'status');
    assert.deepEqual(v.parse(schemas.status, data), data);
  }
  assert.ok(String(third.data.time) > String(first.data.time));
  assert.equal(stream.response.headers['content-type'], 'text/event-stream');
  assert.equal(stream.response.headers['cache-control'], 'no-store');
  assert.equal(quiet.messages.length, 0);
});

test('admin events: edits, reloads, health, breakers, a dead worker and the drain are told', async () => {
  const dead = await refusedPort();
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: dead }],
    settings: {
      HEALTH_CHECK_ENABLED: 'true',
      HEALTH_CHECK_INTERVAL_SECS: 0.2,
      CIRCUIT_FAILURE_THRESHOLD: 1,
      DB_RELOAD_SECS: 0.05,
    },
    wrapper: ['env', 'EDGEPROXY_FAULT_INJECTION=1'],
  });
  using stream = await openStream(proxy, '/api/events?recent=1000&status=false');
  const told = async (type: string): Promise<schemas.EventData> => {
    const { data } = await stream.untilMessage('event', type);
    return v.parse(schemas.event, data);
  };
  assert.equal((await told('started')).message, 'Listening');
  await clientFate(proxy.address);
  assert.deepEqual((await told('breaker_opened')).fields, { backend: 'a' });
  const unhealthy = await told('backend_unhealthy');
  assert.equal(unhealthy.level, 'warn');
  assert.equal(unhealthy.fields.reason, 'connect refused');
  await patch(proxy, 2);
  assert.equal((await told('backend_edited')).fields.weight, 2);
  assert.equal((await told('routing_reloaded')).fields.version, 2);
  changeRouting(proxy.dbPath, "INSERT INTO backends(id, app, region) VALUES ('bad', 'web', 'sa')");
  assert.equal((await told('routing_problem')).fields.id, 'bad');
  changeRouting(proxy.dbPath, 'ALTER TABLE backends RENAME TO gone');
  assert.equal((await told('routing_unreadable')).level, 'error');
  proxy.signal('SIGUSR2');
  assert.equal((await told('worker_died')).fields.worker, 1);
  assert.equal((await told('worker_replaced')).fields.worker, 1);
  proxy.signal('SIGHUP');
  await told('reload_requested');
  const logged = proxy.logs.filter(({ event }) => event === 'worker_died');
  assert.equal(logged.length, 1, 'the log has the same name');
  proxy.signal('SIGTERM');
  await told('draining');
});

test('admin events: a stream that broke goes on where it was, and says when it cannot', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const first = await openStream(proxy, '/api/events?status=false');
  await until('the place to start from', () => first.lastId !== '');
  const start = first.lastId;
  await patch(proxy, 2);
  await first.untilMessage('event', 'routing_reloaded');
  const { lastId } = first;
  first[Symbol.dispose]();
  await patch(proxy, 3);
  await patch(proxy, 4);
  using second = await openStream(proxy, '/api/events?status=false', { 'last-event-id': lastId });
  await until('the missed events', () => second.messages.length === 4);
  assert.deepEqual(typesOf(second), [
    'backend_edited',
    'routing_reloaded',
    'backend_edited',
    'routing_reloaded',
  ]);
  using all = await openStream(proxy, '/api/events?status=false', { 'last-event-id': start });
  await until('all since the first stream', () => all.messages.length === 6);
  assert.ok(!typesOf(all).includes('started'));
  for (const foreign of ['00000000-3', 'what is this']) {
    using other = await openStream(proxy, '/api/events?status=false', {
      'last-event-id': foreign,
    });
    await until('all events', () => other.messages.length === 8);
    const [gap] = other.messages;
    assert.equal(gap?.event, 'gap');
    assert.deepEqual(v.parse(schemas.gap, gap?.data), { missed: null });
    assert.equal(typesOf(other)[0], 'started');
  }
  using recent = await openStream(proxy, '/api/events?status=false&recent=3');
  await until('three events', () => recent.messages.length === 3);
  assert.deepEqual(typesOf(recent), ['routing_reloaded', 'backend_edited', 'routing_reloaded']);
  assert.equal(recent.lastId, all.lastId);
});

test('admin events: subscribers are bounded, and a place is free again when one leaves', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const streams = await Promise.all(Array.from({ length: 32 }, () => openStream(proxy)));
  const refused = await askAdmin(proxy, '/api/events');
  assert.equal(refused.status, 503);
  assert.equal(refused.json.type, 'urn:edgeproxy:problem:too-many-subscribers');
  assert.equal(refused.headers['retry-after'], '5');
  for (const stream of streams) stream[Symbol.dispose]();
  using again = await until('a free place', () => openStream(proxy).catch(() => null));
  await again.untilMessage('status');
});
