// Writes src/route/country-data.ts from the development dependency `world-countries` (ODbL): the
// sorted ISO codes, the centre of each country, and its default region. Run it after updating that
// dependency: `node tools/generate-country-data.ts`. Every country needs exactly one region, by a
// rule or an exception below; one that matches none makes the generator fail: none is placed by
// accident.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

interface SourceCountry {
  cca2: string;
  status: string;
  region: string;
  subregion: string;
  latlng: number[];
}

const OUTPUT = new URL('../src/route/country-data.ts', import.meta.url);
const COUNTRIES_COUNT = 250; // 249 officially assigned ISO 3166-1 codes, and XK

/**
 * A region index is a position here; a backend without a country is taken to be in its region's
 * home.
 */
const REGIONS = [
  { name: 'sa', home: 'BR' },
  { name: 'us', home: 'US' },
  { name: 'eu', home: 'DE' },
  { name: 'ap', home: 'SG' },
  { name: 'af', home: 'ZA' },
  { name: 'me', home: 'AE' },
];

/** Countries that the rules by UN region would place badly, or not at all. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  // Western Asia on the map; but their transit runs through Sofia, Frankfurt and Milan, not the
  // Gulf.
  TR: 'eu',
  GE: 'eu',
  AM: 'eu',
  AZ: 'eu',
  // A member of the EU with its cables to Greece and Italy; some sources call it Western Asia.
  CY: 'eu',
  // Southern Asia to the UN; its neighbours on the network are the Gulf states.
  IR: 'me',
  // Antarctica and the islands around it have no continent: each goes with its gateway or nearest
  // land.
  AQ: 'sa', // most stations are supplied from Punta Arenas and Ushuaia
  GS: 'sa', // by the Falkland Islands, which are South America
  BV: 'af', // 2,200 km off the Cape, the nearest continent with people
  TF: 'af', // administered from La Réunion
  HM: 'ap', // an Australian territory
};

function regionOf(country: SourceCountry): string {
  const exception = EXCEPTIONS[country.cca2];
  if (exception !== undefined) return exception;
  const { region, subregion } = country;
  if (region === 'Americas') {
    if (subregion === 'South America') return 'sa';
    if (['North America', 'Central America', 'Caribbean'].includes(subregion)) return 'us';
  }
  if (region === 'Europe') return 'eu';
  if (region === 'Africa') return 'af';
  if (region === 'Asia') return subregion === 'Western Asia' ? 'me' : 'ap';
  if (region === 'Oceania') return 'ap';
  throw new Error(
    `Cannot give country ${country.cca2} a region: no rule for "${region}" / "${subregion}"`,
  );
}

function checkCountries(countries: readonly SourceCountry[]): void {
  if (countries.length !== COUNTRIES_COUNT) {
    throw new Error(`Cannot use ${countries.length} countries: ${COUNTRIES_COUNT} expected`);
  }
  const codes = new Set(countries.map((country) => country.cca2));
  if (codes.size !== countries.length) throw new Error('Cannot use a country code twice');
  for (const code of [...Object.keys(EXCEPTIONS), ...REGIONS.map((region) => region.home)]) {
    if (!codes.has(code)) throw new Error(`Cannot find country ${code} in world-countries`);
  }
  for (const { cca2, latlng } of countries) {
    const [latitude = Number.NaN, longitude = Number.NaN] = latlng;
    const valid = /^[A-Z]{2}$/.test(cca2) && Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180;
    if (!valid) throw new Error(`Cannot use country "${cca2}" at ${latlng.join(', ')}`);
  }
}

/** Breaks comma-separated items into lines of the width the formatter keeps. */
function wrap(items: readonly string[], separator: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const item of items) {
    const next = line === indent ? line + item : `${line}${separator}${item}`;
    if (next.length > 94) {
      lines.push((line + separator).trimEnd());
      line = indent + item;
    } else {
      line = next;
    }
  }
  lines.push((line + separator).trimEnd());
  return lines;
}

/** A string concatenated over lines: one string costs the loader less than 250. */
function codeLines(codes: readonly string[]): string[] {
  const lines = wrap(codes, ' ', "  '");
  return lines.map((line, index) => (index < lines.length - 1 ? `${line} ' +` : `${line}'`));
}

function table(name: string, type: string, comment: string, items: readonly string[]): string[] {
  const body = wrap(items, ', ', '  ');
  return [
    `/** ${comment} */`,
    '// biome-ignore format: a table',
    `export const ${name} = new ${type}([`,
    ...body,
    ']);',
    '',
  ];
}

/** The text of src/route/country-data.ts; a test compares it with the file. */
export function generateCountryData(source: readonly SourceCountry[]): string {
  checkCountries(source);
  const countries = [...source].sort((a, b) => (a.cca2 < b.cca2 ? -1 : 1));
  const codes = countries.map((country) => country.cca2);
  const regionIndexes = countries.map((country) => {
    const index = REGIONS.findIndex((region) => region.name === regionOf(country));
    if (index < 0) throw new Error(`Cannot find region "${regionOf(country)}" of ${country.cca2}`);
    return index;
  });
  const round = (value: number) => String(Math.round(value * 100) / 100 + 0);
  const degrees = (axis: 0 | 1) => [
    'NaN',
    ...countries.map((country) => round(country.latlng[axis] as number)),
  ];
  const homes = REGIONS.map((region) => codes.indexOf(region.home) + 1);
  const names = REGIONS.map((region) => `'${region.name}'`);
  const pairs = REGIONS.map((region) => `${region.name} ${region.home}`);
  const lines = [
    '// Generated by tools/generate-country-data.ts; do not edit.',
    '// Countries: ISO 3166-1 alpha-2 codes, centres, default regions. Codes and coordinates come',
    '// from the database world-countries (github.com/mledoze/countries), made available under the',
    '// Open Database License (ODbL) 1.0, opendatacommons.org/licenses/odbl/1-0; so is this file.',
    '// A country index is 1 + the position of the code in COUNTRY_CODES; 0 means no country.',
    '',
    '/** The 249 codes of ISO 3166-1 and XK (user-assigned, Kosovo), sorted. */',
    '// biome-ignore format: a table',
    'export const COUNTRY_CODES: readonly string[] = (',
    ...codeLines(codes),
    ").split(' ');",
    '',
    '/** The default regions; a region index is a position here. */',
    `export const DEFAULT_REGIONS: readonly string[] = [${names.join(', ')}];`,
    '',
    `/** Country index by region index: ${pairs.join(', ')}. */`,
    `export const DEFAULT_REGION_HOMES: readonly number[] = [${homes.join(', ')}];`,
    '',
    ...table(
      'COUNTRY_REGIONS',
      'Uint8Array',
      'Default region index by country index; 255 is none.',
      ['255', ...regionIndexes.map(String)],
    ),
    ...table(
      'COUNTRY_LATITUDES',
      'Float64Array',
      'Degrees north by country index, to 0.01.',
      degrees(0),
    ),
    ...table(
      'COUNTRY_LONGITUDES',
      'Float64Array',
      'Degrees east by country index, to 0.01.',
      degrees(1),
    ),
  ];
  lines.pop();
  return `${lines.join('\n')}\n`;
}

/** The countries of the installed `world-countries`. */
export function readSourceCountries(): SourceCountry[] {
  const path = fileURLToPath(import.meta.resolve('world-countries/countries.json'));
  return JSON.parse(readFileSync(path, 'utf8')) as SourceCountry[];
}

if (import.meta.main) {
  writeFileSync(OUTPUT, generateCountryData(readSourceCountries()));
}
