// Starts the health checks that the settings ask for.

import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { BackendState } from '../route/backend-state.ts';
import { raiseDescriptorLimit } from '../sys/rlimit.ts';
import { HealthChecker } from './health.ts';
import { PROXY_PROTOCOLS } from './routing-rows.ts';
import { checksAtOnce } from './worker-options.ts';

const MS = 1000;

/** null: they are off. */
export function startHealth(
  config: Config,
  state: BackendState,
  logger: Logger,
  onRecovered: (index: number) => void,
): HealthChecker | null {
  if (!config.healthCheckEnabled) return null;
  return new HealthChecker(
    {
      intervalMs: config.healthCheckIntervalSecs * MS,
      timeoutMs: config.healthCheckTimeoutSecs * MS,
      healthyThreshold: config.healthHealthyThreshold,
      unhealthyThreshold: config.healthUnhealthyThreshold,
      defaults: { type: config.healthCheckType, path: config.healthCheckPath },
      proxyProtocol: PROXY_PROTOCOLS.indexOf(config.proxyProtocolOut),
      onRecovered,
      concurrentMax: checksAtOnce(config, raiseDescriptorLimit().soft),
    },
    state,
    logger,
  );
}
