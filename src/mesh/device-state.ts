// What a WireGuard device says of itself, from either of its two languages: `wg show NAME dump` and the text protocol of
// the UAPI socket (wireguard.com/xplatform). And what it is to be told, as text for `wg syncconf` or that socket.

import { publicKeyOf } from './key.ts';
import { isKey } from './peer.ts';

/** A peer as the device has it. Allowed IPs as text with their length, in no order. */
export interface DevicePeer {
  readonly publicKey: string;
  readonly presharedKey: string | null;
  readonly endpoint: string | null;
  readonly allowedIps: readonly string[];
  readonly latestHandshakeSecs: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly keepalive: number;
}

export interface DeviceState {
  /** null: it has no key yet. */
  readonly publicKey: string | null;
  readonly listenPort: number;
  readonly peers: readonly DevicePeer[];
}

/** A peer as the device is to have it; `endpoint` is an address and a port. */
export interface WantedPeer {
  readonly publicKey: string;
  readonly presharedKey: string | null;
  readonly endpoint: string | null;
  readonly allowedIps: readonly string[];
  readonly keepalive: number;
}

export interface WantedDevice {
  readonly privateKey: string;
  readonly listenPort: number;
  readonly peers: readonly WantedPeer[];
}

const NO_KEY = Buffer.alloc(32);

function fromHex(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64');
}

function toHex(key: string): string {
  return Buffer.from(key, 'base64').toString('hex');
}

/** Tab-separated: a line for the device, then one for each peer (wg(8)). */
export function parseDump(text: string): DeviceState {
  const [device = '', ...peers] = text.split('\n').filter((line) => line !== '');
  const [, publicKey = '', port = '0'] = device.split('\t');
  return {
    publicKey: isKey(publicKey) ? publicKey : null,
    listenPort: Number(port),
    peers: peers.map((line) => {
      const [key = '', psk = '', endpoint = '', ips = '', ...numbers] = line.split('\t');
      const [handshake = '0', received = '0', sent = '0', keepalive = 'off'] = numbers;
      return {
        publicKey: key,
        presharedKey: isKey(psk) ? psk : null,
        endpoint: endpoint === '(none)' ? null : endpoint,
        allowedIps: ips === '(none)' ? [] : ips.split(','),
        latestHandshakeSecs: Number(handshake),
        receivedBytes: Number(received),
        sentBytes: Number(sent),
        keepalive: keepalive === 'off' ? 0 : Number(keepalive),
      };
    }),
  };
}

/** The answer to `get=1`, without the line `errno=0`. */
export function parseUapi(text: string): DeviceState {
  const values = new Map<string, string>();
  const peers: { values: Map<string, string>; allowedIps: string[] }[] = [];
  for (const line of text.split('\n')) {
    const at = line.indexOf('=');
    if (at < 0) continue;
    const [name, value] = [line.slice(0, at), line.slice(at + 1)];
    if (name === 'public_key') peers.push({ values: new Map(), allowedIps: [] });
    const peer = peers.at(-1);
    if (name === 'allowed_ip') peer?.allowedIps.push(value);
    else (peer?.values ?? values).set(name, value);
  }
  const privateKey = fromHex(values.get('private_key') ?? '');
  return {
    publicKey: isKey(privateKey) ? publicKeyOf(privateKey) : null,
    listenPort: Number(values.get('listen_port') ?? 0),
    peers: peers.map(({ values: peer, allowedIps }) => {
      const presharedKey = fromHex(peer.get('preshared_key') ?? '');
      return {
        publicKey: fromHex(peer.get('public_key') ?? ''),
        presharedKey: isKey(presharedKey) ? presharedKey : null,
        endpoint: peer.get('endpoint') ?? null,
        allowedIps,
        latestHandshakeSecs: Number(peer.get('last_handshake_time_sec') ?? 0),
        receivedBytes: Number(peer.get('rx_bytes') ?? 0),
        sentBytes: Number(peer.get('tx_bytes') ?? 0),
        keepalive: Number(peer.get('persistent_keepalive_interval') ?? 0),
      };
    }),
  };
}

