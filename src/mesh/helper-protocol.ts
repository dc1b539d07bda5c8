// What the proxy and its mesh helper say to each other, and the check of what the helper is told: the proxy talks to the
// whole world and may be under someone else's control one day, the helper may change the network.

import { PEERS_MAX } from '../limits.ts';
import type { Prefix } from '../sys/prefix.ts';
import type { MeshOptions, MeshStatus } from './keeper.ts';
import { isKey, isPeerKind, type MeshPeer, parseEndpoint } from './peer.ts';

export type ToHelper =
  /** Makes or adopts the device. First, and once. */
  | { readonly kind: 'up'; readonly options: MeshOptions }
  /** Sets the first peers; from then on the device is watched. */
  | { readonly kind: 'peers'; readonly peers: readonly MeshPeer[] }
  /** Other peers; what fails is reported and tried again. */
  | { readonly kind: 'change'; readonly peers: readonly MeshPeer[] }
  /** The most that routes to a peer carry; null: no limit of their own. */
  | { readonly kind: 'path-mtu'; readonly id: string; readonly mtu: number | null }
  /** Removes the interface. */
  | { readonly kind: 'down' }
  /** Ends and leaves everything as it is. */
  | { readonly kind: 'release' };

export type FromHelper =
  | {
      readonly kind: 'done';
      readonly of: ToHelper['kind'];
      readonly error: { readonly code: string; readonly message: string } | null;
      readonly status: MeshStatus | null;
    }
  | { readonly kind: 'status'; readonly status: MeshStatus }
  | {
      readonly kind: 'report';
      readonly level: 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields: Record<string, unknown>;
    };

const ALLOWED_IPS_MAX = 65_536;

function isWhole(value: unknown, min: number, max: number): boolean {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

function isPrefix(value: Prefix): boolean {
  return (
    isWhole(value?.length, 0, 128) &&
    Array.isArray(value.words) &&
    value.words.length === 4 &&
    value.words.every((word) => isWhole(word, 0, 0xffff_ffff))
  );
}

/** Of a route; what is less than 68 bytes carries no IP. */
export function isMtu(value: unknown): boolean {
  return value === null || isWhole(value, 68, 65_535);
}

function isPeer(peer: MeshPeer): boolean {
  const { id, kind, publicKey, endpoint, allowedIps, keepalive, mtu, presharedKey } = peer ?? {};
  return (
    typeof id === 'string' &&
    isPeerKind(kind) &&
    typeof publicKey === 'string' &&
    isKey(publicKey) &&
    (endpoint === null ||
      (typeof endpoint === 'string' && typeof parseEndpoint(endpoint) !== 'string')) &&
    Array.isArray(allowedIps) &&
    allowedIps.length <= ALLOWED_IPS_MAX &&
    allowedIps.every(isPrefix) &&
    isWhole(keepalive, 0, 65_535) &&
    isMtu(mtu) &&
    (presharedKey === null || (typeof presharedKey === 'string' && isKey(presharedKey)))
  );
}

/** The peers, when every field of them is what its type says: they become lines for privileged programs. */
export function checkedPeers(peers: readonly MeshPeer[]): readonly MeshPeer[] {
  if (Array.isArray(peers) && peers.length <= PEERS_MAX && peers.every(isPeer)) return peers;
  throw new TypeError('The mesh helper was given peers that are none');
}
