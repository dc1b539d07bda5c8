// Regions: codes, the default map and its exceptions, overrides, added regions, and distances.
// What the default map holds is generated; tools/generate-country-data.test.ts checks that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REGIONS_MAX } from '../limits.ts';
import { COUNTRY_CODES, DEFAULT_REGIONS } from './country-data.ts';
import {
  buildRegionMap,
  countryCode,
  countryIndex,
  countryIndexOfLetters,
  countryLatitude,
  countryLongitude,
  defaultRegionMap,
  distanceKm,
  REGION_NONE,
  regionDistanceKm,
  regionIndex,
  withRegions,
} from './regions.ts';

function regionOf(map: ReturnType<typeof defaultRegionMap>, code: string): string | undefined {
  return map.names[map.countryRegion[countryIndex(code)] as number];
}

test('countryIndex() is 1 + the position of the code, in either case', () => {
  assert.equal(countryIndex('AD'), 1);
  for (const [position, code] of COUNTRY_CODES.entries()) {
    assert.equal(countryIndex(code), position + 1);
    assert.equal(countryIndex(code.toLowerCase()), position + 1);
    assert.equal(countryCode(position + 1), code);
  }
  assert.equal(countryIndex('bR'), countryIndex('BR'));
});

test('countryIndex() is 0 for what is no country', () => {
  for (const code of [
    '',
    'U',
    'USA',
    'ZZ',
    'EU',
    '12',
    '@A',
    'A@',
    '[A',
    'A{',
    'ÀD',
    '\u0141D',
    'A\0',
  ]) {
    assert.equal(countryIndex(code), 0, JSON.stringify(code));
  }
  assert.equal(countryCode(0), '');
  assert.equal(countryCode(251), '');
});

test('countryIndexOfLetters() is 0 for any byte pair that is not two letters', () => {
  let known = 0;
  for (let first = 0; first < 256; first++) {
    for (let second = 0; second < 256; second++) {
      const index = countryIndexOfLetters(first, second);
      const text = String.fromCharCode(first, second);
      const expected = /^[a-z]{2}$/i.test(text) ? COUNTRY_CODES.indexOf(text.toUpperCase()) + 1 : 0;
      assert.equal(index, expected, `${first}, ${second}`);
      if (index > 0) known++;
    }
  }
  assert.equal(known, 4 * 250);
});

test('defaultRegionMap() puts every country in exactly one of six regions', () => {
  const map = defaultRegionMap();
  assert.deepEqual(map.names, ['sa', 'us', 'eu', 'ap', 'af', 'me']);
  assert.equal(map.countryRegion.length, 251);
  assert.equal(map.countryRegion[0], REGION_NONE);
  for (let country = 1; country <= 250; country++) {
    assert.ok((map.countryRegion[country] as number) < 6, countryCode(country));
  }
});

test('defaultRegionMap() places countries by their UN region, with the exceptions', () => {
  const expected = {
    sa: 'BR AR CL GF FK GS AQ',
    us: 'US CA MX PR CU PA GL BM',
    eu: 'DE PT RU IS GB XK CY TR GE AM AZ',
    ap: 'SG JP IN AU NZ KZ PK AF HM FJ',
    af: 'ZA EG MA NG RE BV TF',
    me: 'AE IR IQ SA IL YE',
  };
  const map = defaultRegionMap();
  for (const [region, codes] of Object.entries(expected)) {
    for (const code of codes.split(' ')) assert.equal(regionOf(map, code), region, code);
  }
});

test('defaultRegionMap() has each region stand where its home country is', () => {
  const map = defaultRegionMap();
  const homes = [...map.homeCountry].map((country) => countryCode(country));
  assert.deepEqual(homes, ['BR', 'US', 'DE', 'SG', 'ZA', 'AE']);
  for (const [region, home] of [...map.homeCountry].entries()) {
    assert.equal(map.latitude[region], countryLatitude(home));
    assert.equal(map.longitude[region], countryLongitude(home));
  }
});

test('buildRegionMap() moves countries, in either case, and leaves the default map alone', () => {
  const map = buildRegionMap({ br: 'US', Jp: 'japan', kr: 'Japan' });
  assert.equal(regionOf(map, 'BR'), 'us');
  assert.equal(regionOf(map, 'JP'), 'japan');
  assert.equal(regionIndex(map, 'JAPAN'), 6);
  assert.equal(regionOf(map, 'KR'), 'japan');
  assert.equal(regionOf(defaultRegionMap(), 'BR'), 'sa');
  // The new region has no home; its centre is between its two countries.
  assert.equal(map.homeCountry[6], 0);
  const latitude = map.latitude[6] as number;
  assert.ok(latitude > 35 && latitude < 38, String(latitude));
  const longitude = map.longitude[6] as number;
  assert.ok(longitude > 127 && longitude < 139, String(longitude));
});

