// The routing snapshot: all routing data as arrays over one shared buffer, written once by the
// control plane (encodeSnapshot) and never changed after; workers only read it (openSnapshot).
// Arrays run by backend index (holes have flags 0). For selection the backends that may take new
// clients are listed a second time, contiguous by group:
//
//   appGroupStart[app] ─► groups: (region, country, degraded) ─► groupStart[group] ─► members: backend index
//
// App 0 (`*`) lists all of them, the named apps follow. No names in here: control keeps those.

import { APPS_MAX, BACKENDS_MAX, COUNTRIES_MAX, REGIONS_MAX } from '../limits.ts';

/** The index is in use; without it the other fields mean nothing. */
export const FLAG_PRESENT = 1;
/** Healthy and not deleted in the routing data. */
export const FLAG_ENABLED = 2;
/** Takes no new session; open ones stay. */
export const FLAG_DRAINING = 4;
/** The path to it is bad: new clients find it one tier further back, bound ones as before. */
export const FLAG_DEGRADED = 8;

/** Backends of one region and country are one group, those that are degraded another. */
export const GROUPS_PER_APP_MAX = REGIONS_MAX * COUNTRIES_MAX * 2;

const LIMIT_MAX = 0x7fff_ffff;
const REGION_NONE = 255;
/** Float64: version, popRegion, popCountry, backendEnd, appEnd, groupCount, memberCount, 0. */
const HEADER_WORDS = 8;

export interface RoutingBackend {
  /** 0..BACKENDS_MAX - 1, stable while the backend's id lives. */
  readonly index: number;
  /** 0..65535, changes when the index goes to another id. */
  readonly incarnation: number;
  /** App index, 1 or more. */
  readonly app: number;
  readonly region: number;
  /** Country index, 0 = none. */
  readonly country: number;
  readonly family: 4 | 6;
  /** Four uint32 words, host byte order, most significant first; IPv4 is words 0, 0, 0, address. */
  readonly address: ArrayLike<number>;
  readonly port: number;
  /** 0 takes no new clients. */
  readonly weight: number;
  /** 0 counts as 1. */
  readonly softLimit: number;
  /** 0 = no limit. */
  readonly hardLimit: number;
  readonly enabled: boolean;
  readonly draining: boolean;
  /** See FLAG_DEGRADED. */
  readonly degraded: boolean;
  /** Version of the PROXY header it gets before anything else; 0 = none. */
  readonly proxyProtocol: number;
}

export interface RoutingData {
  readonly version: number;
  readonly popRegion: number;
  /** 0 = none. */
  readonly popCountry: number;
  /** Region index by country index, 255 = none. */
  readonly countryRegion: Uint8Array;
  /** Latitude and longitude in degrees, in pairs, by country index; NaN = unknown. */
  readonly countryCoordinates: Float32Array;
  /** Latitude and longitude of region centres, in pairs, by region index; NaN = no centre. */
  readonly regionCoordinates: Float32Array;
  readonly backends: readonly RoutingBackend[];
}

/** Views over the buffer, widest elements first so that every one of them is aligned. */
export class Snapshot {
  readonly buffer: SharedArrayBuffer;
  readonly version: number;
  readonly popRegion: number;
  readonly popCountry: number;
  /** One above the highest backend index: the length of the arrays by backend index. */
  readonly backendEnd: number;
  /** One above the highest app index that has a backend; at least 1. */
  readonly appEnd: number;

  readonly weight: Float64Array;
  /** Four words per backend: see RoutingBackend.address. */
  readonly addressWords: Uint32Array;
  readonly softLimit: Int32Array;
  readonly hardLimit: Int32Array;
  readonly incarnation: Uint16Array;
  readonly app: Uint16Array;
  readonly country: Uint16Array;
  readonly port: Uint16Array;
  readonly region: Uint8Array;
  readonly family: Uint8Array;
  readonly flags: Uint8Array;
  readonly proxyProtocol: Uint8Array;

  /** First group of an app; the next element ends it (appEnd + 1 elements). */
  readonly appGroupStart: Int32Array;
  /** First member of a group; the next element ends it. */
  readonly groupStart: Int32Array;
  readonly groupCountry: Uint16Array;
  readonly groupRegion: Uint8Array;
  /** 1: its members are one tier further back than their place says. */
  readonly groupDegraded: Uint8Array;
  /** Backend indexes that may take new clients: enabled, not draining, weight above 0. */
  readonly members: Uint16Array;

  readonly countryRegion: Uint8Array;
  readonly countryCoordinates: Float32Array;
  readonly regionCoordinates: Float32Array;

