// The file for wg-quick(8) by which the other end of a tunnel joins: what it is told is what this end knows of it.

import type { Prefix } from '../sys/prefix.ts';
import { allowedIpText, type MeshPeer, parseEndpoint } from './peer.ts';

interface QuickFile {
  readonly peer: MeshPeer;
  /** Known only when this end has made the key. */
  readonly privateKey: string | null;
  readonly own: {
    readonly publicKey: string;
    readonly addresses: readonly Prefix[];
    /** Where the peer reaches this end; null: this end calls. */
    readonly endpoint: string | null;
    readonly mtu: number;
  };
}

/** Keeps the way open through NAT for as long as it is not said otherwise. */
const KEEPALIVE_SECS = 25;
const NO_KEY = '# PrivateKey = the private key of';

/** The other end's own addresses among its allowed IPs: those that are one address. */
function ownAddresses({ allowedIps }: MeshPeer): string[] {
  return allowedIps.filter(({ length }) => length === 128).map(allowedIpText);
}

/** The text of the file; ends with a line break. */
export function quickFile({ peer, privateKey, own }: QuickFile): string {
  const listen = peer.endpoint === null ? null : parseEndpoint(peer.endpoint);
  const keepalive =
    peer.keepalive > 0 ? peer.keepalive : peer.endpoint === null ? KEEPALIVE_SECS : 0;
  const addresses = ownAddresses(peer);
  const lines = [
    `# Peer ${JSON.stringify(peer.id)} of an edgeproxy mesh`,
    '[Interface]',
    privateKey === null ? `${NO_KEY} ${peer.publicKey}` : `PrivateKey = ${privateKey}`,
    addresses.length > 0 ? `Address = ${addresses.join(', ')}` : '',
    listen === null || typeof listen === 'string' ? '' : `ListenPort = ${listen.port}`,
    `MTU = ${peer.mtu ?? own.mtu}`,
    '-',
    '[Peer]',
    `PublicKey = ${own.publicKey}`,
    peer.presharedKey === null ? '' : `PresharedKey = ${peer.presharedKey}`,
    own.endpoint === null ? '' : `Endpoint = ${own.endpoint}`,
    `AllowedIPs = ${own.addresses.map(allowedIpText).join(', ')}`,
    keepalive === 0 ? '' : `PersistentKeepalive = ${keepalive}`,
  ];
  const text = lines.filter((line) => line !== '').join('\n');
  return `${text.replace('\n-\n', '\n\n')}\n`;
}
