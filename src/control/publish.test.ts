import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BACKENDS_MAX, REGIONS_MAX } from '../limits.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import { countryIndex, defaultRegionMap, regionIndex } from '../route/regions.ts';
import {
  FLAG_DRAINING,
  FLAG_ENABLED,
  FLAG_PRESENT,
  openSnapshot,
  type Snapshot,
} from '../route/snapshot.ts';
import { createPublisher } from './publish.ts';
import type { RawBackend, RowProblem } from './routing-rows.ts';

const MAP = defaultRegionMap();

function row(id: string, fields: Partial<RawBackend> = {}): RawBackend {
  return {
    id,
    app: 'web',
    region: 'sa',
    country: null,
    family: 4,
    words: [0, 0, 0, 0x0a000001],
    port: 80,
    healthy: true,
    weight: 1,
    softLimit: 100,
    hardLimit: 0,
    deleted: false,
    check: null,
    drain: null,
    proxyProtocol: null,
    ...fields,
  };
}

function setUp(options: { popRegion?: string; popCountry?: string | null } = {}) {
  const state = openBackendState(createBackendState());
  const publisher = createPublisher({
    regionMap: MAP,
    popRegion: options.popRegion ?? 'sa',
    popCountry: options.popCountry ?? null,
    backendState: state,
  });
  const problems: RowProblem[] = [];
  const publish = (...rows: RawBackend[]): Snapshot =>
    openSnapshot(publisher.publish(rows, problems).buffer);
  /** The index an id has in a snapshot, by the publisher's own names. */
  const indexOf = (snapshot: Snapshot, id: string): number => {
    for (let index = 0; index < snapshot.backendEnd; index++) {
      if (snapshot.flags[index] !== 0 && publisher.backendId(index) === id) return index;
    }
    return -1;
  };
  return { state, publisher, problems, publish, indexOf };
}

test('publish() encodes a row as numbers', () => {
  const { publish, publisher } = setUp({ popRegion: 'eu', popCountry: 'PT' });
  const snapshot = publish(
    row('a', {
      app: 'api',
      region: 'us',
      country: 'CA',
      family: 6,
      words: [1, 2, 3, 4],
      port: 443,
      weight: 2.5,
      softLimit: 7,
      hardLimit: 9,
    }),
  );
  assert.equal(snapshot.version, 1);
  assert.equal(snapshot.popRegion, regionIndex(MAP, 'eu'));
  assert.equal(snapshot.popCountry, countryIndex('PT'));
  assert.equal(snapshot.app[0], publisher.appIndex('api'));
  assert.equal(snapshot.region[0], regionIndex(MAP, 'us'));
  assert.equal(snapshot.country[0], countryIndex('CA'));
  assert.equal(snapshot.family[0], 6);
  assert.deepEqual([...snapshot.addressWords.subarray(0, 4)], [1, 2, 3, 4]);
  assert.equal(snapshot.port[0], 443);
  assert.equal(snapshot.weight[0], 2.5);
  assert.equal(snapshot.softLimit[0], 7);
  assert.equal(snapshot.hardLimit[0], 9);
  assert.equal(snapshot.flags[0], FLAG_PRESENT | FLAG_ENABLED);
  assert.deepEqual(
    [...snapshot.countryRegion.subarray(1, 10)],
    [...MAP.countryRegion.subarray(1, 10)],
  );
});

test('publish() puts a backend without country into the home country of its region', () => {
  const { publish, indexOf } = setUp();
  const homes = { sa: 'BR', us: 'US', eu: 'DE', ap: 'SG', af: 'ZA', me: 'AE' };
  const rows = Object.keys(homes).map((region) => row(region, { region }));
  const snapshot = publish(...rows, row('lab', { region: 'lab' }));
  for (const [region, country] of Object.entries(homes)) {
    assert.equal(snapshot.country[indexOf(snapshot, region)], countryIndex(country), region);
  }
  assert.equal(snapshot.country[indexOf(snapshot, 'lab')], 0);
});

test('publish() keeps unhealthy and deleted backends, not enabled', () => {
  const { publish, indexOf } = setUp();
  const snapshot = publish(row('a', { healthy: false }), row('b', { deleted: true }), row('c'));
  const flags = ['a', 'b', 'c'].map((id) => snapshot.flags[indexOf(snapshot, id)]);
  assert.deepEqual(flags, [FLAG_PRESENT, FLAG_PRESENT, FLAG_PRESENT | FLAG_ENABLED]);
});

