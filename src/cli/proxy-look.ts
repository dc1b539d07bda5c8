// Asks a running proxy, at its admin address, how a backend fares: two numbers of its metrics page.

import { type AdminAddress, askText, failureText } from './admin-client.ts';
import type { DrainLook } from './drain-watch.ts';

/** The sample of `name` for a backend, whatever other labels it has; null when there is none. */
export function backendSample(page: string, name: string, id: string): number | null {
  const escaped = id.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  const label = `backend="${escaped}"`;
  for (const line of page.split('\n')) {
    if (!line.startsWith(`${name}{`)) continue;
    if (!line.includes(`{${label}`) && !line.includes(`,${label}`)) continue;
    return Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return null;
}

export async function lookAtBackend(address: AdminAddress, id: string): Promise<DrainLook> {
  let page: string;
  try {
    page = await askText(address, '/metrics');
  } catch (error) {
    return { kind: 'unreachable', reason: failureText(error) };
  }
  const open = backendSample(page, 'edge_backend_connections_current', id);
  if (open === null) return { kind: 'unknown' };
  return { kind: 'seen', open, draining: backendSample(page, 'edge_backend_draining', id) === 1 };
}
