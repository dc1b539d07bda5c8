// The rows of the table `peers` of routing.db: from whatever is stored there to peers, or to the reasons why not. As strict
// as WireGuard is: a key, an endpoint or a prefix that is nearly right sends traffic nowhere, or to somebody else.

import { BACKEND_ID_PATTERN } from '../base/names.ts';
import { planAddresses } from '../mesh/addresses.ts';
import {
  allowedIpText,
  formatEndpoint,
  isKey,
  isPeerKind,
  type MeshPeer,
  parseEndpoint,
} from '../mesh/peer.ts';
import { formatPrefix, type Prefix, parsePrefix } from '../sys/prefix.ts';
import { type RowProblem, valueText } from './routing-rows.ts';

/** In the order in which a row's values are given to compilePeers(). */
export const PEER_COLUMNS = [
  'id',
  'kind',
  'public_key',
  'endpoint',
  'allowed_ips',
  'keepalive',
  'mtu',
  'deleted',
  'preshared_key',
] as const;
type PeerColumn = (typeof PEER_COLUMNS)[number];

/** A row as text, as SQLite returns it. */
export type PeerRow = readonly (string | null)[];

/** This end, for what a peer must not be. */
export interface OwnEnd {
  readonly publicKey: string;
  readonly addresses: readonly Prefix[];
}

export interface CompiledPeers {
  /** By id; removed ones are left out. */
  readonly peers: readonly MeshPeer[];
  readonly problems: readonly RowProblem[];
}

const KEEPALIVE_MAX = 65_535;
/** The least of IPv6 and the most that an interface takes. */
const MTU_MIN = 1280;
const MTU_MAX = 65_456;
const MAPPED_BITS = 96;
const SECRET = 'preshared_key';

/** Prefixes in a comma list; a reason when one of them is wrong. */
function parseAllowedIps(text: string): Prefix[] | string {
  const prefixes: Prefix[] = [];
  for (const part of text.split(',')) {
    const prefix = parsePrefix(part.trim());
    if (typeof prefix === 'string') return `${prefix} (${valueText(part.trim())})`;
    const isAll = prefix.length === 0 || (prefix.length === MAPPED_BITS && isV4(prefix));
    if (isAll) return 'must not hold every address: the way to the peer itself would lead there';
    prefixes.push(prefix);
  }
  return prefixes;
}

function isV4({ words, length }: Prefix): boolean {
  return length >= MAPPED_BITS && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
}

/** A whole number in a range; null when the text is none. */
function parseWhole(text: string, min: number, max: number): number | null {
  const value = /^\d{1,5}(\.0+)?$/.test(text) ? Number(text) : Number.NaN;
  return value >= min && value <= max ? value : null;
}

type Refuse = (column: PeerColumn, reason: string) => void;

/** The peer of a row, whatever other rows say; null with a reason for each wrong column. */
function parsePeer(row: PeerRow, refuse: Refuse): MeshPeer | null {
  let isGood = true;
  const wrong: Refuse = (column, reason) => {
    isGood = false;
    refuse(column, reason);
  };
  const text = (column: PeerColumn): string => row[PEER_COLUMNS.indexOf(column)]?.trim() ?? '';
  const id = row[0] ?? '';
  if (!BACKEND_ID_PATTERN.test(id)) wrong('id', 'must be 1 to 128 printable characters');
  const kind = text('kind').toLowerCase() || 'backend';
  if (!isPeerKind(kind)) wrong('kind', 'must be one of pop, backend');
  const publicKey = text('public_key');
  const hasKey = isKey(publicKey);
  if (!hasKey) wrong('public_key', 'must be a WireGuard key, 44 characters of base64');
  const endpointText = text('endpoint');
  const endpoint = endpointText === '' ? null : parseEndpoint(endpointText);
  if (typeof endpoint === 'string') wrong('endpoint', endpoint);
  const ips = text('allowed_ips');
  const planned = hasKey ? planAddresses(publicKey).addresses : [];
  const allowedIps = ips === '' ? planned : parseAllowedIps(ips);
  if (typeof allowedIps === 'string') wrong('allowed_ips', allowedIps);
  const keepalive = parseWhole(text('keepalive') || '0', 0, KEEPALIVE_MAX);
  if (keepalive === null) wrong('keepalive', `must be a whole number from 0 to ${KEEPALIVE_MAX}`);
  const mtuText = text('mtu');
  const mtu = mtuText === '' ? null : parseWhole(mtuText, MTU_MIN, MTU_MAX);
  if (mtu === null && mtuText !== '') {
    wrong('mtu', `must be a whole number from ${MTU_MIN} to ${MTU_MAX}`);
  }
  const psk = text(SECRET);
  if (psk !== '' && !isKey(psk)) wrong(SECRET, 'must be a WireGuard key, 44 characters of base64');
  if (!isGood || typeof endpoint === 'string' || typeof allowedIps === 'string') return null;
  return {
    id,
    kind: kind as MeshPeer['kind'],
    publicKey,
    endpoint: endpoint === null ? null : formatEndpoint(endpoint),
    allowedIps,
    keepalive: keepalive ?? 0,
    mtu,
    presharedKey: psk === '' ? null : psk,
  };
}

function isDeleted(row: PeerRow, refuse: Refuse): boolean | null {
  const text = row[PEER_COLUMNS.indexOf('deleted')]?.trim() || '0';
  const value = parseWhole(text, 0, 1);
  if (value === null) refuse('deleted', 'must be 0 or 1');
  return value === null ? null : value === 1;
}

/** The peers of a table, rows in the order of their ids: of two that cannot both be, the first stays. */
export function compilePeers(table: readonly PeerRow[], own: OwnEnd | null): CompiledPeers {
  const problems: RowProblem[] = [];
  const peers: MeshPeer[] = [];
  const ids = new Set<string>();
  const keys = new Map<string, string>();
  const prefixes = new Map<string, string>();
  if (own !== null) {
    keys.set(own.publicKey, 'this end');
    for (const address of own.addresses) prefixes.set(allowedIpText(address), 'this end');
  }
  for (const row of table) {
    const refuse: Refuse = (column, reason) => {
      const stored = row[PEER_COLUMNS.indexOf(column)];
      const value = column === SECRET ? 'not shown' : valueText(stored);
      const id = row[0] ? row[0].slice(0, 128) : valueText(row[0]);
      problems.push({ table: 'peers', id, column, value, reason });
    };
    const gone = isDeleted(row, refuse);
    if (gone !== false) continue;
    const peer = parsePeer(row, refuse);
    if (peer === null) continue;
    const { id, publicKey, allowedIps } = peer;
    const known = keys.get(publicKey);
    const taken = allowedIps.find((prefix) => prefixes.has(allowedIpText(prefix)));
    if (ids.has(id)) refuse('id', 'must be unique');
    else if (known !== undefined) refuse('public_key', `must be unique, it is that of ${known}`);
    else if (taken !== undefined) {
      const whose = prefixes.get(allowedIpText(taken));
      refuse('allowed_ips', `must be unique, ${formatPrefix(taken)} is that of ${whose}`);
    } else {
      ids.add(id);
      keys.set(publicKey, `peer ${JSON.stringify(id)}`);
      for (const prefix of allowedIps) {
        prefixes.set(allowedIpText(prefix), `peer ${JSON.stringify(id)}`);
      }
      peers.push(peer);
    }
  }
  return { peers, problems };
}
