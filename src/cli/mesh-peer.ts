// `edgeproxy mesh peer …` and `edgeproxy mesh export`: the rows of the table peers, and the file for the other end. A running
// proxy follows within 100 ms.

import { ProxyError } from '../base/errors.ts';
import type { ConfigFlags } from '../config.ts';
import {
  addPeer,
  allowedIpsText,
  type NewPeer,
  refuseUnknownPeer,
  removePeer,
  takenAddresses,
} from '../control/mesh-edit.ts';
import { compilePeers, type OwnEnd } from '../control/mesh-rows.ts';
import { type RoutingDb, readPeers } from '../control/routing-db.ts';
import { planAddresses } from '../mesh/addresses.ts';
import { generateKeyPair, generatePresharedKey, type KeyPair, readKeyFile } from '../mesh/key.ts';
import { allowedIpText, isKey, type MeshPeer } from '../mesh/peer.ts';
import { quickFile } from '../mesh/quick-file.ts';
import { formatPrefix } from '../sys/prefix.ts';
import { withDb } from './backend.ts';
import { meshConfig, ownEnd, ownEndOrNull, problemLine } from './mesh.ts';
import { EXIT_DONE, print, printJson, printProblem, usageError } from './output.ts';
import { formatTable } from './table.ts';

function option(flags: ConfigFlags, name: string): string | null {
  const value = flags[name];
  return typeof value === 'string' ? value : null;
}

/** The key pair made here, or null when the public key was given. */
function keysOf(
  flags: ConfigFlags,
  rows: Parameters<typeof takenAddresses>[0],
  own: OwnEnd | null,
) {
  const publicKey = option(flags, 'publicKey');
  const generates = flags.generateKey === true;
  if ((publicKey === null) !== generates) {
    throw usageError('One of --public-key and --generate-key is needed, and only one');
  }
  if (publicKey !== null) {
    if (isKey(publicKey)) return { publicKey, made: null };
    const allowed = 'a WireGuard key, 44 characters of base64';
    throw usageError(`--public-key is ${JSON.stringify(publicKey)}, allowed: ${allowed}`);
  }
  // Of keys that nobody knows yet, one whose planned addresses are free.
  let made: KeyPair;
  do made = generateKeyPair();
  while (planAddresses(made.publicKey, takenAddresses(rows, own)).attempt > 0);
  return { publicKey: made.publicKey, made };
}

function presharedKeyOf(flags: ConfigFlags): string | null {
  const file = option(flags, 'presharedKeyFile');
  if (flags.generatePresharedKey !== true) return file === null ? null : readKeyFile(file);
  if (file === null) return generatePresharedKey();
  throw usageError('Only one of --preshared-key-file and --generate-preshared-key is possible');
}

/** The row to be added; says so when the planned addresses were taken. */
function newPeer(id: string, flags: ConfigFlags, publicKey: string, taken: MeshPeer['allowedIps']) {
  const given = option(flags, 'allowedIps');
  const plan = given === null ? planAddresses(publicKey, taken) : null;
  const peer: NewPeer = {
    id,
    kind: option(flags, 'kind') ?? 'backend',
    publicKey,
    endpoint: option(flags, 'endpoint'),
    allowedIps: given ?? allowedIpsText(plan?.addresses ?? []),
    keepalive: option(flags, 'keepalive') ?? '0',
    mtu: option(flags, 'mtu'),
    presharedKey: presharedKeyOf(flags),
  };
  return { peer, isMoved: (plan?.attempt ?? 0) > 0 };
}

export async function addOnePeer(id: string, flags: ConfigFlags): Promise<number> {
  const config = meshConfig(flags);
  const text = withDb(flags, true, (db) => {
    const generates = flags.generateKey === true;
    if (flags.qr === true && !generates)
      throw usageError('--qr needs --generate-key: else see mesh export');
    // The file for the other end says who this end is: without that there is nothing to print.
    const own = generates ? ownEnd(config) : ownEndOrNull(config);
    if (generates) refuseUnreachable(id, option(flags, 'endpoint'), config.meshEndpoint);
    const rows = readPeers(db);
    const { publicKey, made } = keysOf(flags, rows, own);
    const { peer, isMoved } = newPeer(id, flags, publicKey, takenAddresses(rows, own));
    addPeer(db, peer, own);
    // On the other stream, so that the file can be redirected.
    const say = made === null ? print : printProblem;
    say(`Added peer ${id} with ${peer.allowedIps}`);
    if (isMoved) {
      say(
        `Its planned addresses are taken: set EDGEPROXY_MESH_ADDRESS=${peer.allowedIps.replaceAll(/\/\d+| /g, '')} there`,
      );
    }
    return made === null ? null : fileText(db, id, flags, made.privateKey);
  });
  return text === null ? EXIT_DONE : await showFile(text, flags);
}

