// Checks a change of the device's configuration as a whole, before any of it is made: sizes of keys and endpoints, and that
// peers and prefixes will fit into their tables. Throws a RangeError that says what is wrong.

import type { Prefix } from '../../sys/prefix.ts';
import { type DeviceChange, ENDPOINT_BYTES, type PeerChange } from './port.ts';
import { PrefixOwners } from './prefix-owners.ts';
import { importPrivateKey, X25519_BYTES } from './x25519.ts';

const KEEPALIVE_SECS_MAX = 65_535;

/** A public key as the key of a map. */
export function keyName(publicKey: Uint8Array): string {
  return Buffer.from(publicKey.buffer, publicKey.byteOffset, publicKey.length).toString('base64');
}

interface Present {
  readonly name: string;
  readonly allowedIps: readonly Prefix[];
}

export function checkChange(
  change: DeviceChange,
  present: readonly Present[],
  ownKey: Uint8Array | null,
  limits: { readonly peersMax: number; readonly prefixesMax: number },
): void {
  if (change.privateKey) checkBytes('private key', change.privateKey, X25519_BYTES);
  for (const peer of change.peers ?? []) checkPeer(peer);
  const peers = new Set<string>();
  const owners = new PrefixOwners<string>();
  if (!change.replacePeers) {
    for (const { name, allowedIps } of present) {
      peers.add(name);
      for (const prefix of allowedIps) owners.set(prefix, name);
    }
  }
  const own = ownAfter(change, ownKey);
  if (own !== null && peers.delete(own)) owners.removeOwner(own);
  let peersMost = 0;
  let prefixesMost = 0;
  for (const peer of change.peers ?? []) {
    const name = keyName(peer.publicKey);
    if (name === own || (peer.updateOnly && !peers.has(name))) continue;
    if (peer.remove || peer.replaceAllowedIps) owners.removeOwner(name);
    if (peer.remove) {
      peers.delete(name);
      continue;
    }
    peers.add(name);
    for (const prefix of peer.allowedIps ?? []) owners.set(prefix, name);
    peersMost = Math.max(peersMost, peers.size);
    prefixesMost = Math.max(prefixesMost, owners.size);
  }
  const { peersMax, prefixesMax } = limits;
  if (peersMost > peersMax) {
    throw new RangeError(`Cannot add peers: there would be ${peersMost}, at most ${peersMax}`);
  }
  if (prefixesMost > prefixesMax) {
    throw new RangeError(
      `Cannot add allowed IPs: there would be ${prefixesMost} prefixes, at most ${prefixesMax}`,
    );
  }
}

/** Our public key once the change is made. */
function ownAfter({ privateKey }: DeviceChange, ownKey: Uint8Array | null): string | null {
  if (privateKey === undefined) return ownKey && keyName(ownKey);
  if (privateKey.every((byte) => byte === 0)) return null;
  return keyName(importPrivateKey(privateKey).publicKey);
}

function checkPeer(peer: PeerChange): void {
  checkBytes('public key', peer.publicKey, X25519_BYTES);
  if (peer.presharedKey) checkBytes('preshared key', peer.presharedKey, X25519_BYTES);
  if (peer.endpoint) checkBytes('endpoint', peer.endpoint, ENDPOINT_BYTES);
  const secs = peer.persistentKeepaliveSecs ?? 0;
  if (!Number.isInteger(secs) || secs < 0 || secs > KEEPALIVE_SECS_MAX) {
    throw new RangeError(
      `Cannot set persistent keepalive ${secs}: 0 to ${KEEPALIVE_SECS_MAX} seconds`,
    );
  }
}

/** Never says the bytes: they may be a secret. */
function checkBytes(what: string, bytes: Uint8Array, length: number): void {
  if (bytes.length === length) return;
  throw new RangeError(`Cannot set a ${what} of ${bytes.length} bytes: it has ${length}`);
}
