// The metrics of the mesh: its device, and what that says of each peer. Without a mesh they are there, and zero.

import type { PeerStatus } from '../mesh/peer.ts';
import { type Family, labelText, sampleLine } from './exposition.ts';
import type { Mesh } from './mesh.ts';

type Type = Family['type'];

function single(type: Type, name: string, help: string, value: number): Family {
  return { type, name, help, lines: () => [sampleLine(name, '', value)] };
}

function perPeer(
  [type, name, help]: readonly [Type, string, string],
  peers: readonly PeerStatus[],
  read: (peer: PeerStatus) => number,
): Family {
  const lines = (): string[] =>
    peers.map((peer) => sampleLine(name, labelText('peer', peer.id), read(peer)));
  return { type, name, help, lines };
}

export function meshFamilies(mesh: Mesh | null): Family[] {
  const state = mesh?.state ?? null;
  const peers = mesh?.status() ?? [];
  const info = 'What runs the tunnels, value 1';
  const handshake = 'Unix time of the last handshake with the peer, 0 when there was none';
  return [
    {
      type: 'gauge',
      name: 'edge_mesh_device_info',
      help: info,
      lines: () =>
        state === null
          ? []
          : [sampleLine('edge_mesh_device_info', labelText('device', state.device), 1)],
    },
    single('gauge', 'edge_mesh_peers_current', 'Peers in use', mesh?.peers.length ?? 0),
    single(
      'gauge',
      'edge_mesh_rows_skipped',
      'Rows of the table peers that are skipped',
      mesh?.problems.length ?? 0,
    ),
    single(
      'counter',
      'edge_mesh_reload_errors_total',
      'Times a change of the mesh could not be read or applied',
      mesh?.errors ?? 0,
    ),
    single(
      'counter',
      'edge_mesh_device_restarts_total',
      'Times the device ended by itself and was made again',
      state?.restarts ?? 0,
    ),
    perPeer(
      ['gauge', 'edge_mesh_peer_latest_handshake_seconds', handshake],
      peers,
      ({ latestHandshakeSecs }) => latestHandshakeSecs,
    ),
    perPeer(
      ['counter', 'edge_mesh_peer_receive_bytes_total', 'Bytes received from the peer, encrypted'],
      peers,
      ({ receivedBytes }) => receivedBytes,
    ),
    perPeer(
      ['counter', 'edge_mesh_peer_transmit_bytes_total', 'Bytes sent to the peer, encrypted'],
      peers,
      ({ sentBytes }) => sentBytes,
    ),
  ];
}
