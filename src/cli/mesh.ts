// `edgeproxy mesh init|up|down|status`: the key of this end, the interface without a running proxy, and how the tunnels are.

import { existsSync } from 'node:fs';
import { ProxyError } from '../base/errors.ts';
import { type Config, type ConfigFlags, loadConfig, type SettingKey } from '../config.ts';
import type { MeshData } from '../control/api/response-schemas.ts';
import { meshOptions } from '../control/mesh.ts';
import { initPeers, takenAddresses } from '../control/mesh-edit.ts';
import { compilePeers, type OwnEnd } from '../control/mesh-rows.ts';
import { meshData } from '../control/mesh-view.ts';
import {
  closeRoutingDb,
  initRoutingDb,
  openRoutingDb,
  type RoutingDb,
  readPeers,
} from '../control/routing-db.ts';
import { planAddresses } from '../mesh/addresses.ts';
import { removeMesh } from '../mesh/device.ts';
import { MeshKeeper, type MeshStatus } from '../mesh/keeper.ts';
import { generateKeyPair, publicKeyOf, readKeyFile, writeKeyFile } from '../mesh/key.ts';
import { formatPrefix } from '../sys/prefix.ts';
import { askedAddress, askJson } from './admin-client.ts';
import { EXIT_DONE, EXIT_FAILED, print, printJson, printProblem } from './output.ts';
import { formatTable } from './table.ts';
import { bytesText, durationText, msText } from './units.ts';

const MESH_SETTINGS = [
  'dbPath',
  'meshInterface',
  'meshDevice',
  'meshKeyPath',
  'meshListenPort',
  'meshAddress',
  'meshMtu',
  'meshEndpoint',
] as const satisfies readonly SettingKey[];

type MeshConfig = Pick<Config, (typeof MESH_SETTINGS)[number]>;

export function meshConfig(flags: ConfigFlags): MeshConfig {
  return loadConfig(flags, process.env, MESH_SETTINGS);
}

/** This end by its key file; throws when that cannot be used. */
export function ownEnd({ meshKeyPath, meshAddress }: MeshConfig): OwnEnd {
  const publicKey = publicKeyOf(readKeyFile(meshKeyPath));
  const addresses = meshAddress.length > 0 ? meshAddress : planAddresses(publicKey).addresses;
  return { publicKey, addresses };
}

/** As ownEnd(); null when there is no key, or not for this user. */
export function ownEndOrNull(config: MeshConfig): OwnEnd | null {
  try {
    return ownEnd(config);
  } catch {
    return null;
  }
}

export function problemLine(id: string, column: string, value: string, reason: string): string {
  return `Peer ${JSON.stringify(id)} is skipped: ${column} is ${value}, ${reason}`;
}

/** A key whose planned addresses nobody in the table has. */
function freshKey(db: RoutingDb, own: OwnEnd | null): string {
  const taken = takenAddresses(readPeers(db), own);
  for (;;) {
    const { privateKey, publicKey } = generateKeyPair();
    if (planAddresses(publicKey, taken).attempt === 0) return privateKey;
  }
}

export function meshInit(flags: ConfigFlags): number {
  const config = meshConfig(flags);
  const { dbPath, meshKeyPath, meshListenPort } = config;
  const isThere = existsSync(meshKeyPath);
  // A key that cannot be used stops here, before anything is made.
  if (isThere) readKeyFile(meshKeyPath);
  if (!existsSync(dbPath)) {
    initRoutingDb(dbPath);
    print(`Created ${dbPath}`);
  }
  const db = openRoutingDb(dbPath, { writable: true });
  try {
    if (initPeers(db)) print(`Added the table peers to ${dbPath}`);
    if (!isThere) writeKeyFile(meshKeyPath, freshKey(db, null));
  } finally {
    closeRoutingDb(db);
  }
  print(isThere ? `${meshKeyPath} is there already, it stays` : `Made ${meshKeyPath}`);
  const { publicKey, addresses } = ownEnd(config);
  const endpoint = config.meshEndpoint ?? `THIS_HOST:${meshListenPort}`;
  print(`Public key: ${publicKey}`);
  print(`Addresses:  ${addresses.map(formatPrefix).join(', ')}`);
  const add = `edgeproxy mesh peer add ID --kind pop --public-key ${publicKey} --endpoint ${endpoint}`;
  const more =
    config.meshAddress.length > 0 ? ` --allowed-ips ${addresses.map(formatPrefix).join(',')}` : '';
  print(`On another edgeproxy: ${add}${more}`);
  print('A backend joins with: edgeproxy mesh peer add ID --generate-key > ID.conf');
  return EXIT_DONE;
}

