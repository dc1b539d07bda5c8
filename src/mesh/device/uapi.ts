// The cross-platform configuration protocol of WireGuard (wireguard.com/xplatform): text of the `set=1` operation into a
// change, and the device's state into the answer to `get=1`. Pure; uapi-server.ts has the socket.

import { formatPrefix, type Prefix } from '../../sys/prefix.ts';
import { formatSocketAddress, isMapped, parseAddress } from '../../sys/sockaddr.ts';
import { ENDPOINT_BYTES, type PeerChange, type PeerState } from '../protocol/port.ts';

/** What `set=1` says: for the machine, and for the device around it. */
export interface UapiChange {
  privateKey?: Uint8Array;
  listenPort?: number;
  mark?: number;
  replacePeers?: boolean;
  peers: PeerChange[];
}

type Editable = { -readonly [Field in keyof PeerChange]: PeerChange[Field] };
type EditablePeer = Editable & { allowedIps: Prefix[] };

/** EINVAL and EPROTO, which wg(8) reports as such. */
const EINVAL = 22;
const EPROTO = 71;

/** A line that is not understood; the number is for `errno=`. */
export class UapiError extends Error {
  readonly errno: number;
  constructor(message: string, errno = EINVAL) {
    super(message);
    this.errno = errno;
  }
}

function parseKey(text: string): Uint8Array {
  if (!/^[0-9a-fA-F]{64}$/.test(text)) throw new UapiError('A key must be 64 hexadecimal digits');
  return Uint8Array.from(Buffer.from(text, 'hex'));
}

function parseNumber(text: string, most: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= most)) throw new UapiError(`"${text}" must be a number from 0 to ${most}`);
  return value;
}

/** wg(8) writes the mark as a decimal number, people also in hexadecimal digits. */
function parseMark(text: string): number {
  return /^0x[0-9a-f]{1,8}$/i.test(text) ? Number(text) : parseNumber(text, 0xffff_ffff);
}

function parseTrue(text: string): true {
  if (text !== 'true') throw new UapiError(`"${text}" must be true`);
  return true;
}

/** `1.2.3.4:80` or `[::1]:80` as 18 bytes. */
export function parseEndpoint(text: string): Uint8Array {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const address = match === null ? null : parseAddress((match[1] ?? match[2]) as string);
  const port = Number(match?.[3]);
  if (address === null || !(port > 0 && port <= 65_535)) {
    throw new UapiError(
      `"${text}" must be an endpoint as in 192.0.2.1:51820 or [2001:db8::1]:51820`,
    );
  }
  const bytes = new Uint8Array(ENDPOINT_BYTES);
  const view = new DataView(bytes.buffer);
  const words = address.family === 4 ? [0, 0, 0xffff, address.words[3]] : address.words;
  words.forEach((word, index) => {
    view.setUint32(index * 4, word);
  });
  view.setUint16(16, port);
  return bytes;
}

export function formatEndpoint(endpoint: Uint8Array): string {
  const view = new DataView(endpoint.buffer, endpoint.byteOffset, ENDPOINT_BYTES);
  const words: [number, number, number, number] = [
    view.getUint32(0),
    view.getUint32(4),
    view.getUint32(8),
    view.getUint32(12),
  ];
  const family = isMapped(words[0], words[1], words[2]) ? 4 : 6;
  return formatSocketAddress({ family, words, port: view.getUint16(16) });
}

/** Like wg(8), bits beyond the length are cleared, not refused. */
function parseAllowedIp(text: string): Prefix {
  const [host = '', bits, ...more] = text.split('/');
  const address = parseAddress(host);
  const most = address?.family === 4 ? 32 : 128;
  if (address === null || more.length > 0) {
    throw new UapiError(`"${text}" must be a prefix as in 10.0.0.0/8 or 2001:db8::/32`);
  }
  const length = bits === undefined ? most : parseNumber(bits, most);
  const offset = address.family === 4 ? 96 : 0;
  const all = offset === 96 ? [0, 0, 0xffff, address.words[3]] : address.words;
  const words = all.map((word, index) => {
    const kept = Math.min(32, Math.max(0, length + offset - index * 32));
    return kept === 0 ? 0 : (word & (-1 << (32 - kept))) >>> 0;
  });
  return { words, length: length + offset };
}

