// Regions: which region each country belongs to, where regions and countries are, and how far
// apart. A region map is immutable; routing data that names further regions makes a new map
// (withRegions). Country index: 0 = none, 1.. = 1 + position in COUNTRY_CODES. Region index: 0..,
// at most 64.

import { REGIONS_MAX } from '../limits.ts';
import {
  COUNTRY_CODES,
  COUNTRY_LATITUDES,
  COUNTRY_LONGITUDES,
  COUNTRY_REGIONS,
  DEFAULT_REGION_HOMES,
  DEFAULT_REGIONS,
} from './country-data.ts';

/** Region indexes fit a 64-bit set per backend row, and one byte with 255 for none. */
export const REGION_NONE = 255;
export const COUNTRIES_COUNT = COUNTRY_CODES.length;

const EARTH_RADIUS_KM = 6371;
const RADIANS = Math.PI / 180;
const REGION_NAME = /^[a-z0-9-]{1,16}$/;

/** All arrays are filled once by the functions below and never changed. */
export interface RegionMap {
  /** Lower-case names by region index; the six defaults come first. */
  readonly names: readonly string[];
  /** Region index by country index; REGION_NONE at 0. */
  readonly countryRegion: Uint8Array;
  /** By region index: the country that stands for the region; 0 for none. */
  readonly homeCountry: Uint16Array;
  /** Centre by region index, degrees; NaN where no country is mapped to the region. */
  readonly latitude: Float64Array;
  readonly longitude: Float64Array;
}

/** Country index by two letters, (first - 'A') * 26 + (second - 'A'). */
const INDEX_BY_LETTERS = indexByLetters();

function indexByLetters(): Uint8Array {
  const table = new Uint8Array(26 * 26);
  for (let index = 0; index < COUNTRY_CODES.length; index++) {
    const code = COUNTRY_CODES[index] as string;
    table[(code.charCodeAt(0) - 65) * 26 + code.charCodeAt(1) - 65] = index + 1;
  }
  return table;
}

/** Country index of two ASCII letters of either case; 0 when they are no known code. */
export function countryIndexOfLetters(first: number, second: number): number {
  const high = (first & ~0x20) - 65;
  const low = (second & ~0x20) - 65;
  if (high < 0 || high > 25 || low < 0 || low > 25) return 0;
  return INDEX_BY_LETTERS[high * 26 + low] as number;
}

/** Country index of an ISO 3166-1 alpha-2 code (or XK) in either case; 0 when unknown. */
export function countryIndex(code: string): number {
  if (code.length !== 2) return 0;
  return countryIndexOfLetters(code.charCodeAt(0), code.charCodeAt(1));
}

/** The code of a country index; the empty string for 0. */
export function countryCode(index: number): string {
  return COUNTRY_CODES[index - 1] ?? '';
}

/** Degrees of a country's centre; NaN for index 0. */
export function countryLatitude(index: number): number {
  return COUNTRY_LATITUDES[index] ?? Number.NaN;
}

export function countryLongitude(index: number): number {
  return COUNTRY_LONGITUDES[index] ?? Number.NaN;
}

/** Region index of a name in either case; -1 when the map has no such region. */
export function regionIndex(map: RegionMap, name: string): number {
  return map.names.indexOf(name.toLowerCase());
}

/** Great-circle distance in km between two points in degrees (haversine); NaN if any is NaN. */
export function distanceKm(lat1: number, lon1: number, lat2: number, lon2: number): number {
  const sinLat = Math.sin(((lat2 - lat1) * RADIANS) / 2);
  const sinLon = Math.sin(((lon2 - lon1) * RADIANS) / 2);
  const cosines = Math.cos(lat1 * RADIANS) * Math.cos(lat2 * RADIANS);
  // Rounding pushes some antipodes a hair above 1, beyond which asin is NaN.
  const square = Math.min(1, sinLat * sinLat + cosines * sinLon * sinLon);
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.sqrt(square));
}

/** Km from a region's centre to a country's; Infinity, so last in order, when either has none. */
export function regionDistanceKm(map: RegionMap, region: number, country: number): number {
  const latitude = map.latitude[region] ?? Number.NaN;
  const longitude = map.longitude[region] ?? Number.NaN;
  const km = distanceKm(latitude, longitude, countryLatitude(country), countryLongitude(country));
  return Number.isNaN(km) ? Number.POSITIVE_INFINITY : km;
}

