// The mesh as the admin API and `edgeproxy mesh status` show it, from whichever of them knows it.

import type { MeshOptions, MeshStatus } from '../mesh/keeper.ts';
import type { PathStatus } from '../mesh/path-monitor.ts';
import { allowedIpText, type MeshPeer, type PeerStatus } from '../mesh/peer.ts';
import { formatPrefix } from '../sys/prefix.ts';
import type { MeshData } from './api/response-schemas.ts';
import type { RowProblem } from './routing-rows.ts';

const MS = 1000;

interface MeshSources {
  readonly options: MeshOptions;
  /** null: the device is not known. */
  readonly state: MeshStatus | null;
  readonly peers: readonly MeshPeer[];
  readonly problems: readonly RowProblem[];
  readonly errors: number;
}

type PeerData = NonNullable<MeshData['mesh']>['peers'][number];

function peerData(
  peer: MeshPeer,
  status: PeerStatus | undefined,
  path: PathStatus | null,
): PeerData {
  const handshakeMs = (status?.latestHandshakeSecs ?? 0) * MS;
  return {
    id: peer.id,
    kind: peer.kind,
    public_key: peer.publicKey,
    endpoint: status?.endpoint ?? peer.endpoint,
    allowed_ips: peer.allowedIps.map(allowedIpText),
    keepalive: peer.keepalive,
    preshared: peer.presharedKey !== null,
    latest_handshake: handshakeMs === 0 ? null : new Date(handshakeMs).toISOString(),
    receive_bytes: status?.receivedBytes ?? 0,
    transmit_bytes: status?.sentBytes ?? 0,
    state: path?.state ?? null,
    state_reason: path?.reason || null,
    rtt_ms: path?.rttMs ?? null,
    rtt_min_ms: path?.rttMinMs ?? null,
    loss: path?.loss ?? null,
    mtu: peer.mtu,
    path_mtu: path?.mtuBytes ?? null,
  };
}

/** `paths`: of a running proxy, by peer. */
export function meshData(
  sources: MeshSources,
  paths: (id: string) => PathStatus | null = () => null,
): NonNullable<MeshData['mesh']> {
  const { options, state, peers, problems, errors } = sources;
  const statuses = new Map(state?.peers.map((status) => [status.id, status]));
  return {
    interface: options.interface,
    device: state?.device ?? null,
    device_reason: state?.why ?? null,
    public_key: state?.publicKey ?? null,
    addresses: state?.addresses.map(formatPrefix) ?? [],
    listen_port: options.listenPort,
    mtu: options.mtu,
    restarts: state?.restarts ?? 0,
    errors,
    peers: peers.map((peer) => peerData(peer, statuses.get(peer.id), paths(peer.id))),
    problems: problems.map(({ id, column, value, reason }) => ({
      id,
      column,
      value,
      reason,
      served: false,
    })),
  };
}
