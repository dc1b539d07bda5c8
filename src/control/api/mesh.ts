// GET /api/mesh: device, peers, and the rows that are none.

import type { PathStatus } from '../../mesh/path-monitor.ts';
import { meshData } from '../mesh-view.ts';
import type { MeshData } from './response-schemas.ts';
import type { Answer } from './router.ts';
import type { Api } from './server.ts';

export function getMesh({ api }: { readonly api: Api }): Answer {
  const { mesh, paths } = api.sources;
  const pathOf = (id: string): PathStatus | null => paths?.peer(id) ?? null;
  const body: MeshData = { mesh: mesh === null ? null : meshData(mesh, pathOf) };
  return { status: 200, body };
}
