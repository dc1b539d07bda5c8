// The metrics of the paths of the mesh: one set of series per peer, and how many backends they keep back or out.

import type { PathStatus } from '../mesh/path-monitor.ts';
import { type Family, labelText, sampleLine } from './exposition.ts';
import type { PathRouting } from './path-routing.ts';

const STATES = ['ok', 'degraded', 'dead'] as const;

type Read = (status: PathStatus) => number | null;

/** Peers of which `read` knows nothing have no series. */
function perPeer(
  type: Family['type'],
  name: string,
  help: string,
  paths: PathRouting | null,
  read: Read,
): Family {
  const lines = function* (): Generator<string> {
    for (const status of paths?.statuses() ?? []) {
      const value = read(status);
      if (value !== null) yield sampleLine(name, labelText('peer', status.id), value);
    }
  };
  return { type, name, help, lines };
}

function perState(
  type: Family['type'],
  name: string,
  help: string,
  paths: PathRouting | null,
  read: (status: PathStatus, state: PathStatus['state']) => number,
): Family {
  const lines = function* (): Generator<string> {
    for (const status of paths?.statuses() ?? []) {
      const peer = labelText('peer', status.id);
      for (const state of STATES) {
        yield sampleLine(name, `${peer},${labelText('state', state)}`, read(status, state));
      }
    }
  };
  return { type, name, help, lines };
}

function single(name: string, help: string, value: number): Family {
  return { type: 'gauge', name, help, lines: () => [sampleLine(name, '', value)] };
}

export function pathFamilies(paths: PathRouting | null): Family[] {
  const seconds = (ms: number | null): number | null => (ms === null ? null : ms / 1000);
  const { degraded, dead } = paths?.counts ?? { degraded: 0, dead: 0 };
  return [
    single(
      'edge_backends_path_degraded',
      'Backends that are one tier further back because of the path to them',
      degraded,
    ),
    single('edge_backends_path_dead', 'Backends that a dead path keeps out', dead),
    perState(
      'gauge',
      'edge_mesh_peer_state',
      'Whether the path is in the state, 0 or 1',
      paths,
      (status, state) => Number(status.state === state),
    ),
    perState(
      'counter',
      'edge_mesh_peer_state_changes_total',
      'Times the path came into the state',
      paths,
      (status, state) => status.changes[state],
    ),
    perPeer(
      'gauge',
      'edge_mesh_peer_rtt_seconds',
      'Smoothed round trip time in the tunnel',
      paths,
      ({ rttMs }) => seconds(rttMs),
    ),
    perPeer(
      'gauge',
      'edge_mesh_peer_rtt_min_seconds',
      'Smallest round trip time of the last ten minutes',
      paths,
      ({ rttMinMs }) => seconds(rttMinMs),
    ),
    perPeer(
      'gauge',
      'edge_mesh_peer_loss_ratio',
      'Lost share of the last 30 probes, 0 to 1; absent where probes are not answered at all',
      paths,
      ({ loss }) => loss,
    ),
    perPeer(
      'gauge',
      'edge_mesh_peer_path_mtu_bytes',
      'Largest packet that passes the path',
      paths,
      ({ mtuBytes }) => mtuBytes,
    ),
    perPeer(
      'counter',
      'edge_mesh_peer_path_mtu_changes_total',
      'Times the path MTU was found to be another',
      paths,
      ({ mtuChanges }) => mtuChanges,
    ),
  ];
}
