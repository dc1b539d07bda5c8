// Where things are on a map: centres of countries and regions, degrees rounded as the tables have them, null where unknown.

import { countryLatitude, countryLongitude, type RegionMap } from '../../route/regions.ts';

interface Place {
  readonly latitude: number | null;
  readonly longitude: number | null;
}

function place(latitude: number | undefined, longitude: number | undefined): Place {
  const degrees = (value = Number.NaN): number | null =>
    Number.isNaN(value) ? null : Number(value.toFixed(2));
  return { latitude: degrees(latitude), longitude: degrees(longitude) };
}

export function countryPlace(country: number): Place {
  return place(countryLatitude(country), countryLongitude(country));
}

export function regionPlace({ latitude, longitude }: RegionMap, region: number): Place {
  return place(latitude[region], longitude[region]);
}

/** The country's centre, else the region's. */
export function placeOf(map: RegionMap, country: number, region: number): Place {
  const own = countryPlace(country);
  return own.latitude === null ? regionPlace(map, region) : own;
}
