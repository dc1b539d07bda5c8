// GET /api/backends and /api/backends/{id}: pages of the rows in use, each with how it fares.

import type * as v from 'valibot';
import { nearestNames } from '../../base/nearest.ts';
import { countryCode, countryIndex } from '../../route/regions.ts';
import type { RawBackend } from '../routing-rows.ts';
import { exclusion, viewBackend, viewContext } from './backend-view.ts';
import { ApiProblem } from './problem.ts';
import type { listQuery } from './request-schemas.ts';
import type { Answer, ApiRequest } from './router.ts';
import type { Api } from './server.ts';

type Query = v.InferOutput<typeof listQuery>;

function locatedIn(api: Api, row: RawBackend): string {
  if (row.country !== null) return row.country;
  const { names, homeCountry } = api.sources.publisher.regionMap;
  return countryCode(homeCountry[names.indexOf(row.region)] ?? 0);
}

function matches(api: Api, query: Query, row: RawBackend): boolean {
  const { app, region, country, match, excluded } = query;
  if (app !== undefined && row.app !== app) return false;
  if (region !== undefined && row.region !== region) return false;
  if (country !== undefined && locatedIn(api, row) !== country.toUpperCase()) return false;
  if (match !== undefined && !row.id.toLowerCase().includes(match.toLowerCase())) return false;
  return excluded === undefined || (exclusion(api, row) !== null) === excluded;
}

export function listBackends({ api, query }: ApiRequest<Query, undefined>): Answer {
  if (query.country !== undefined && countryIndex(query.country) === 0) {
    const errors = [
      { field: 'country', value: query.country, allowed: 'an ISO 3166-1 alpha-2 country code' },
    ];
    throw new ApiProblem('invalid-query', `No country has the code "${query.country}"`, { errors });
  }
  const { limit, offset } = query;
  const { publisher } = api.sources;
  const rows = publisher.rows.filter((row) => matches(api, query, row));
  const context = viewContext(api);
  return {
    status: 200,
    body: {
      total: rows.length,
      limit,
      offset,
      routing_version: publisher.version,
      backends: rows.slice(offset, offset + limit).map((row) => viewBackend(context, row)),
    },
  };
}

/** The problem of an id that `known` does not have, with those it could have been. */
export function unknownBackend(id: string, known: Iterable<string>): ApiProblem {
  const near = nearestNames(id, known);
  const hint = near.length > 0 ? `similar ids are ${near.join(', ')}` : 'no id is similar';
  return new ApiProblem('backend-unknown', `Unknown backend "${id}": ${hint}`);
}

export function getBackend({ api, params }: ApiRequest<unknown, undefined>): Answer {
  const { rows } = api.sources.publisher;
  const id = params.id as string;
  const row = rows.find((candidate) => candidate.id === id);
  if (row === undefined)
    throw unknownBackend(
      id,
      rows.map((other) => other.id),
    );
  return { status: 200, body: viewBackend(viewContext(api), row) };
}
