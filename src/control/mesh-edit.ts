// Changes to the table `peers`, one commit each, for the command line. What is written is checked by the code that reads it,
// together with the rows that are there: nothing is written that a running proxy would skip.

import { nearestNames } from '../base/nearest.ts';
import { allowedIpText } from '../mesh/peer.ts';
import type { Prefix } from '../sys/prefix.ts';
import { compilePeers, type OwnEnd, PEER_COLUMNS, type PeerRow } from './mesh-rows.ts';
import { refuse, transaction } from './routing-change.ts';
import { addPeersTable, type RoutingDb, readPeers } from './routing-db.ts';

/** What may be said about a new peer, as text: it is checked as a row. */
export interface NewPeer {
  readonly id: string;
  readonly kind: string;
  readonly publicKey: string;
  readonly endpoint: string | null;
  readonly allowedIps: string;
  readonly keepalive: string;
  readonly mtu: string | null;
  readonly presharedKey: string | null;
}

/** Makes the table where it is missing; true when it was. */
export function initPeers(db: RoutingDb): boolean {
  return transaction(db, () => addPeersTable(db));
}

/** Throws when the id is taken, or when a column is wrong or meets another row. */
export function addPeer(db: RoutingDb, peer: NewPeer, own: OwnEnd | null): void {
  const { id, kind, publicKey, endpoint, allowedIps, keepalive, mtu, presharedKey } = peer;
  const row = [id, kind, publicKey, endpoint, allowedIps, keepalive, mtu, '0', presharedKey];
  transaction(db, () => {
    addPeersTable(db);
    const rows = readPeers(db);
    const taken = rows.find(([other]) => other === id);
    if (taken !== undefined && !isRemoved(taken)) {
      refuse('ERR_PEER_EXISTS', `Cannot add peer "${id}": the id is taken`);
    }
    const others = rows.filter((other) => other !== taken);
    const known = compilePeers(others, own).problems.length;
    const { problems } = compilePeers([...others, row], own);
    if (problems.length > known) {
      const lines = problems
        .slice(known)
        .map(({ column, value, reason }) => `${column} is ${value}, ${reason}`);
      refuse('ERR_PEER_INVALID', `Cannot add peer "${id}": ${lines.join('; ')}`);
    }
    db.handle.prepare('DELETE FROM peers WHERE id = ?').run(id);
    const marks = PEER_COLUMNS.map(() => '?').join(', ');
    const insert = `INSERT INTO peers(${PEER_COLUMNS.join(', ')}) VALUES (${marks})`;
    db.handle.prepare(insert).run(...row);
  });
}

/** Deletes the row. Throws when there is none. */
export function removePeer(db: RoutingDb, id: string): void {
  transaction(db, () => {
    const ids = readPeers(db).map(([other]) => other ?? '');
    if (ids.includes(id)) {
      db.handle.prepare('DELETE FROM peers WHERE CAST(id AS TEXT) = ?').run(id);
      return;
    }
    refuseUnknownPeer(id, ids);
  });
}

export function refuseUnknownPeer(id: string, ids: readonly string[]): never {
  const near = nearestNames(id, ids);
  const hint = near.length > 0 ? `similar ids are ${near.join(', ')}` : 'no id is similar';
  refuse('ERR_PEER_UNKNOWN', `Unknown peer "${id}": ${hint}`);
}

function isRemoved(row: PeerRow): boolean {
  return Number(row[PEER_COLUMNS.indexOf('deleted')] ?? 0) === 1;
}

/** Allowed IPs of all peers, for planning addresses that nobody has. */
export function takenAddresses(rows: readonly PeerRow[], own: OwnEnd | null): Prefix[] {
  const { peers } = compilePeers(rows, own);
  return [...(own?.addresses ?? []), ...peers.flatMap(({ allowedIps }) => allowedIps)];
}

/** As the column holds them. */
export function allowedIpsText(prefixes: readonly Prefix[]): string {
  return prefixes.map(allowedIpText).join(', ');
}