function applyToDevice(change: UapiChange, name: string, value: string): boolean {
  if (name === 'private_key') change.privateKey = parseKey(value);
  else if (name === 'listen_port') change.listenPort = parseNumber(value, 65_535);
  else if (name === 'fwmark') change.mark = parseMark(value);
  else if (name === 'replace_peers') change.replacePeers = parseTrue(value);
  else return false;
  return true;
}

function applyToPeer(peer: EditablePeer, name: string, value: string): void {
  if (name === 'remove') peer.remove = parseTrue(value);
  else if (name === 'update_only') peer.updateOnly = parseTrue(value);
  else if (name === 'preshared_key') peer.presharedKey = parseKey(value);
  else if (name === 'endpoint') peer.endpoint = parseEndpoint(value);
  else if (name === 'persistent_keepalive_interval') {
    peer.persistentKeepaliveSecs = value === 'off' ? 0 : parseNumber(value, 65_535);
  } else if (name === 'replace_allowed_ips') {
    peer.replaceAllowedIps = parseTrue(value);
    peer.allowedIps.length = 0;
  } else if (name === 'allowed_ip') {
    peer.allowedIps.push(parseAllowedIp(value));
  } else if (name === 'protocol_version') {
    if (value !== '1') throw new UapiError(`Protocol version "${value}": only 1`, EPROTO);
  } else {
    throw new UapiError(`Unknown key "${name}"`, EPROTO);
  }
}

/** The lines after `set=1`, up to the empty one. Throws a UapiError. */
export function parseSet(lines: readonly string[]): UapiChange {
  const change: UapiChange = { peers: [] };
  let peer: EditablePeer | null = null;
  for (const line of lines) {
    const equals = line.indexOf('=');
    if (equals < 1) throw new UapiError(`Line "${line}" has no value`, EPROTO);
    const name = line.slice(0, equals);
    const value = line.slice(equals + 1);
    if (name === 'public_key') {
      peer = { publicKey: parseKey(value), allowedIps: [] };
      change.peers.push(peer);
    } else if (peer !== null) {
      applyToPeer(peer, name, value);
    } else if (!applyToDevice(change, name, value)) {
      throw new UapiError(`Unknown key "${name}"`, EPROTO);
    }
  }
  return change;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** With its length, also where it is a single address. */
function formatAllowedIp(prefix: Prefix): string {
  const text = formatPrefix(prefix);
  if (text.includes('/')) return text;
  return `${text}/${text.includes(':') ? 128 : 32}`;
}

function formatPeer(
  peer: PeerState,
  traffic: { readonly sent: number; readonly received: number },
): string[] {
  const { lastHandshakeUnixMs: at } = peer;
  const seconds = Math.floor(at / 1000);
  const nanoseconds = Math.floor((at - seconds * 1000) * 1e6);
  return [
    `public_key=${hex(peer.publicKey)}`,
    `preshared_key=${hex(peer.presharedKey)}`,
    'protocol_version=1',
    ...(peer.endpoint === null ? [] : [`endpoint=${formatEndpoint(peer.endpoint)}`]),
    `last_handshake_time_sec=${seconds}`,
    `last_handshake_time_nsec=${nanoseconds}`,
    `tx_bytes=${traffic.sent}`,
    `rx_bytes=${traffic.received}`,
    `persistent_keepalive_interval=${peer.persistentKeepaliveSecs}`,
    ...peer.allowedIps.map((prefix) => `allowed_ip=${formatAllowedIp(prefix)}`),
  ];
}

/** What `get=1` shows. */
export interface UapiState {
  readonly privateKey: Uint8Array | null;
  readonly listenPort: number;
  readonly mark: number;
  readonly peers: readonly PeerState[];
  traffic(peer: number): { readonly sent: number; readonly received: number };
}

/** The lines of the answer, without `errno=`. */
export function formatGet(state: UapiState): string[] {
  return [
    ...(state.privateKey === null ? [] : [`private_key=${hex(state.privateKey)}`]),
    `listen_port=${state.listenPort}`,
    ...(state.mark === 0 ? [] : [`fwmark=${state.mark}`]),
    ...state.peers.flatMap((peer) => formatPeer(peer, state.traffic(peer.peer))),
  ];
}
