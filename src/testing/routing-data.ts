// Builds routing data for tests and benches of route/: plain defaults, made-up geography.

import { COUNTRIES_MAX, REGIONS_MAX } from '../limits.ts';
import type { RoutingBackend, RoutingData } from '../route/snapshot.ts';

/** A small world: country index 1..6 with its region, and where it lies. Index 0 is no country. */
const COUNTRIES = [
  { region: 255, latitude: Number.NaN, longitude: Number.NaN },
  { region: 0, latitude: -10, longitude: -55 },
  { region: 0, latitude: -34, longitude: -64 },
  { region: 1, latitude: 38, longitude: -97 },
  { region: 2, latitude: 51, longitude: 9 },
  { region: 2, latitude: 40, longitude: -4 },
  { region: 255, latitude: 36, longitude: 138 },
];

/** Regions 0..3; nobody mapped a country to region 3, so it has no centre. */
const REGIONS = [
  { latitude: -15, longitude: -60 },
  { latitude: 40, longitude: -100 },
  { latitude: 50, longitude: 10 },
  { latitude: Number.NaN, longitude: Number.NaN },
];

export const WORLD_COUNTRIES = COUNTRIES.length;
export const WORLD_REGIONS = REGIONS.length;

export function testBackend(fields: Partial<RoutingBackend>): RoutingBackend {
  return {
    index: 0,
    incarnation: 1,
    app: 1,
    region: 0,
    country: 1,
    family: 4,
    address: [0, 0, 0, 0x7f00_0001],
    port: 9001,
    weight: 1,
    softLimit: 100,
    hardLimit: 0,
    enabled: true,
    draining: false,
    degraded: false,
    proxyProtocol: 0,
    ...fields,
  };
}

/** The small world with these backends; the POP stands in region 0, country 1. */
export function testRoutingData(
  backends: readonly RoutingBackend[],
  fields: Partial<RoutingData> = {},
): RoutingData {
  return {
    version: 1,
    popRegion: 0,
    popCountry: 1,
    countryRegion: Uint8Array.from(COUNTRIES, (country) => country.region),
    countryCoordinates: Float32Array.from(
      COUNTRIES.flatMap(({ latitude, longitude }) => [latitude, longitude]),
    ),
    regionCoordinates: Float32Array.from(
      REGIONS.flatMap(({ latitude, longitude }) => [latitude, longitude]),
    ),
    backends,
    ...fields,
  };
}

/** A full world: 250 countries spread over six regions, `count` backends spread over them. */
export function largeRoutingData(count: number, apps: number): RoutingData {
  const countries = 250;
  const regions = 6;
  const countryRegion = new Uint8Array(COUNTRIES_MAX).fill(255);
  const countryCoordinates = new Float32Array(COUNTRIES_MAX * 2).fill(Number.NaN);
  const regionCoordinates = new Float32Array(REGIONS_MAX * 2).fill(Number.NaN);
  for (let country = 1; country <= countries; country++) {
    countryRegion[country] = country % regions;
    countryCoordinates[country * 2] = ((country * 37) % 170) - 85;
    countryCoordinates[country * 2 + 1] = ((country * 91) % 360) - 180;
  }
  for (let region = 0; region < regions; region++) {
    regionCoordinates[region * 2] = region * 20 - 50;
    regionCoordinates[region * 2 + 1] = region * 55 - 150;
  }
  const backends = Array.from({ length: count }, (_, index) => {
    const country = 1 + ((index * 7) % countries);
    return testBackend({
      index,
      app: 1 + (index % apps),
      region: country % regions,
      country,
      address: [0, 0, 0, 0x0a00_0000 + index],
      weight: 1 + (index % 4),
      hardLimit: 1000,
    });
  });
  return testRoutingData(backends, { countryRegion, countryCoordinates, regionCoordinates });
}