  constructor(buffer: SharedArrayBuffer) {
    const header = new Float64Array(buffer, 0, HEADER_WORDS);
    this.buffer = buffer;
    this.version = header[0];
    this.popRegion = header[1];
    this.popCountry = header[2];
    this.backendEnd = header[3];
    this.appEnd = header[4];
    const end = header[3];
    const groups = header[5];
    const members = header[6];

    let at = header.byteLength;
    const next = (bytes: number): number => {
      const offset = at;
      at += bytes;
      return offset;
    };
    this.weight = new Float64Array(buffer, next(end * 8), end);
    this.addressWords = new Uint32Array(buffer, next(end * 16), end * 4);
    this.softLimit = new Int32Array(buffer, next(end * 4), end);
    this.hardLimit = new Int32Array(buffer, next(end * 4), end);
    this.appGroupStart = new Int32Array(buffer, next((this.appEnd + 1) * 4), this.appEnd + 1);
    this.groupStart = new Int32Array(buffer, next((groups + 1) * 4), groups + 1);
    const countryWords = COUNTRIES_MAX * 2;
    this.countryCoordinates = new Float32Array(buffer, next(countryWords * 4), countryWords);
    const regionWords = REGIONS_MAX * 2;
    this.regionCoordinates = new Float32Array(buffer, next(regionWords * 4), regionWords);
    this.incarnation = new Uint16Array(buffer, next(end * 2), end);
    this.app = new Uint16Array(buffer, next(end * 2), end);
    this.country = new Uint16Array(buffer, next(end * 2), end);
    this.port = new Uint16Array(buffer, next(end * 2), end);
    this.groupCountry = new Uint16Array(buffer, next(groups * 2), groups);
    this.members = new Uint16Array(buffer, next(members * 2), members);
    this.region = new Uint8Array(buffer, next(end), end);
    this.family = new Uint8Array(buffer, next(end), end);
    this.flags = new Uint8Array(buffer, next(end), end);
    this.proxyProtocol = new Uint8Array(buffer, next(end), end);
    this.groupRegion = new Uint8Array(buffer, next(groups), groups);
    this.groupDegraded = new Uint8Array(buffer, next(groups), groups);
    this.countryRegion = new Uint8Array(buffer, next(COUNTRIES_MAX), COUNTRIES_MAX);
  }
}

export function openSnapshot(buffer: SharedArrayBuffer): Snapshot {
  return new Snapshot(buffer);
}

/** Throws a RangeError when a number does not fit its field: the caller validates rows before. */
export function encodeSnapshot(data: RoutingData): SharedArrayBuffer {
  let backendEnd = 0;
  let appEnd = 1;
  for (const backend of data.backends) {
    checkBackend(backend);
    if (backend.index >= backendEnd) backendEnd = backend.index + 1;
    if (backend.app >= appEnd) appEnd = backend.app + 1;
  }
  checkRange('POP region', data.popRegion, 0, REGIONS_MAX - 1);
  checkRange('POP country', data.popCountry, 0, COUNTRIES_MAX - 1);
  checkRange('country count', data.countryRegion.length, 0, COUNTRIES_MAX);
  checkRange('country coordinates', data.countryCoordinates.length, 0, COUNTRIES_MAX * 2);
  checkRange('region coordinates', data.regionCoordinates.length, 0, REGIONS_MAX * 2);

  const keys = memberKeys(data.backends);
  const groupCount = countGroups(keys);
  const bytes =
    HEADER_WORDS * 8 +
    backendEnd * (8 + 16 + 4 + 4 + 2 * 4 + 4) +
    (appEnd + 1) * 4 +
    (groupCount + 1) * 4 +
    groupCount * 4 +
    keys.length * 2 +
    COUNTRIES_MAX * (8 + 1) +
    REGIONS_MAX * 8;
  const buffer = new SharedArrayBuffer(bytes);
  const { version, popRegion, popCountry } = data;
  new Float64Array(buffer, 0, HEADER_WORDS).set([
    version,
    popRegion,
    popCountry,
    backendEnd,
    appEnd,
    groupCount,
    keys.length,
  ]);
  const snapshot = new Snapshot(buffer);
  for (const backend of data.backends) writeBackend(snapshot, backend);
  writeGroups(snapshot, keys);
  snapshot.countryRegion.fill(REGION_NONE);
  snapshot.countryRegion.set(data.countryRegion);
  snapshot.countryCoordinates.fill(Number.NaN);
  snapshot.countryCoordinates.set(data.countryCoordinates);
  snapshot.regionCoordinates.fill(Number.NaN);
  snapshot.regionCoordinates.set(data.regionCoordinates);
  return buffer;
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new RangeError(`Cannot encode ${name} ${value}: must be a whole number, ${min} to ${max}`);
}

