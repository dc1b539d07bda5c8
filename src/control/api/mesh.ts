// GET /api/mesh: device, peers, and the rows that are none.

import { meshData } from '../mesh-view.ts';
import type { MeshData } from './response-schemas.ts';
import type { Answer } from './router.ts';
import type { Api } from './server.ts';

export function getMesh({ api }: { readonly api: Api }): Answer {
  const { mesh } = api.sources;
  const body: MeshData = { mesh: mesh === null ? null : meshData(mesh) };
  return { status: 200, body };
}
