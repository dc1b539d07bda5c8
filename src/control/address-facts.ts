// What can be said to a user about a client address: its country by name, or why it has none.
// The ranges are those the country lookup answers with "none" (IANA special-purpose registries).

import { BlockList } from 'node:net';
import { formatAddress } from '../sys/sockaddr.ts';

const RANGES: readonly (readonly [why: string, network: string, prefix: number])[] = [
  ['the unspecified address', '0.0.0.0', 8],
  ['a loopback address', '127.0.0.0', 8],
  ['a private address', '10.0.0.0', 8],
  ['a private address', '172.16.0.0', 12],
  ['a private address', '192.168.0.0', 16],
  ['a carrier-grade NAT address', '100.64.0.0', 10],
  ['a link-local address', '169.254.0.0', 16],
  ['a multicast address', '224.0.0.0', 4],
  ['a reserved address', '240.0.0.0', 4],
  ['the unspecified address', '::', 128],
  ['a loopback address', '::1', 128],
  ['a private (unique local) address', 'fc00::', 7],
  ['a link-local address', 'fe80::', 10],
  ['a multicast address', 'ff00::', 8],
];

/** Why the lookup found nothing. */
export function noCountryReason(isV4: boolean, words: readonly number[]): string {
  const family = isV4 ? 'ipv4' : 'ipv6';
  const text = formatAddress(isV4 ? 4 : 6, words);
  for (const [why, network, prefix] of RANGES) {
    if (network.includes(':') === isV4) continue;
    const list = new BlockList();
    list.addSubnet(network, prefix, family);
    if (list.check(text, family)) return `it is ${why}`;
  }
  return 'the country database does not know the address';
}

/** `Brazil (BR)`, of `BR`. */
export function countryNameOf(code: string): string {
  const name = new Intl.DisplayNames(['en'], { type: 'region' }).of(code);
  return name === undefined || name === code ? code : `${name} (${code})`;
}