test('publish() marks a draining backend, whenever its sessions are to end', () => {
  const { publisher } = setUp();
  const publish = (...rows: RawBackend[]) => publisher.publish(rows, []);
  const drain = { closeAt: null, closeRate: null };
  const { buffer, version } = publish(row('a', { drain }));
  assert.equal(openSnapshot(buffer).flags[0], FLAG_PRESENT | FLAG_ENABLED | FLAG_DRAINING);
  assert.equal(publish(row('a', { drain: { closeAt: 9, closeRate: 1 } })).changed, false);
  assert.equal(publish(row('a')).version, version + 1);
});

test('publish() says whether anything changed, and counts versions only then', () => {
  const { publisher } = setUp();
  const publish = (...rows: RawBackend[]) => publisher.publish(rows, []);
  const first = publish(row('a'), row('b'));
  assert.deepEqual([first.version, first.changed], [1, true]);
  const same = publish(row('a'), row('b'));
  assert.deepEqual([same.version, same.changed], [1, false]);
  assert.equal(same.buffer, first.buffer);
  const changes: Partial<RawBackend>[] = [
    { app: 'other' },
    { region: 'us' },
    { country: 'AR' },
    { words: [0, 0, 0, 1] },
    { port: 81 },
    { healthy: false },
    { weight: 2 },
    { softLimit: 1 },
    { hardLimit: 1 },
    { deleted: true },
    { drain: { closeAt: null, closeRate: null } },
  ];
  let version = 1;
  for (const change of changes) {
    const changed = publish(row('a', change), row('b'));
    assert.deepEqual([changed.version, changed.changed], [++version, true], JSON.stringify(change));
    assert.equal(openSnapshot(changed.buffer).version, version);
    assert.ok(publish(row('a'), row('b')).changed);
    version++;
  }
  assert.ok(publish(row('a')).changed, 'one less');
  assert.ok(publish().changed, 'none');
  assert.equal(publish().changed, false);
});

test('publish() keeps indexes across reloads, whatever the order', () => {
  const { publish, indexOf } = setUp();
  const before = publish(row('a'), row('b'), row('c'));
  const after = publish(row('new'), row('c'), row('a', { port: 81 }));
  for (const id of ['a', 'c']) assert.equal(indexOf(after, id), indexOf(before, id));
  assert.equal(indexOf(after, 'new'), 3, 'not the index that b gave up this very moment');
  assert.equal(indexOf(after, 'b'), -1);
});

test('publish() reuses an index only without sessions, with the next incarnation', () => {
  const { publish, indexOf, state } = setUp();
  const first = publish(row('a'), row('b'));
  const [a, b] = [indexOf(first, 'a'), indexOf(first, 'b')];
  Atomics.store(state.active, a, 1);
  publish();
  const second = publish(row('c'));
  assert.equal(indexOf(second, 'c'), b);
  assert.equal(second.incarnation[b], ((first.incarnation[b] as number) + 1) & 0xffff);
  Atomics.store(state.active, a, 0);
  const third = publish(row('c'), row('d'));
  assert.equal(indexOf(third, 'd'), a);
  assert.equal(third.incarnation[a], 1);
});

test('publish() gives a returning id its own index back, with its sessions and bindings', () => {
  const { publish, indexOf, state } = setUp();
  const first = publish(row('a'), row('b'));
  const b = indexOf(first, 'b');
  Atomics.store(state.active, b, 5);
  publish(row('a'));
  const back = publish(row('a'), row('b'));
  assert.equal(indexOf(back, 'b'), b);
  assert.equal(back.incarnation[b], first.incarnation[b]);
});

test('publish() never gives a returning id an index that another has by now', () => {
  const { publish, indexOf } = setUp();
  publish(row('a'));
  publish();
  publish(row('thief'));
  const snapshot = publish(row('thief'), row('a'));
  assert.equal(indexOf(snapshot, 'thief'), 0);
  assert.equal(indexOf(snapshot, 'a'), 1);
});

