// The kinds of value a setting can have, as valibot schemas from what a flag, an environment
// variable (text) or a TOML file (text, number, boolean, array) can say to what the program uses.
// Only `config.ts` calls this. A schema adds its own message where "what is allowed" alone would
// not tell the user what is wrong.

import * as v from 'valibot';
import { APP_PATTERN, HTTP_PATH_PATTERN, REGION_PATTERN, TOKEN_PATTERN } from './base/names.ts';
import { TRUSTED_PROXIES_MAX } from './limits.ts';
import { formatEndpoint, parseEndpoint } from './mesh/peer.ts';
import { countryIndex } from './route/regions.ts';
import { type Prefix, parsePrefix } from './sys/prefix.ts';
import { formatAddress, parseAddress } from './sys/sockaddr.ts';

/** One address to accept on. `app` `*` serves any app; `host` is a literal in its shortest form. */
export interface ListenAddress {
  readonly app: string;
  readonly host: string;
  readonly port: number;
  readonly family: 4 | 6;
}

const numeric = v.union([
  v.number(),
  v.pipe(
    v.string(),
    v.trim(),
    v.regex(/^[0-9]+(\.[0-9]+)?$/),
    v.transform((text) => Number(text)),
  ),
]);

/** Any number in the range; fractions are allowed. */
export const decimal = (min: number, max: number) =>
  v.pipe(numeric, v.finite(), v.minValue(min), v.maxValue(max));

export const integer = (min: number, max: number) => v.pipe(decimal(min, max), v.integer());

/** A whole number, or `auto` (null: the program decides at start). */
export const integerOrAuto = (min: number, max: number) =>
  v.union([
    v.pipe(
      v.string(),
      v.trim(),
      v.toLowerCase(),
      v.literal('auto'),
      v.transform(() => null),
    ),
    integer(min, max),
  ]);

const SWITCH: Record<string, boolean> = {
  true: true,
  on: true,
  yes: true,
  1: true,
  false: false,
  off: false,
  no: false,
  0: false,
};

export const boolean = v.union([
  v.boolean(),
  v.pipe(
    v.string(),
    v.trim(),
    v.toLowerCase(),
    v.check((text) => Object.hasOwn(SWITCH, text)),
    v.transform((text) => SWITCH[text] as boolean),
  ),
]);

/** `DEBUG` belongs to many programs and may hold anything: all but an explicit "no" turns it on. */
export const presence = v.union([
  v.boolean(),
  v.pipe(
    v.string(),
    v.transform((text) => SWITCH[text.trim().toLowerCase()] ?? true),
  ),
]);

export const path = v.pipe(
  v.string(),
  v.nonEmpty(),
  v.check((text) => !text.includes('\0')),
);

/** IFNAMSIZ is 16 with the ending zero; no `.`, which sysctl would take for a level. */
export const interfaceName = v.pipe(v.string(), v.trim(), v.regex(/^[a-z][a-z0-9_-]{0,14}$/i));

/** `host:port` with an address or a name, or `none`. */
export const meshEndpoint = v.pipe(
  v.string(),
  v.rawTransform<string, string | null>(({ dataset, addIssue, NEVER }) => {
    if (dataset.value.trim().toLowerCase() === 'none') return null;
    const parsed = parseEndpoint(dataset.value);
    if (typeof parsed !== 'string') return formatEndpoint(parsed);
    addIssue({ message: `host:port, IPv6 as [::1]:51820; it ${parsed}` });
    return NEVER;
  }),
);

/** A user and maybe a group; whether they exist is seen at start. */
export const account = v.pipe(
  v.string(),
  v.trim(),
  v.regex(/^[a-z0-9_][a-z0-9_.@-]*\$?(:[a-z0-9_][a-z0-9_.@-]*\$?)?$/i),
);

export const httpPath = v.pipe(v.string(), v.trim(), v.regex(HTTP_PATH_PATTERN));

export const region = v.pipe(v.string(), v.trim(), v.toLowerCase(), v.regex(REGION_PATTERN));

export const country = v.pipe(
  v.string(),
  v.trim(),
  v.toUpperCase(),
  v.check((code) => countryIndex(code) !== 0),
);

export const choice = <const T extends readonly string[]>(names: T) =>
  v.pipe(v.string(), v.trim(), v.toLowerCase(), v.picklist(names));