test('buildRegionMap() takes the home away from a region whose home country moved', () => {
  const map = buildRegionMap({ SG: 'sea' });
  const ap = regionIndex(map, 'ap');
  assert.equal(map.homeCountry[ap], 0);
  assert.ok(Number.isFinite(map.latitude[ap]));
  assert.notEqual(map.latitude[ap], countryLatitude(countryIndex('SG')));
});

test('buildRegionMap() names every problem in one line each', () => {
  const name = 'a name is 1 to 16 characters of a-z, 0-9 and "-"';
  assert.throws(() => buildRegionMap({ ZZ: 'eu', BR: 'a b', AR: '' }), {
    name: 'RangeError',
    message:
      'Cannot map country "ZZ": not an ISO 3166-1 alpha-2 code or XK\n' +
      `Cannot map country "BR" to region "a b": ${name}\n` +
      `Cannot map country "AR" to region "": ${name}`,
  });
  assert.throws(() => buildRegionMap({ BR: 'a'.repeat(17) }), RangeError);
  assert.throws(
    () => buildRegionMap({ BR: 7 as unknown as string }),
    /Cannot map country "BR" to region 7/,
  );
  assert.throws(
    () => buildRegionMap({ BR: 'eu', br: 'af' }),
    /"br" to region "af": it is mapped twice/,
  );
  assert.equal(regionOf(buildRegionMap({ BR: 'eu', br: 'EU' }), 'BR'), 'eu');
});

test('buildRegionMap() takes 64 regions and refuses 65', () => {
  const others = COUNTRY_CODES.slice(0, REGIONS_MAX - DEFAULT_REGIONS.length);
  const overrides = Object.fromEntries(others.map((code, index) => [code, `r${index}`]));
  assert.equal(buildRegionMap(overrides).names.length, 64);
  assert.throws(() => buildRegionMap({ ...overrides, ZW: 'one-more' }), {
    name: 'RangeError',
    message: 'Cannot have 65 regions: at most 64 are allowed',
  });
});

test('withRegions() adds regions without a centre and keeps existing indexes', () => {
  const base = defaultRegionMap();
  const map = withRegions(base, ['Lab', 'EU', 'lab', 'test-2']);
  assert.deepEqual(map.names, ['sa', 'us', 'eu', 'ap', 'af', 'me', 'lab', 'test-2']);
  assert.equal(base.names.length, 6);
  assert.equal(regionIndex(map, 'LAB'), 6);
  assert.equal(map.homeCountry[6], 0);
  assert.ok(Number.isNaN(map.latitude[6]));
  assert.ok(Number.isNaN(map.longitude[6]));
  assert.equal(map.latitude[2], base.latitude[2]);
  assert.equal(withRegions(base, ['us', 'SA']), base);
  assert.throws(() => withRegions(base, ['a b']), /Cannot add region "a b": a name is 1 to 16/);
  const many = Array.from({ length: 59 }, (_, index) => `r${index}`);
  assert.throws(() => withRegions(base, many), /Cannot have 65 regions/);
  assert.equal(withRegions(base, many.slice(1)).names.length, 64);
});

test('regionIndex() is -1 for an unknown region', () => {
  assert.equal(regionIndex(defaultRegionMap(), 'lab'), -1);
  assert.equal(regionIndex(defaultRegionMap(), 'AP'), 3);
});

test('distanceKm() agrees with known distances', () => {
  const near = (actual: number, expected: number) =>
    assert.ok(Math.abs(actual - expected) < 5, `${actual}, expected ${expected}`);
  near(distanceKm(0, 0, 0, 0), 0);
  near(distanceKm(0, 0, 0, 90), 10_007.5);
  near(distanceKm(0, 179, 0, -179), 222.4); // across the date line
  near(distanceKm(90, 0, -90, 77), 20_015);
  near(distanceKm(81.91, 149.32, -81.91, -30.680000000000007), 20_015); // antipodes
  near(distanceKm(48.8566, 2.3522, 40.7128, -74.006), 5837); // Paris, New York
  assert.ok(Number.isNaN(distanceKm(Number.NaN, 0, 0, 0)));
});

test('regionDistanceKm() orders regions from a country, those without a centre last', () => {
  const map = withRegions(defaultRegionMap(), ['lab']);
  const from = (code: string) =>
    map.names
      .map((name, region) => ({ name, km: regionDistanceKm(map, region, countryIndex(code)) }))
      .sort((a, b) => a.km - b.km)
      .map(({ name }) => name);
  assert.equal(from('AR')[0], 'sa');
  assert.equal(from('AU')[0], 'ap');
  assert.equal(from('FR')[0], 'eu');
  assert.equal(from('BR').at(-1), 'lab');
  assert.equal(regionDistanceKm(map, 6, countryIndex('BR')), Number.POSITIVE_INFINITY);
  assert.equal(regionDistanceKm(map, 0, 0), Number.POSITIVE_INFINITY);
  assert.ok(Number.isNaN(countryLongitude(0)));
});
