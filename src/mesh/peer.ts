// Who is at the other end of a tunnel: the desired state (a row of the table `peers`) and what the device says of it. Also
// the text forms of keys and endpoints. Keys are base64 as wg(8) writes them.

import { formatPrefix, type Prefix } from '../sys/prefix.ts';
import { formatAddress, parseAddress } from '../sys/sockaddr.ts';

const PEER_KINDS = ['pop', 'backend'] as const;
export type PeerKind = (typeof PEER_KINDS)[number];

export function isPeerKind(text: string): text is PeerKind {
  return (PEER_KINDS as readonly string[]).includes(text);
}

/** One peer as the table `peers` wants it. */
export interface MeshPeer {
  readonly id: string;
  readonly kind: PeerKind;
  /** 44 characters of base64. */
  readonly publicKey: string;
  /** `host:port`, IPv6 as `[host]:port`; null: it is known once it has called. Host may be a name. */
  readonly endpoint: string | null;
  /** What it may send from, and what is sent to it: routes as well as filter. */
  readonly allowedIps: readonly Prefix[];
  /** Seconds between packets that keep a way through NAT open; 0 is off. */
  readonly keepalive: number;
  /** Of the routes to it; null: that of the interface. */
  readonly mtu: number | null;
  /** 44 characters of base64, or null. */
  readonly presharedKey: string | null;
}

/** What the device says of a peer. */
export interface PeerStatus {
  readonly id: string;
  readonly publicKey: string;
  /** Where its packets come from now; null: nothing is known. */
  readonly endpoint: string | null;
  /** Unix seconds of the last completed handshake; 0 = none yet. */
  readonly latestHandshakeSecs: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

const KEY_PATTERN = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;
const KEY_ZERO = `${'A'.repeat(43)}=`;
/** RFC 1123, without a trailing dot. */
const HOST_PATTERN =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** Whether the text is a WireGuard key: 32 bytes in base64, not all of them zero. */
export function isKey(text: string): boolean {
  return KEY_PATTERN.test(text) && text !== KEY_ZERO;
}

export interface Endpoint {
  /** An address in its shortest form, or a name in lower case. */
  readonly host: string;
  readonly port: number;
  /** 0: the host is a name, to be looked up. */
  readonly family: 0 | 4 | 6;
}

/** The endpoint, or what is wrong with the text. */
export function parseEndpoint(text: string): Endpoint | string {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]+)):(\d{1,5})$/.exec(text.trim());
  if (match === null) return 'must be host:port, IPv6 as [::1]:51820';
  const [, bracketed, plain = ''] = match;
  const port = Number(match[3]);
  if (port < 1 || port > 65_535) return 'must have a port from 1 to 65535';
  const address = parseAddress(bracketed ?? plain);
  if (bracketed !== undefined && address?.family !== 6) return 'must have IPv6 in the brackets';
  if (address !== null) {
    const { family, words } = address;
    if (words.every((word) => word === 0)) return 'must not be the unspecified address';
    return { host: formatAddress(family, words), port, family };
  }
  // All digits and dots is a mistyped address, not a name.
  if (!HOST_PATTERN.test(plain) || /^[\d.]+$/.test(plain)) {
    return 'must have an address or a host name before the port';
  }
  return { host: plain.toLowerCase(), port, family: 0 };
}

/** As parseEndpoint() reads it. */
export function formatEndpoint({ host, port, family }: Endpoint): string {
  return family === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** As wg(8) writes allowed IPs: every one with its length. */
export function allowedIpText(prefix: Prefix): string {
  const text = formatPrefix(prefix);
  if (text.includes('/')) return text;
  return `${text}/${text.includes(':') ? 128 : 32}`;
}