/** `host:port` as a literal address; a reason (text) when it is not one. */
function parseHostPort(text: string): Omit<ListenAddress, 'app'> | string {
  const match = /^(?:\[([^\]]*)\]|([^:]+)):([0-9]{1,5})$/.exec(text);
  if (!match) {
    if (/^[0-9]+$/.test(text)) return `"${text}" has no host: write 0.0.0.0:${text}`;
    if (/^:[0-9]+$/.test(text)) return `"${text}" has no host: write 0.0.0.0${text}`;
    if (parseAddress(text)?.family === 6) return `"${text}" has no port: write [${text}]:8080`;
    return `"${text}" is not host:port`;
  }
  const bracketed = match[1];
  const host = bracketed ?? (match[2] as string);
  const port = Number(match[3]);
  if (port > 65_535) return `port ${match[3]} is above 65535`;
  const address = parseAddress(host.toLowerCase() === 'localhost' ? '127.0.0.1' : host);
  if (address === null) {
    return `host "${host}" is neither an IP address (IPv6 in brackets) nor localhost`;
  }
  if ((address.family === 6) !== (bracketed !== undefined)) {
    return `"${text}" has brackets around what is not an IPv6 address`;
  }
  return { host: formatAddress(address.family, address.words), port, family: address.family };
}

const hostPort = v.pipe(
  v.string(),
  v.trim(),
  v.rawTransform<string, Omit<ListenAddress, 'app'>>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseHostPort(dataset.value);
    if (typeof parsed !== 'string') return parsed;
    addIssue({ message: `host:port with an IP address or localhost; ${parsed}` });
    return NEVER;
  }),
);

/** What RFC 6750 lets stand after `Bearer`, and no guess finds. */
export const token = v.pipe(v.string(), v.regex(TOKEN_PATTERN));

/** One `host:port`, or `off` (null). */
export const hostPortOrOff = v.lazy((input) =>
  typeof input === 'string' && input.trim().toLowerCase() === 'off'
    ? v.pipe(
        v.string(),
        v.transform(() => null),
      )
    : hostPort,
);

function parseListen(text: string): ListenAddress | string {
  const at = text.lastIndexOf('@');
  const app = at < 0 ? '*' : text.slice(0, at);
  if (app !== '*' && !APP_PATTERN.test(app)) return `"${app}" is not an app name`;
  const parsed = parseHostPort(text.slice(at + 1));
  return typeof parsed === 'string' ? parsed : { app, ...parsed };
}

/** Text with commas, or a TOML array. */
const textList = v.union([
  v.pipe(
    v.string(),
    v.transform((text) => text.split(',')),
  ),
  v.array(v.string()),
]);

/** Addresses and prefixes of addresses, or `none`. */
export const prefixList = v.pipe(
  textList,
  v.transform((entries) => {
    const isNone = entries.length === 1 && entries[0]?.trim().toLowerCase() === 'none';
    return isNone ? [] : entries;
  }),
  v.rawTransform<string[], readonly Prefix[]>(({ dataset, addIssue, NEVER }) => {
    const refuse = (reason: string): never => {
      addIssue({ message: `addresses and prefixes as in 10.0.0.0/8, comma separated; ${reason}` });
      return NEVER;
    };
    const prefixes: Prefix[] = [];
    for (const entry of dataset.value) {
      const parsed = parsePrefix(entry.trim());
      if (typeof parsed === 'string') return refuse(`"${entry.trim()}" ${parsed}`);
      prefixes.push(Object.freeze(parsed));
    }
    if (prefixes.length > TRUSTED_PROXIES_MAX) {
      return refuse(`${prefixes.length} are more than ${TRUSTED_PROXIES_MAX}`);
    }
    return Object.freeze(prefixes);
  }),
);

/**
 * `[app@]host:port`, comma separated or a TOML array; the same address twice is a mistake, port 0
 * aside.
 */
export const listenList = v.pipe(
  textList,
  v.rawTransform<string[], readonly ListenAddress[]>(({ dataset, addIssue, NEVER }) => {
    const listen: ListenAddress[] = [];
    const seen = new Set<string>();
    const refuse = (reason: string): never => {
      addIssue({ message: `[app@]host:port, comma separated; ${reason}` });
      return NEVER;
    };
    for (const entry of dataset.value) {
      const parsed = parseListen(entry.trim());
      if (typeof parsed === 'string') return refuse(parsed);
      const address = `${parsed.host} ${parsed.port}`;
      if (parsed.port !== 0 && seen.has(address)) return refuse(`"${entry.trim()}" is there twice`);
      seen.add(address);
      listen.push(Object.freeze(parsed));
    }
    return listen.length === 0 ? refuse('the list is empty') : Object.freeze(listen);
  }),
);