export async function meshUp(flags: ConfigFlags): Promise<number> {
  const config = meshConfig(flags);
  const { dbPath, meshInterface } = config;
  const own = ownEnd(config);
  const db = openRoutingDb(dbPath);
  const { peers, problems } = compilePeers(readPeers(db), own);
  closeRoutingDb(db);
  for (const { id, column, value, reason } of problems) {
    printProblem(problemLine(id, column, value, reason));
  }
  let failed = false;
  const keeper = new MeshKeeper(meshOptions(config, false), (level, message, { reason }) => {
    if (level !== 'error') return;
    failed = true;
    printProblem(String(reason ?? message));
  });
  await keeper.up();
  try {
    await keeper.setPeers(peers);
  } catch (error) {
    if (!keeper.status().isAdopted) await keeper.down();
    throw error;
  }
  keeper.release();
  const { device, why } = keeper.status();
  print(`${meshInterface} is up (${device}: ${why}), ${peers.length} peers`);
  return failed ? EXIT_FAILED : EXIT_DONE;
}

export async function meshDown(flags: ConfigFlags): Promise<number> {
  const { meshInterface } = meshConfig(flags);
  const wasThere = await removeMesh(meshInterface);
  print(wasThere ? `Removed ${meshInterface}` : `${meshInterface} is not there`);
  return EXIT_DONE;
}

type View = NonNullable<MeshData['mesh']>;

/** What a running proxy says; null when none does, or it has no mesh. */
async function askedView(flags: ConfigFlags): Promise<View | null> {
  const address = askedAddress(flags);
  if (typeof address === 'string') return null;
  try {
    return (await askJson<MeshData>(address, '/api/mesh')).mesh;
  } catch {
    return null;
  }
}

/** What the device says, without a proxy. */
async function readView(config: MeshConfig): Promise<View> {
  const own = ownEndOrNull(config);
  const db = openRoutingDb(config.dbPath);
  const { peers, problems } = compilePeers(readPeers(db), own);
  closeRoutingDb(db);
  const options = meshOptions(config, false);
  const keeper = new MeshKeeper(options, () => {});
  const state: MeshStatus | null = await keeper.look(peers);
  if (state === null) {
    const fix =
      'make it with: edgeproxy mesh up, or edgeproxy run with EDGEPROXY_MESH_ENABLED=true';
    const message = `Interface "${config.meshInterface}" is not there: ${fix}`;
    throw new ProxyError('ERR_MESH_GONE', message);
  }
  return meshData({ options, state, peers, problems, errors: 0 });
}

function percent(loss: number | null): string {
  return loss === null ? '-' : `${(loss * 100).toFixed(1)}%`;
}

function statusLine(peer: View['peers'][number], nowMs: number): string[] {
  const { latest_handshake: handshake } = peer;
  const ageSecs = handshake === null ? null : Math.max(0, nowMs - Date.parse(handshake)) / 1000;
  return [
    peer.id,
    peer.kind,
    peer.state ?? '-',
    ageSecs === null ? 'never' : durationText(ageSecs),
    msText(peer.rtt_ms),
    percent(peer.loss),
    bytesText(peer.receive_bytes),
    bytesText(peer.transmit_bytes),
    String(peer.path_mtu ?? peer.mtu ?? '-'),
    peer.endpoint ?? '-',
  ];
}

const STATUS_HEADER = [
  'PEER',
  'KIND',
  'STATE',
  'HANDSHAKE',
  'RTT MS',
  'LOSS',
  'RECEIVED',
  'SENT',
  'MTU',
  'ENDPOINT',
];
const NUMBERS = new Set(['HANDSHAKE', 'RTT MS', 'LOSS', 'RECEIVED', 'SENT', 'MTU']);

export async function meshStatus(flags: ConfigFlags): Promise<number> {
  const config = meshConfig(flags);
  const view = (await askedView(flags)) ?? (await readView(config));
  if (flags.json) {
    printJson(view);
    return EXIT_DONE;
  }
  const addresses = view.addresses.join(', ');
  print(
    `${view.interface}: ${view.device}, port ${view.listen_port}, MTU ${view.mtu}, ${addresses}`,
  );
  if (view.peers.length === 0) print('No peers; add one with: edgeproxy mesh peer add');
  else {
    const now = Date.now();
    print(
      formatTable(
        STATUS_HEADER,
        view.peers.map((peer) => statusLine(peer, now)),
        NUMBERS,
      ),
    );
    for (const { id, state, state_reason } of view.peers) {
      if (state_reason !== null) print(`The path to ${id} is ${state}: ${state_reason}`);
    }
  }
  for (const { id, column, value, reason } of view.problems) {
    printProblem(problemLine(id, column, value, reason));
  }
  return EXIT_DONE;
}
