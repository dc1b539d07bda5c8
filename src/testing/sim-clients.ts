// Who the simulated clients are: their addresses, IPv4 and IPv6, the countries these are in, and the proxies some of them
// come through.

import { parseMmdb } from '../route/mmdb.ts';
import { formatAddress } from '../sys/sockaddr.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { writeMmdb } from './mmdb-writer.ts';
import { COUNTRIES } from './sim-options.ts';

/** The country table of a run. */
export const GEO = parseMmdb(
  writeMmdb(
    COUNTRIES.map((code, at) => ({
      cidr: `20.${at}.0.0/16`,
      value: { country: { iso_code: code } },
    })),
    { metadata: { database_type: 'Simulated-Country' } },
  ),
);
/** A second byte that no country has. */
const COUNTRY_NONE = 200;

export const CLIENT_PORT = 40_000;
/** Proxies that are trusted; their numbers follow those of the clients. */
export const PROXIES = 4;

/** The address of a client, or of a proxy beyond the last of the `clients`; all but the port. */
export function fillAddress(number: number, clients: number, address: PeerAddress): void {
  address.w0 = 0;
  address.w1 = 0;
  address.w2 = 0;
  const proxy = number - clients;
  if (proxy >= 0) {
    address.family = proxy % 2 === 0 ? 4 : 6;
    address.w3 = proxy + 10;
    if (address.family === 4) {
      address.w3 |= (198 << 24) | (51 << 16) | (100 << 8);
    } else {
      address.w0 = 0x2001_0db8;
      address.w1 = 0xffff_0000 | 0;
    }
    return;
  }
  if (number % 5 === 4) {
    address.family = 6;
    address.w0 = 0x2001_0db8;
    address.w3 = number;
    return;
  }
  address.family = 4;
  // 20.country.x.x, or an address without a country.
  const country = number % 7 < COUNTRIES.length ? number % 7 : COUNTRY_NONE;
  address.w3 = (20 << 24) | (country << 16) | number;
}

export function showAddress({ family, w0, w1, w2, w3, port }: PeerAddress): string {
  const words = [w0, w1, w2, w3].map((word) => word >>> 0);
  return `${formatAddress(family === 4 ? 4 : 6, words)} ${port}`;
}
