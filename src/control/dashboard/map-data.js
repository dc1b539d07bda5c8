// What the map shows: clients by country, and backends by place. Above a bound of backends it is regions, each with how many
// there are and how many of these take no new clients.

import { ask } from './api.js';

/** More are not drawn one by one, nor read. */
export const BACKENDS_MAX = 500;

/**
 * @typedef {object} Place
 * @property {string} name
 * @property {number} latitude
 * @property {number} longitude
 * @property {number} sessions
 * @property {number} total
 * @property {number} out
 * @property {readonly Api.Backend[]} backends empty where there are too many
 */

/**
 * @typedef {object} MapData
 * @property {number} total
 * @property {number} out
 * @property {boolean} isComplete false: `out` and the places' are lower bounds
 * @property {readonly Place[]} places
 */

/** @param {readonly Api.Backend[]} backends @returns {Place[]} */
function placesOf(backends) {
  /** @type {Map<string, Api.Backend[]>} */
  const groups = new Map();
  for (const backend of backends) {
    if (backend.latitude === null || backend.longitude === null) continue;
    const key = `${backend.latitude} ${backend.longitude}`;
    const group = groups.get(key) ?? [];
    group.push(backend);
    groups.set(key, group);
  }
  return [...groups.values()].map((group) => {
    const [first] = /** @type {[Api.Backend]} */ (group);
    return {
      name: first.located_in ?? first.region,
      latitude: first.latitude ?? 0,
      longitude: first.longitude ?? 0,
      sessions: group.reduce((sum, { active }) => sum + active, 0),
      total: group.length,
      out: group.filter(({ excluded }) => excluded !== null).length,
      backends: group,
    };
  });
}

/** @returns {Promise<MapData>} */
async function readRegions() {
  const [{ regions }, out] = await Promise.all([
    /** @type {Promise<Api.Regions>} */ (ask('/api/regions')),
    /** @type {Promise<Api.BackendList>} */ (
      ask(`/api/backends?excluded=true&limit=${BACKENDS_MAX}`)
    ),
  ]);
  const known = regions.filter(
    ({ backends, latitude, longitude }) => backends > 0 && latitude !== null && longitude !== null,
  );
  return {
    total: regions.reduce((sum, { backends }) => sum + backends, 0),
    out: out.total,
    isComplete: out.total <= out.backends.length,
    places: known.map((region) => ({
      name: region.name,
      latitude: region.latitude ?? 0,
      longitude: region.longitude ?? 0,
      sessions: region.sessions,
      total: region.backends,
      out: out.backends.filter((backend) => backend.region === region.name).length,
      backends: [],
    })),
  };
}

/**
 * @param {number} total how many backends there are
 * @param {Api.BackendList | null} page what has been read for the table
 * @returns {Promise<MapData>}
 */
export async function readMap(total, page) {
  if (total > BACKENDS_MAX) return readRegions();
  const list =
    page !== null && page.backends.length === total
      ? page
      : /** @type {Api.BackendList} */ (await ask(`/api/backends?limit=${BACKENDS_MAX}`));
  return {
    total: list.total,
    out: list.backends.filter(({ excluded }) => excluded !== null).length,
    isComplete: true,
    places: placesOf(list.backends),
  };
}