export function removeOnePeer(id: string, flags: ConfigFlags): number {
  withDb(flags, true, (db) => removePeer(db, id));
  print(`Removed peer ${id}`);
  return EXIT_DONE;
}

/** The row as the database names its columns, without the secret. */
function jsonPeer(peer: MeshPeer): Record<string, unknown> {
  return {
    id: peer.id,
    kind: peer.kind,
    public_key: peer.publicKey,
    endpoint: peer.endpoint,
    allowed_ips: peer.allowedIps.map(allowedIpText),
    keepalive: peer.keepalive,
    mtu: peer.mtu,
    preshared: peer.presharedKey !== null,
  };
}

export function listPeers(flags: ConfigFlags): number {
  const own = ownEndOrNull(meshConfig(flags));
  return withDb(flags, false, (db) => {
    const { peers, problems } = compilePeers(readPeers(db), own);
    if (flags.json) printJson(peers.map(jsonPeer));
    else if (peers.length === 0) print('No peers; add one with: edgeproxy mesh peer add');
    else {
      const cells = peers.map((peer) => [
        peer.id,
        peer.kind,
        peer.publicKey,
        peer.endpoint ?? '-',
        peer.allowedIps.map(formatPrefix).join(','),
        peer.keepalive === 0 ? '-' : String(peer.keepalive),
        peer.mtu === null ? '-' : String(peer.mtu),
        peer.presharedKey === null ? 'no' : 'yes',
      ]);
      const header = [
        'ID',
        'KIND',
        'PUBLIC KEY',
        'ENDPOINT',
        'ALLOWED IPS',
        'KEEPALIVE',
        'MTU',
        'PSK',
      ];
      print(formatTable(header, cells, new Set(['KEEPALIVE', 'MTU'])));
    }
    for (const { id, column, value, reason } of problems) {
      printProblem(problemLine(id, column, value, reason));
    }
    return EXIT_DONE;
  });
}

/** A tunnel needs one end at least that can call the other. */
function refuseUnreachable(id: string, peerEndpoint: string | null, own: string | null): void {
  if (peerEndpoint !== null || own !== null) return;
  throw usageError(
    `Neither end could call the other: say where peers reach this one by --mesh-endpoint HOST:PORT (EDGEPROXY_MESH_ENDPOINT), or where "${id}" is reached by --endpoint HOST:PORT`,
  );
}

/** The file for the other end. Throws when the peer is unknown, or its row is skipped. */
function fileText(
  db: RoutingDb,
  id: string,
  flags: ConfigFlags,
  privateKey: string | null,
): string {
  const config = meshConfig(flags);
  const own = ownEnd(config);
  const rows = readPeers(db);
  const { peers, problems } = compilePeers(rows, own);
  const peer = peers.find((other) => other.id === id);
  if (peer === undefined) {
    const problem = problems.find((other) => other.id === id);
    if (problem === undefined)
      refuseUnknownPeer(
        id,
        peers.map((other) => other.id),
      );
    throw new ProxyError(
      'ERR_PEER_SKIPPED',
      problemLine(id, problem.column, problem.value, problem.reason),
    );
  }
  const { meshEndpoint: endpoint, meshMtu: mtu } = config;
  refuseUnreachable(id, peer.endpoint, endpoint);
  return quickFile({ peer, privateKey, own: { ...own, endpoint, mtu } });
}

async function showFile(text: string, flags: ConfigFlags): Promise<number> {
  // Loaded only when one is asked for.
  print(flags.qr === true ? (await import('./qr.ts')).qrText(text) : text);
  return EXIT_DONE;
}

export function exportPeer(id: string, flags: ConfigFlags): Promise<number> {
  return showFile(
    withDb(flags, false, (db) => fileText(db, id, flags, null)),
    flags,
  );
}
