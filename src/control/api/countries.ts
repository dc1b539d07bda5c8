// GET /api/countries and /api/regions: sessions on a map, and the map itself.

import type * as v from 'valibot';
import { COUNTRIES_MAX } from '../../limits.ts';
import { STAT_COUNTRY_ENDED, STAT_COUNTRY_OPENED } from '../../proxy/stats.ts';
import { COUNTRIES_COUNT, countryCode, type RegionMap } from '../../route/regions.ts';
import { FLAG_PRESENT } from '../../route/snapshot.ts';
import { countryPlace, regionPlace } from './places.ts';
import { perSecond, rounded, sumTotals } from './rates.ts';
import type * as schemas from './response-schemas.ts';
import type { Answer } from './router.ts';
import type { Api } from './server.ts';
import { popOf } from './status.ts';

type Countries = v.InferOutput<typeof schemas.countries>;
type Regions = v.InferOutput<typeof schemas.regions>;

function regionOf(map: RegionMap, country: number): string | null {
  return map.names[map.countryRegion[country] ?? -1] ?? null;
}

/** Countries that had a session since the start, the busiest first. */
export function getCountries({ api }: { readonly api: Api }): Answer {
  const totals = sumTotals(api.sources.pool);
  const recent = api.rates.totals(totals);
  const map = api.sources.publisher.regionMap;
  const countries: Countries['countries'] = [];
  for (let country = 0; country < COUNTRIES_MAX; country++) {
    const opened = totals[STAT_COUNTRY_OPENED + country] as number;
    if (opened === 0) continue;
    countries.push({
      country: countryCode(country) || null,
      region: regionOf(map, country),
      ...countryPlace(country),
      // Read while workers count on: an end may be seen before its beginning.
      sessions: Math.max(0, opened - (totals[STAT_COUNTRY_ENDED + country] as number)),
      connections: opened,
      connections_per_second: perSecond(
        recent.values[STAT_COUNTRY_OPENED + country] as number,
        recent.ms,
      ),
    });
  }
  countries.sort((a, b) => b.sessions - a.sessions || b.connections - a.connections);
  const body: Countries = { window_seconds: rounded(recent.ms / 1000), countries };
  return { status: 200, body };
}

/** Backends and their sessions by region index. */
function regionLoads({ snapshot, sources }: Api, regions: number) {
  const loads = Array.from({ length: regions }, () => ({ backends: 0, sessions: 0 }));
  for (let index = 0; index < (snapshot?.backendEnd ?? 0); index++) {
    if (snapshot === null || ((snapshot.flags[index] as number) & FLAG_PRESENT) === 0) continue;
    const load = loads[snapshot.region[index] as number];
    if (load === undefined) continue;
    load.backends++;
    load.sessions += Atomics.load(sources.backendState.active, index);
  }
  return loads;
}

export function getRegions({ api }: { readonly api: Api }): Answer {
  const map = api.sources.publisher.regionMap;
  const countries: string[][] = map.names.map(() => []);
  for (let country = 1; country <= COUNTRIES_COUNT; country++) {
    countries[map.countryRegion[country] as number]?.push(countryCode(country));
  }
  const loads = regionLoads(api, map.names.length);
  const body: Regions = {
    pop: popOf(api),
    regions: map.names.map((name, region) => ({
      name,
      home_country: countryCode(map.homeCountry[region] ?? 0) || null,
      ...regionPlace(map, region),
      countries: countries[region] ?? [],
      backends: loads[region]?.backends ?? 0,
      sessions: loads[region]?.sessions ?? 0,
    })),
  };
  return { status: 200, body };
}
