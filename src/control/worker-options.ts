// From settings to what the data plane works with: how many sessions the descriptors allow, and the options of each worker.

import type { Logger } from '../base/log.ts';
import { randomWords } from '../base/random.ts';
import type { Config } from '../config.ts';
import type { ClientLimits } from '../proxy/client-limits.ts';
import { PROXY_ACCEPT_ANY, PROXY_ACCEPT_V1, PROXY_ACCEPT_V2 } from '../proxy/proxy-protocol.ts';
import type { ProxyInOptions, WorkerOptions } from '../proxy/worker-state.ts';
import type { BreakerPolicy } from '../route/breaker.ts';
import { encodePrefixes } from '../route/prefix-list.ts';
import { raiseDescriptorLimit } from '../sys/rlimit.ts';
import { type Listener, socketsOf } from './listeners.ts';
import type { Publisher } from './publish.ts';

/** Descriptors that are not sessions': standard streams, rings, listeners, databases, pipes of bulk flows. */
const DESCRIPTORS_RESERVED = 256;
/** Connections of health checks at once: 10,000 dead backends are then found within a minute. */
const CHECKS_MAX = 1024;
/** Checks take at most this part of the descriptors where those are few. */
const CHECKS_SHARE = 1 / 16;
const MAX_CONNECTIONS_DEFAULT = 1_000_000;
/** Ejections grow by EDGEPROXY_CIRCUIT_TIMEOUT_SECS each time, up to this. */
const EJECTION_MS_MAX = 300_000;
const TRIAL_GRACE_MS = 2000;
const MS = 1000;
const PROXY_ACCEPTED = {
  off: 0,
  v1: PROXY_ACCEPT_V1,
  v2: PROXY_ACCEPT_V2,
  any: PROXY_ACCEPT_ANY,
} as const;

export function checksAtOnce(config: Config, descriptors: number): number {
  if (!config.healthCheckEnabled) return 0;
  return Math.max(1, Math.min(CHECKS_MAX, Math.floor(descriptors * CHECKS_SHARE)));
}

/** Sessions at once that so many descriptors allow. */
export function sessionsFor(config: Config, descriptors: number): number {
  const reserved = DESCRIPTORS_RESERVED + checksAtOnce(config, descriptors);
  return Math.max(1, Math.floor((descriptors - reserved) / 2));
}

/** Descriptors that so many sessions at once need. */
export function descriptorsFor(config: Config, sessions: number): number {
  return sessions * 2 + DESCRIPTORS_RESERVED + (config.healthCheckEnabled ? CHECKS_MAX : 0);
}

export function sessionLimit(config: Config, logger: Logger): number {
  const { soft } = raiseDescriptorLimit();
  const possible = sessionsFor(config, soft);
  const wanted = config.maxConnections ?? Math.min(possible, MAX_CONNECTIONS_DEFAULT);
  if (wanted > possible) {
    logger.warn('EDGEPROXY_MAX_CONNECTIONS is more than the descriptor limit allows', {
      event: 'config_problem',
      maxConnections: wanted,
      possible,
      descriptors: soft,
      remedy: `ulimit -n ${descriptorsFor(config, wanted)}`,
    });
  }
  return wanted;
}

function breakerPolicy(config: Config): BreakerPolicy {
  return {
    failureThreshold: config.circuitFailureThreshold,
    successThreshold: config.circuitSuccessThreshold,
    ejectionMs: config.circuitTimeoutSecs * MS,
    ejectionMsMax: Math.max(EJECTION_MS_MAX, config.circuitTimeoutSecs * MS),
    // A trial reports within its connect, or by its first byte; one that hangs must not hold the backend for ever.
    trialMs: config.connectTotalTimeoutMs + TRIAL_GRACE_MS,
  };
}

function clientLimits(config: Config): ClientLimits {
  const windowMs = config.rateLimitWindowSecs * MS;
  return {
    ratePerMs: config.rateLimitEnabled ? config.rateLimitMaxRequests / windowMs : 0,
    rateCapacity: config.rateLimitMaxRequests + config.rateLimitBurst,
    sessionsMax: config.maxConnectionsPerClient,
    dryRun: config.rateLimitDryRun,
  };
}

function proxyIn(config: Config): ProxyInOptions {
  return {
    accept: PROXY_ACCEPTED[config.proxyProtocolIn],
    trusted: encodePrefixes(config.trustedProxies),
    timeoutMs: config.proxyHeaderTimeoutMs,
  };
}

/** Which worker, of how many, and time 0 of the client table. */
interface WorkerPlace {
  readonly index: number;
  readonly workers: number;
  readonly epochMs: number;
}

export function workerOptions(
  config: Config,
  listeners: readonly Listener[],
  publisher: Publisher,
  maxConnections: number,
  { index, workers, epochMs }: WorkerPlace,
): WorkerOptions {
  return {
    workerId: index + 1,
    seed: (randomWords(1)[0] as number) >>> 1,
    epochMs,
    listeners: listeners.flatMap((listener) =>
      socketsOf(listener, index, workers).map((socket) => ({
        socket,
        shared: listener.sockets.length < workers,
        app: publisher.appIndex(listener.app),
        host: listener.host,
        port: listener.port,
        v6Only: listener.v6Only,
      })),
    ),
    maxConnections,
    connectTimeoutMs: config.connectTimeoutMs,
    connectTotalTimeoutMs: config.connectTotalTimeoutMs,
    connectRetries: config.connectRetries,
    idleTimeoutMs: config.idleTimeoutSecs * MS,
    halfClosedTimeoutMs: config.halfClosedTimeoutSecs * MS,
    bindingTtlMs: config.bindingTtlSecs * MS,
    keepaliveSecs: config.keepaliveSecs,
    userTimeoutSecs: config.userTimeoutSecs,
    breaker: breakerPolicy(config),
    failOpen: config.circuitFailOpen,
    slowStartMs: config.slowStartSecs * MS,
    limits: clientLimits(config),
    records: {
      share: config.sessionLog === 'all' ? 1 : config.sessionLogSample,
      intervalMs: config.sessionLogIntervalSecs * MS,
    },
    accessDryRun: config.accessDryRun,
    proxyIn: proxyIn(config),
    popRegion: config.region,
  };
}
