// The addresses of an end in the mesh, planned from its public key, so that both ends know them without asking: the SHA-256
// of a line with the number of the attempt and the 32 bytes of the key gives 10.213.x.y and fd65:6467:6570::/64 with 64
// bits. 65,534 IPv4 addresses make two ends collide now and then; then the later one takes the next attempt.

import { createHash } from 'node:crypto';
import { formatPrefix, type Prefix } from '../sys/prefix.ts';

const V4_NET = 0x0ad5_0000;
/** Neither x.y = 0.0 nor 255.255. */
const V4_HOSTS = 65_534;
const MAPPED = 0xffff;
const V6_NET = [0xfd65_6467, 0x6570_0000] as const;
const ATTEMPTS_MAX = 1000;

/** The IPv4 and the IPv6 address of attempt `attempt`, 0 being what others assume. */
function addressesOf(publicKey: string, attempt: number): readonly [Prefix, Prefix] {
  const digest = createHash('sha256')
    .update(`edgeproxy mesh address ${attempt}\n`)
    .update(Buffer.from(publicKey, 'base64'))
    .digest();
  const host = 1 + (digest.readUInt32BE(0) % V4_HOSTS);
  const v4 = [0, 0, MAPPED, (V4_NET | host) >>> 0];
  const v6 = [...V6_NET, digest.readUInt32BE(8), digest.readUInt32BE(12)];
  return [
    { words: v4, length: 128 },
    { words: v6, length: 128 },
  ];
}

export interface AddressPlan {
  readonly addresses: readonly Prefix[];
  /** 0: as the other end plans it too. Else that end has to be told. */
  readonly attempt: number;
}

/** Addresses for a key, none of them among `taken`. */
export function planAddresses(publicKey: string, taken: readonly Prefix[] = []): AddressPlan {
  const known = new Set(taken.map(formatPrefix));
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const addresses = addressesOf(publicKey, attempt);
    if (!addresses.some((address) => known.has(formatPrefix(address)))) {
      return { addresses, attempt };
    }
  }
  throw new RangeError('No free address in 10.213.0.0/16: give one by --allowed-ips');
}