/** Every country in its default region. */
export function defaultRegionMap(): RegionMap {
  return makeMap(DEFAULT_REGIONS, COUNTRY_REGIONS.slice());
}

/**
 * The default map with some countries moved: country code to region name, both in either case.
 * Throws a RangeError with one line per problem.
 */
export function buildRegionMap(overrides: Readonly<Record<string, string>>): RegionMap {
  const names = [...DEFAULT_REGIONS];
  const countryRegion = COUNTRY_REGIONS.slice();
  const moved = new Map<number, number>();
  const problems: string[] = [];
  for (const [code, region] of Object.entries(overrides)) {
    const country = countryIndex(code);
    if (country === 0) {
      problems.push(`Cannot map country "${code}": not an ISO 3166-1 alpha-2 code or XK`);
      continue;
    }
    const name = typeof region === 'string' ? region.toLowerCase() : '';
    if (!REGION_NAME.test(name)) {
      problems.push(`Cannot map country "${code}" to ${badRegionName(region)}`);
      continue;
    }
    if (!names.includes(name)) names.push(name);
    const index = names.indexOf(name);
    if ((moved.get(country) ?? index) !== index) {
      problems.push(`Cannot map country "${code}" to region "${name}": it is mapped twice`);
    }
    moved.set(country, index);
    if (index < REGIONS_MAX) countryRegion[country] = index;
  }
  if (names.length > REGIONS_MAX) problems.push(tooManyRegions(names.length));
  if (problems.length > 0) throw new RangeError(problems.join('\n'));
  return makeMap(names, countryRegion);
}

/**
 * The map with further regions that no country belongs to, as routing data or the POP may name
 * them. Existing indexes stay; returns the same map when nothing is new. Throws a RangeError.
 */
export function withRegions(map: RegionMap, extraNames: readonly string[]): RegionMap {
  const names = [...map.names];
  for (const extra of extraNames) {
    const name = extra.toLowerCase();
    if (!REGION_NAME.test(name)) throw new RangeError(`Cannot add ${badRegionName(extra)}`);
    if (!names.includes(name)) names.push(name);
  }
  if (names.length === map.names.length) return map;
  if (names.length > REGIONS_MAX) throw new RangeError(tooManyRegions(names.length));
  return makeMap(names, map.countryRegion);
}

function badRegionName(name: unknown): string {
  return `region ${JSON.stringify(name)}: a name is 1 to 16 characters of a-z, 0-9 and "-"`;
}

function tooManyRegions(count: number): string {
  return `Cannot have ${count} regions: at most ${REGIONS_MAX} are allowed`;
}

/** Adds home countries and centres to names and membership. */
function makeMap(names: readonly string[], countryRegion: Uint8Array): RegionMap {
  const homeCountry = new Uint16Array(names.length);
  const latitude = new Float64Array(names.length).fill(Number.NaN);
  const longitude = new Float64Array(names.length).fill(Number.NaN);
  for (let region = 0; region < names.length; region++) {
    // A home country that was moved to another region no longer stands for this one.
    const home = DEFAULT_REGION_HOMES[region] ?? 0;
    if (home !== 0 && countryRegion[home] === region) {
      homeCountry[region] = home;
      // Servers of a region stand where its home is: the middle of all its countries is often sea.
      latitude[region] = countryLatitude(home);
      longitude[region] = countryLongitude(home);
    } else {
      setMeanCentre(countryRegion, region, latitude, longitude);
    }
  }
  return { names, countryRegion, homeCountry, latitude, longitude };
}

/** The mean direction of the region's countries, seen from the earth's centre; none leaves NaN. */
function setMeanCentre(
  countryRegion: Uint8Array,
  region: number,
  latitude: Float64Array,
  longitude: Float64Array,
): void {
  let x = 0;
  let y = 0;
  let z = 0;
  for (let country = 1; country <= COUNTRIES_COUNT; country++) {
    if (countryRegion[country] !== region) continue;
    const lat = countryLatitude(country) * RADIANS;
    const lon = countryLongitude(country) * RADIANS;
    x += Math.cos(lat) * Math.cos(lon);
    y += Math.cos(lat) * Math.sin(lon);
    z += Math.sin(lat);
  }
  if (x === 0 && y === 0 && z === 0) return;
  latitude[region] = Math.atan2(z, Math.hypot(x, y)) / RADIANS;
  longitude[region] = Math.atan2(y, x) / RADIANS;
}
