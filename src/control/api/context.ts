// What the admin API may look at, handed over by the supervisor through admin.ts.

import type { Logger } from '../../base/log.ts';
import type { Config } from '../../config.ts';
import type { AccessRow } from '../access-rows.ts';
import type { EventBus } from '../events.ts';
import type { LoadedGeoTable } from '../geo-load.ts';
import type { Listener } from '../listeners.ts';
import type { MetricsSources } from '../metrics.ts';

export interface ApiSources extends MetricsSources {
  readonly config: Config;
  readonly logger: Logger;
  readonly events: EventBus;
  /** False while draining: load balancers in front look at /readyz. */
  readonly isReady: () => boolean;
  readonly listeners: readonly Listener[];
  readonly maxConnections: number;
  /** Time 0 of breakers, slow start and the client table, on the monotonic clock. */
  readonly epochMs: number;
  /** The access list in use, as rows. */
  readonly accessTable: () => readonly AccessRow[];
  /** The country data in use. */
  readonly geo: () => LoadedGeoTable;
}
