// Who the simulated clients are: their addresses, IPv4 and IPv6, and the countries these are in.

import { parseMmdb } from '../route/mmdb.ts';
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

/** The address of a client, by its number. */
export function fillPeer(client: number, peer: PeerAddress): void {
  peer.port = 40_000;
  peer.w0 = 0;
  peer.w1 = 0;
  peer.w2 = 0;
  if (client % 5 === 4) {
    peer.family = 6;
    peer.w0 = 0x2001_0db8;
    peer.w3 = client;
    return;
  }
  peer.family = 4;
  // 20.country.x.x, or an address without a country.
  const country = client % 7 < COUNTRIES.length ? client % 7 : COUNTRY_NONE;
  peer.w3 = ((20 << 24) | (country << 16) | client) >>> 0;
}
