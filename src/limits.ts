// Every fixed bound of the program that is not a setting, each with its reason.
// A bound that users may change is a setting and lives in config.ts.

/** A backend index, and index + 1, fit 16 bits: so 0 can mean "no backend" in a binding. */
export const BACKENDS_MAX = 65_535;

/** An app serves at least one backend, so there are never more useful apps; index 0 is `*`. */
export const APPS_MAX = BACKENDS_MAX;

/** Ten times the default map; keeps a (region, country) pair in 14 bits. */
export const REGIONS_MAX = 64;

/** 249 ISO countries, XK and index 0 (no country) fill 251 of the 256 values of one byte. */
export const COUNTRIES_MAX = 256;

/** Largest tier that is scanned whole: 64 candidates cost about half a microsecond. */
export const TIER_SCAN_MAX = 64;

/** Random pairs tried in a larger tier before it is walked: half full, one in 65,536 walks. */
export const TWO_CHOICE_ROUNDS_MAX = 8;

/** Scans of a tier that may lose the race for a last place, before any free place is taken. */
export const TIER_RACES_MAX = 4;

/** Tier plans kept per worker: every country of 32 busy apps; when full the cache starts again. */
export const TIER_PLANS_MAX = 8_192;

/** 32-bit words for all tier plans of a worker (2 MiB if used): a common plan takes about 40. */
export const TIER_PLAN_WORDS_MAX = 524_288;

/** Largest client table: 64 bytes a row keep it below 4 GiB, within one SharedArrayBuffer. */
export const CLIENT_TABLE_ROWS_MAX = 50_000_000;

/** Looks at a taken lock before sleeping: over a microsecond, longer than any owner needs. */
export const CLIENT_LOCK_SPINS_MAX = 200;

/** Rows of the access list: a reload of as many takes seconds of the main thread and 64 MB. */
export const ACCESS_ROWS_MAX = 1_000_000;

/** Prefixes of trusted proxies: each accepted connection is compared with all of them, at most a microsecond. */
export const TRUSTED_PROXIES_MAX = 1_000;

/** Peers of the mesh: every change and every look of a second handles all of them. */
export const PEERS_MAX = 10_000;
