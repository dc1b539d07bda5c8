// The generated country data is what the generator makes now, and the generator refuses countries
// that it cannot place, or that are not what it expects.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { COUNTRY_CODES } from '../src/route/country-data.ts';
import { generateCountryData, readSourceCountries } from './generate-country-data.ts';

test('generateCountryData() gives what src/route/country-data.ts holds', () => {
  const file = readFileSync(new URL('../src/route/country-data.ts', import.meta.url), 'utf8');
  assert.equal(
    file,
    generateCountryData(readSourceCountries()),
    'run tools/generate-country-data.ts',
  );
});

test('COUNTRY_CODES has the 249 ISO codes and XK, sorted', () => {
  assert.equal(COUNTRY_CODES.length, 250);
  assert.equal(new Set(COUNTRY_CODES).size, 250);
  assert.deepEqual(COUNTRY_CODES, [...COUNTRY_CODES].sort());
  assert.ok(COUNTRY_CODES.includes('XK'));
  assert.ok(COUNTRY_CODES.every((code) => /^[A-Z]{2}$/.test(code)));
});

test('generateCountryData() fails on a country that no rule places', () => {
  const countries = readSourceCountries();
  const moved = countries.map((country) =>
    country.cca2 === 'FR' ? { ...country, region: 'Atlantis', subregion: '' } : country,
  );
  assert.throws(() => generateCountryData(moved), /Cannot give country FR a region: no rule/);
});

test('generateCountryData() fails on missing, repeated and misplaced countries', () => {
  const countries = readSourceCountries();
  assert.throws(() => generateCountryData(countries.slice(1)), /Cannot use 249 countries/);
  const repeated = [...countries.slice(1), countries.at(-1)!];
  assert.throws(() => generateCountryData(repeated), /Cannot use a country code twice/);
  const misplaced = countries.map((country) => ({ ...country, latlng: [91, 0] }));
  assert.throws(() => generateCountryData(misplaced), /Cannot use country/);
});
