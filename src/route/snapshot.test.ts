// encodeSnapshot() and openSnapshot(): every field survives, groups partition the backends.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BACKENDS_MAX } from '../limits.ts';
import { testBackend, testRoutingData, WORLD_COUNTRIES } from '../testing/routing-data.ts';
import {
  encodeSnapshot,
  FLAG_DEGRADED,
  FLAG_DRAINING,
  FLAG_ENABLED,
  FLAG_PRESENT,
  openSnapshot,
  type RoutingBackend,
  type Snapshot,
} from './snapshot.ts';

const uint16 = fc.integer({ min: 0, max: 0xffff });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const backendArbitrary: fc.Arbitrary<RoutingBackend> = fc.record(
  {
    index: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: BACKENDS_MAX - 1 })),
    incarnation: uint16,
    app: fc.integer({ min: 1, max: 9 }),
    region: fc.integer({ min: 0, max: 63 }),
    country: fc.integer({ min: 0, max: 255 }),
    family: fc.constantFrom(4, 6),
    address: fc.tuple(uint32, uint32, uint32, uint32),
    port: uint16,
    weight: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1e9, noNaN: true })),
    softLimit: fc.nat(),
    hardLimit: fc.nat(),
    enabled: fc.boolean(),
    draining: fc.boolean(),
    degraded: fc.boolean(),
    proxyProtocol: fc.integer({ min: 0, max: 2 }),
  },
  { noNullPrototype: true },
);
const backendsArbitrary = fc.uniqueArray(backendArbitrary, {
  selector: (backend) => backend.index,
  maxLength: 40,
});

function readBackend(snapshot: Snapshot, index: number): RoutingBackend {
  return {
    index,
    incarnation: snapshot.incarnation[index],
    app: snapshot.app[index],
    region: snapshot.region[index],
    country: snapshot.country[index],
    family: snapshot.family[index] === 4 ? 4 : 6,
    address: Array.from(snapshot.addressWords.subarray(index * 4, index * 4 + 4)),
    port: snapshot.port[index],
    weight: snapshot.weight[index],
    softLimit: snapshot.softLimit[index],
    hardLimit: snapshot.hardLimit[index],
    enabled: (snapshot.flags[index] & FLAG_ENABLED) !== 0,
    draining: (snapshot.flags[index] & FLAG_DRAINING) !== 0,
    degraded: (snapshot.flags[index] & FLAG_DEGRADED) !== 0,
    proxyProtocol: snapshot.proxyProtocol[index],
  };
}

test('openSnapshot() gives back every field that encodeSnapshot() was given', () => {
  fc.assert(
    fc.property(backendsArbitrary, fc.nat(), (backends, version) => {
      const data = testRoutingData(backends, { version, popRegion: 2, popCountry: 5 });
      const snapshot = openSnapshot(encodeSnapshot(data));
      assert.equal(snapshot.version, version);
      assert.equal(snapshot.popRegion, 2);
      assert.equal(snapshot.popCountry, 5);
      const present: RoutingBackend[] = [];
      for (let index = 0; index < snapshot.backendEnd; index++) {
        if ((snapshot.flags[index] & FLAG_PRESENT) !== 0)
          present.push(readBackend(snapshot, index));
        else assert.equal(snapshot.flags[index], 0);
      }
      const expected = backends.toSorted((one, two) => one.index - two.index);
      assert.deepEqual(present, expected);
      const { countryRegion, countryCoordinates, regionCoordinates } = data;
      assert.deepEqual(snapshot.countryRegion.slice(0, WORLD_COUNTRIES), countryRegion);
      const shared = snapshot.countryCoordinates.slice(0, countryCoordinates.length);
      assert.deepEqual(shared, countryCoordinates);
      const centres = snapshot.regionCoordinates.slice(0, regionCoordinates.length);
      assert.deepEqual(centres, regionCoordinates);
    }),
    { numRuns: 200 },
  );
});

test('encodeSnapshot() lists each selectable backend once under its app and once under *', () => {
  fc.assert(
    fc.property(backendsArbitrary, (backends) => {
      const snapshot = openSnapshot(encodeSnapshot(testRoutingData(backends)));
      const listed: [number, number][] = [];
      for (let app = 0; app < snapshot.appEnd; app++) {
        const seen = new Set<string>();
        for (
          let group = snapshot.appGroupStart[app];
          group < snapshot.appGroupStart[app + 1];
          group++
        ) {
          const degraded = snapshot.groupDegraded[group];
          const name = `${snapshot.groupRegion[group]}/${snapshot.groupCountry[group]}/${degraded}`;
          assert.ok(!seen.has(name), 'a group is contiguous');
          seen.add(name);
          assert.ok(snapshot.groupStart[group] < snapshot.groupStart[group + 1], 'not empty');
          for (let at = snapshot.groupStart[group]; at < snapshot.groupStart[group + 1]; at++) {
            const index = snapshot.members[at];
            assert.equal(snapshot.region[index], snapshot.groupRegion[group]);
            assert.equal(snapshot.country[index], snapshot.groupCountry[group]);
            assert.equal((snapshot.flags[index] & FLAG_DEGRADED) / FLAG_DEGRADED, degraded);
            listed.push([app, index]);
          }
        }
      }
      const expected = backends
        .filter((backend) => backend.enabled && !backend.draining && backend.weight > 0)
        .flatMap((backend): [number, number][] => [
          [0, backend.index],
          [backend.app, backend.index],
        ]);
      assert.deepEqual(listed.map(String).sort(), expected.map(String).sort());
    }),
    { numRuns: 200 },
  );
});

test('encodeSnapshot() takes no backends at all', () => {
  const snapshot = openSnapshot(encodeSnapshot(testRoutingData([])));
  assert.equal(snapshot.backendEnd, 0);
  assert.equal(snapshot.appEnd, 1);
  assert.equal(snapshot.members.length, 0);
});

test('encodeSnapshot() takes the highest index and caps limits nobody can reach', () => {
  const index = BACKENDS_MAX - 1;
  const backend = testBackend({ index, softLimit: 2 ** 40, hardLimit: 2 ** 40 });
  const snapshot = openSnapshot(encodeSnapshot(testRoutingData([backend])));
  assert.equal(snapshot.softLimit[index], 0x7fff_ffff);
  assert.equal(snapshot.hardLimit[index], 0x7fff_ffff);
  assert.equal(snapshot.members[0], index);
});

test('encodeSnapshot() refuses numbers that do not fit, by name', () => {
  const wrong: [Partial<RoutingBackend>, RegExp][] = [
    [{ index: -1 }, /backend index -1/],
    [{ index: BACKENDS_MAX }, /backend index 65535: .* 0 to 65534/],
    [{ incarnation: 65_536 }, /incarnation 65536/],
    [{ app: 0 }, /app 0: .* 1 to/],
    [{ region: 64 }, /region 64/],
    [{ country: 256 }, /country 256/],
    [{ port: 65_536 }, /port 65536/],
    [{ hardLimit: 0.5 }, /hard limit 0.5/],
    [{ softLimit: -1 }, /soft limit -1/],
    [{ weight: Number.NaN }, /weight NaN/],
    [{ weight: -1 }, /weight -1/],
  ];
  for (const [fields, message] of wrong) {
    const data = testRoutingData([testBackend(fields)]);
    assert.throws(() => encodeSnapshot(data), { name: 'RangeError', message });
  }
  const twice = testRoutingData([testBackend({ index: 3 }), testBackend({ index: 3 })]);
  assert.throws(() => encodeSnapshot(twice), /index 3 twice/);
});