test('backendName() and liveBackends() tell who has an index, who had it, and who still uses it', () => {
  const { publish, publisher, state } = setUp();
  publish(row('a'), row('b'));
  state.active[0] = 1;
  publish(row('b'));
  assert.deepEqual(publisher.liveBackends(), [
    { id: 'a', index: 0 },
    { id: 'b', index: 1 },
  ]);
  state.active[0] = 0;
  assert.deepEqual(publisher.liveBackends(), [{ id: 'b', index: 1 }]);
  assert.equal(publisher.backendName(0, 0), 'a');
  publish(row('b'), row('c'));
  assert.deepEqual(publisher.liveBackends(), [
    { id: 'c', index: 0 },
    { id: 'b', index: 1 },
  ]);
  // What a session recorded before the index went to c.
  assert.equal(publisher.backendName(0, 0), 'a');
  assert.equal(publisher.backendName(0, 1), 'c');
  assert.equal(publisher.backendName(1, 0), 'b');
  assert.equal(publisher.backendName(0, 0xfffe), '');
  assert.equal(publisher.backendName(9, 0), '');
});

test('publish() wraps the incarnation at 16 bits', () => {
  const { publish } = setUp();
  let last: Snapshot | null = null;
  for (let turn = 0; turn <= 65_536; turn++) {
    last = publish(row(`b${turn}`));
    publish();
  }
  assert.equal(last?.backendEnd, 1);
  assert.equal(last?.incarnation[0], 0);
});

test('publish() holds its invariants over any sequence of reloads', () => {
  const step = fc.record({
    ids: fc.uniqueArray(fc.integer({ min: 0, max: 12 }), { maxLength: 10 }),
    busy: fc.uniqueArray(fc.integer({ min: 0, max: 20 }), { maxLength: 6 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const { publish, indexOf, state } = setUp();
      /** Who used an index with sessions open, and with which incarnation. */
      let previous = new Map<string, number>();
      const seen = new Map<string, string>();
      for (const { ids, busy } of steps) {
        const snapshot = publish(...ids.map((id) => row(`b${id}`)));
        const now = new Map(ids.map((id) => [`b${id}`, indexOf(snapshot, `b${id}`)]));
        assert.equal(new Set(now.values()).size, ids.length, 'one index each');
        for (const [id, index] of now) {
          assert.ok(index >= 0);
          if (previous.has(id)) assert.equal(index, previous.get(id), 'stable');
          // One (index, incarnation) stands for one id for ever (65,536 turns are not reached
          // here).
          const identity = `${index}/${snapshot.incarnation[index]}`;
          assert.equal(seen.get(identity) ?? id, id);
          seen.set(identity, id);
          if (Atomics.load(state.active, index) > 0) {
            assert.equal([...seen].findLast(([key]) => key.startsWith(`${index}/`))?.[1], id);
          }
        }
        previous = now;
        state.active.fill(0, 0, 32);
        for (const index of busy) Atomics.store(state.active, index, 1);
      }
    }),
    { numRuns: 200 },
  );
});

test('publish() turns rows beyond the limits into problems, and serves the others', () => {
  const { publish, problems } = setUp();
  const regions = Array.from({ length: REGIONS_MAX }, (_, at) =>
    row(`r${at}`, { region: `r${at}` }),
  );
  const snapshot = publish(...regions, row('ok'));
  assert.equal(snapshot.members.length, (REGIONS_MAX - MAP.names.length + 1) * 2);
  assert.equal(problems.length, MAP.names.length);
  assert.equal(problems[0]?.column, 'region');
  assert.match(problems[0]?.reason as string, /64 regions/);

  const crowd = setUp();
  const many = Array.from({ length: BACKENDS_MAX + 2 }, (_, at) => row(`b${at}`));
  crowd.publish(...many);
  assert.deepEqual(
    crowd.problems.map(({ id, column }) => [id, column]),
    [
      [`b${BACKENDS_MAX}`, 'id'],
      [`b${BACKENDS_MAX + 1}`, 'id'],
    ],
  );
});

test('appIndex() is stable, 0 for any app, and there before a backend is', () => {
  const { publisher, publish } = setUp();
  assert.equal(publisher.appIndex('*'), 0);
  const early = publisher.appIndex('early');
  assert.equal(early, 1);
  const snapshot = publish(row('a', { app: 'first' }), row('b', { app: 'early' }));
  assert.equal(snapshot.app[1], early);
  assert.equal(publisher.appIndex('first'), 2);
  assert.equal(publisher.appName(early), 'early');
  assert.equal(publisher.appName(99), undefined);
});

test('regionName() knows default, POP and routing-data regions', () => {
  const { publisher, publish } = setUp({ popRegion: 'Home' });
  const snapshot = publish(row('a', { region: 'lab' }));
  assert.equal(publisher.regionName(snapshot.popRegion), 'home');
  assert.equal(publisher.regionName(snapshot.region[0] as number), 'lab');
  assert.equal(publisher.regionName(0), MAP.names[0]);
});