function checkBackend(backend: RoutingBackend): void {
  checkRange('backend index', backend.index, 0, BACKENDS_MAX - 1);
  checkRange('backend incarnation', backend.incarnation, 0, 0xffff);
  checkRange('backend app', backend.app, 1, APPS_MAX - 1);
  checkRange('backend region', backend.region, 0, REGIONS_MAX - 1);
  checkRange('backend country', backend.country, 0, COUNTRIES_MAX - 1);
  checkRange('backend port', backend.port, 0, 0xffff);
  checkRange('backend PROXY protocol', backend.proxyProtocol, 0, 2);
  checkRange('backend soft limit', backend.softLimit, 0, Number.MAX_SAFE_INTEGER);
  checkRange('backend hard limit', backend.hardLimit, 0, Number.MAX_SAFE_INTEGER);
  if (!(backend.weight >= 0)) {
    throw new RangeError(`Cannot encode backend weight ${backend.weight}: must be 0 or more`);
  }
}

function writeBackend(snapshot: Snapshot, backend: RoutingBackend): void {
  const { index } = backend;
  if (snapshot.flags[index] !== 0) {
    throw new RangeError(`Cannot encode backend index ${index} twice: must be unique`);
  }
  snapshot.flags[index] =
    FLAG_PRESENT |
    (backend.enabled ? FLAG_ENABLED : 0) |
    (backend.draining ? FLAG_DRAINING : 0) |
    (backend.degraded ? FLAG_DEGRADED : 0);
  snapshot.incarnation[index] = backend.incarnation;
  snapshot.app[index] = backend.app;
  snapshot.region[index] = backend.region;
  snapshot.country[index] = backend.country;
  snapshot.family[index] = backend.family;
  for (let word = 0; word < 4; word++) {
    snapshot.addressWords[index * 4 + word] = backend.address[word];
  }
  snapshot.port[index] = backend.port;
  snapshot.proxyProtocol[index] = backend.proxyProtocol;
  snapshot.weight[index] = backend.weight;
  // A limit above 31 bits can never be reached: more sessions than memory holds.
  snapshot.softLimit[index] = Math.min(backend.softLimit, LIMIT_MAX);
  snapshot.hardLimit[index] = Math.min(backend.hardLimit, LIMIT_MAX);
}

/**
 * Every selectable backend twice, under `*` and under its app, as one sortable number:
 * app (16 bits), region (6), country (8), degraded (1), backend index (16): 47 bits, exact in a double.
 */
function memberKeys(backends: readonly RoutingBackend[]): Float64Array {
  const keys = new Float64Array(backends.length * 2);
  let count = 0;
  for (const backend of backends) {
    if (!backend.enabled || backend.draining || backend.weight === 0) continue;
    const place = backend.region * COUNTRIES_MAX + backend.country;
    const group = place * 2 + Number(backend.degraded);
    keys[count++] = memberKey(0, group, backend.index);
    keys[count++] = memberKey(backend.app, group, backend.index);
  }
  return keys.subarray(0, count).sort();
}

function memberKey(app: number, group: number, index: number): number {
  return (app * GROUPS_PER_APP_MAX + group) * 0x1_0000 + index;
}

function countGroups(keys: Float64Array): number {
  let count = 0;
  let last = -1;
  for (const key of keys) {
    const group = Math.floor(key / 0x1_0000);
    if (group !== last) count++;
    last = group;
  }
  return count;
}

function writeGroups(snapshot: Snapshot, keys: Float64Array): void {
  const { appGroupStart, groupStart } = snapshot;
  let groups = 0;
  let apps = 0;
  let last = -1;
  for (let at = 0; at < keys.length; at++) {
    const group = Math.floor(keys[at] / 0x1_0000);
    snapshot.members[at] = keys[at] % 0x1_0000;
    if (group === last) continue;
    last = group;
    const app = Math.floor(group / GROUPS_PER_APP_MAX);
    while (apps <= app) appGroupStart[apps++] = groups;
    groupStart[groups] = at;
    const place = Math.floor(group / 2);
    snapshot.groupDegraded[groups] = group % 2;
    snapshot.groupCountry[groups] = place % COUNTRIES_MAX;
    snapshot.groupRegion[groups] = Math.floor(place / COUNTRIES_MAX) % REGIONS_MAX;
    groups++;
  }
  groupStart[groups] = keys.length;
  while (apps < appGroupStart.length) appGroupStart[apps++] = groups;
}
