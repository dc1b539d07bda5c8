// The process that times selection and country look-up: prints its figures as JSON. The calls' results go into a hash, so
// that nothing can be optimised away.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createBackendState, openBackendState } from '../../src/route/backend-state.ts';
import { benchLookups } from '../../src/route/geo-table.bench.ts';
import { openGeoTable } from '../../src/route/geo-table.ts';
import { parseMmdb } from '../../src/route/mmdb.ts';
import {
  createSelector,
  releaseBackend,
  reserveBackend,
  type Selector,
  useSnapshot,
} from '../../src/route/select.ts';
import { encodeSnapshot, openSnapshot } from '../../src/route/snapshot.ts';
import { largeRoutingData } from '../../src/testing/routing-data.ts';

export interface LookupFigure {
  readonly name: string;
  readonly values: Readonly<Record<string, number>>;
}

const COUNTRIES = 250;
const NOBODY = new Int32Array(0);
const COUNTRY_DATA = '@ip-location-db/geolite2-country-mmdb/geolite2-country.mmdb';
/** The cases of the budget: random addresses that have a country. */
const LOOKUPS = ['IPv4 allocated', 'IPv6 allocated'];

function select(selector: Selector, calls: number): number {
  let hash = 0;
  for (let call = 0; call < calls; call++) {
    const backend = reserveBackend(selector, 1, call % (COUNTRIES + 1), NOBODY, 0);
    releaseBackend(selector.state, backend);
    hash = (Math.imul(hash, 31) + backend) | 0;
  }
  return hash >>> 0;
}

function selectionFigure(backends: number, calls: number): LookupFigure {
  const selector = createSelector(openBackendState(createBackendState()), 1);
  useSnapshot(selector, openSnapshot(encodeSnapshot(largeRoutingData(backends, 1))));
  select(selector, 200_000);
  const startedAt = performance.now();
  const hash = select(selector, calls);
  const ns = ((performance.now() - startedAt) * 1e6) / calls;
  return { name: `selection, ${backends.toLocaleString('en-US')} backends`, values: { ns, hash } };
}

function lookupFigures(calls: number): LookupFigure[] {
  const buffer = parseMmdb(readFileSync(fileURLToPath(import.meta.resolve(COUNTRY_DATA))));
  const table = openGeoTable(buffer);
  return benchLookups(table, table.header[2] as number, calls)
    .filter(({ name }) => LOOKUPS.includes(name))
    .map(({ name, nsPerLookup, hash }) => ({
      name: `country, ${name.slice(0, 4)}`,
      values: { ns: nsPerLookup, hash, bytes: buffer.byteLength },
    }));
}

const calls = Number(process.argv[2]);
const figures = [
  selectionFigure(100, calls),
  selectionFigure(10_000, calls),
  ...lookupFigures(calls),
];
process.stdout.write(JSON.stringify(figures));