/** What differs between a device and what it is to be. */
export interface DeviceChanges {
  readonly hasKey: boolean;
  readonly hasPort: boolean;
  /** Public keys of peers that are to go. */
  readonly removed: readonly string[];
  /** New peers, and those of which something is to change. */
  readonly changed: readonly WantedPeer[];
  /** Of the changed ones, those whose allowed IPs do. */
  readonly rerouted: ReadonlySet<string>;
  /** Those whose endpoint is to be set; all others keep the one they have roamed to. */
  readonly moved: ReadonlySet<string>;
}

function sameTexts(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && [...one].sort().join() === [...other].sort().join();
}

/**
 * `applied` holds the endpoints that were set before, by public key: only one that is wanted differently now is set again.
 */
export function changesOf(
  wanted: WantedDevice,
  actual: DeviceState,
  applied: ReadonlyMap<string, string | null>,
): DeviceChanges {
  const present = new Map(actual.peers.map((peer) => [peer.publicKey, peer]));
  const rerouted = new Set<string>();
  const moved = new Set<string>();
  const changed = wanted.peers.filter((peer) => {
    const { publicKey, endpoint } = peer;
    const now = present.get(publicKey);
    present.delete(publicKey);
    const before = applied.has(publicKey) ? applied.get(publicKey) : now?.endpoint;
    if (endpoint !== null && (now === undefined || endpoint !== before)) moved.add(publicKey);
    if (now === undefined || !sameTexts(now.allowedIps, peer.allowedIps)) rerouted.add(publicKey);
    return (
      moved.has(publicKey) ||
      rerouted.has(publicKey) ||
      now?.keepalive !== peer.keepalive ||
      now.presharedKey !== peer.presharedKey
    );
  });
  return {
    hasKey: publicKeyOf(wanted.privateKey) !== actual.publicKey,
    hasPort: wanted.listenPort !== actual.listenPort,
    removed: [...present.keys()],
    changed,
    rerouted,
    moved,
  };
}

export function hasChanges({ hasKey, hasPort, removed, changed }: DeviceChanges): boolean {
  return hasKey || hasPort || removed.length > 0 || changed.length > 0;
}

/**
 * The whole device for `wg syncconf`, which keeps the sessions of peers that stay. Peers that have not moved are without
 * endpoint: it would undo their roaming.
 */
export function syncConf(wanted: WantedDevice, { moved }: DeviceChanges): string {
  const lines = [
    '[Interface]',
    `PrivateKey = ${wanted.privateKey}`,
    `ListenPort = ${wanted.listenPort}`,
  ];
  for (const peer of wanted.peers) {
    const { publicKey, presharedKey, endpoint, allowedIps, keepalive } = peer;
    lines.push('', '[Peer]', `PublicKey = ${publicKey}`);
    lines.push(`PresharedKey = ${presharedKey ?? NO_KEY.toString('base64')}`);
    if (allowedIps.length > 0) lines.push(`AllowedIPs = ${allowedIps.join(', ')}`);
    if (moved.has(publicKey)) lines.push(`Endpoint = ${endpoint}`);
    lines.push(`PersistentKeepalive = ${keepalive}`);
  }
  return `${lines.join('\n')}\n`;
}

/** The changes alone, as the operation `set=1`. */
export function uapiSet(wanted: WantedDevice, changes: DeviceChanges): string {
  const lines = ['set=1'];
  if (changes.hasKey) lines.push(`private_key=${toHex(wanted.privateKey)}`);
  if (changes.hasPort) lines.push(`listen_port=${wanted.listenPort}`);
  for (const publicKey of changes.removed) {
    lines.push(`public_key=${toHex(publicKey)}`, 'remove=true');
  }
  for (const { publicKey, presharedKey, endpoint, allowedIps, keepalive } of changes.changed) {
    lines.push(`public_key=${toHex(publicKey)}`);
    lines.push(
      `preshared_key=${presharedKey === null ? NO_KEY.toString('hex') : toHex(presharedKey)}`,
    );
    if (changes.moved.has(publicKey)) lines.push(`endpoint=${endpoint}`);
    lines.push(`persistent_keepalive_interval=${keepalive}`);
    if (!changes.rerouted.has(publicKey)) continue;
    lines.push('replace_allowed_ips=true', ...allowedIps.map((ip) => `allowed_ip=${ip}`));
  }
  return `${lines.join('\n')}\n\n`;
}
