// `edgeproxy run`: loads routing and country data, opens the listeners, starts the workers, follows changes, and ends in
// order: SIGTERM and SIGINT drain until the deadline, a second one ends at once, SIGHUP reads everything again.

import { errorMessage, type ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { randomWords } from '../base/random.ts';
import { type Config, FAULT_INJECTION_ENV } from '../config.ts';
import { usesNative } from '../engine/open.ts';
import { REASON_SHUTDOWN } from '../proxy/close-reason.ts';
import {
  COMMAND_DRAIN,
  COMMAND_HAND_OVER,
  COMMAND_RUN,
  COMMAND_STOP,
  createGlobalBlock,
} from '../proxy/shared.ts';
import { STAT_CURRENT, STAT_END } from '../proxy/stats.ts';
import type { WorkerOptions } from '../proxy/worker-state.ts';
import { createBackendState, openBackendState } from '../route/backend-state.ts';
import { BREAKER_OPENED } from '../route/breaker.ts';
import { createClientTable, openClientTable } from '../route/client-table.ts';
import { startRamp } from '../route/slow-start.ts';
import { monotonicMs } from '../sys/clock.ts';
import { AccessPublisher } from './access-publish.ts';
import { type AdminServer, startAdmin } from './admin.ts';
import { readAdminToken } from './admin-token.ts';
import { Counters } from './counters.ts';
import { BackendDrains } from './drain.ts';
import { EventBus } from './events.ts';
import { type LoadedGeoTable, loadGeoTable, loadRegionMap, watchGeoTable } from './geo-load.ts';
import type { HealthChecker } from './health.ts';
import { startHealth } from './health-start.ts';
import { closeWhenStopped, type Listener } from './listeners.ts';
import type { Mesh } from './mesh.ts';
import type { PathRouting } from './path-routing.ts';
import { createPublisher, type Publisher } from './publish.ts';
import { openRoutingDb, type RoutingDb, type RoutingRows, readRouting } from './routing-db.ts';
import { reportProblems } from './routing-problems.ts';
import { PROXY_PROTOCOLS } from './routing-rows.ts';
import { watchRoutingDb } from './routing-watch.ts';
import { openSessionLog } from './session-log-open.ts';
import { Succession } from './succession.ts';
import { sweepRegularly } from './sweep.ts';
import { ServiceNotifier } from './systemd.ts';
import { sessionLimit, workerOptions } from './worker-options.ts';
import { CONTROL_OWNER_ID, WorkerPool } from './worker-pool.ts';
import type { EarlyThreads } from './worker-threads.ts';

/** Buffers of this size cost one page each while exchanges are small, and fill for a bulk flow. */
const BUFFER_BYTES = 16_384;
/** Accepting stops at the maximum, but what the kernel had accepted by then is served too. */
const SLOTS_EXTRA = 1024;
/** From the deadline of a drain to the end of the process, generously. */
const STOP_SECS = 5;
/** Above every setting, so the wheel of time-outs never sees the second one. */
const MS = 1000;

/** Everything `run` holds open, so that it can be closed in order. */
class Supervisor {
  readonly #config: Config;
  readonly #threads: EarlyThreads;
  readonly #token: string | null;
  readonly #events = new EventBus();
  readonly #logger: Logger;
  readonly #closers: (() => void)[] = [];
  #pool!: WorkerPool;
  #publisher!: Publisher;
  #access!: AccessPublisher;
  #health: HealthChecker | null = null;
  #drains: BackendDrains | null = null;
  #mesh: Mesh | null = null;
  #paths: PathRouting | null = null;
  #geo!: LoadedGeoTable;
  #admin: AdminServer | null = null;
  #listeners: Listener[] = [];
  readonly #manager: ServiceNotifier;
  readonly #succession: Succession;
  /** What is left to finish was taken over: the service manager's stop means all processes, not this one once more. */
  #sparesSignal = false;
  #stopping = false;
  readonly #backendStateBuffer = createBackendState();
  readonly #backendState = openBackendState(this.#backendStateBuffer);
  /** Time 0 of the client table. */
  readonly #epochMs = monotonicMs();
  readonly #usesNative: boolean;
  readonly #workers: number;
  readonly #counters = new Counters(() => this.#pool.stats());
  #reloadErrors = 0;
  #reloadAll: () => void = () => {};
  #finish!: (exitCode: number) => void;
  readonly #finished = new Promise<number>((resolve) => {
    this.#finish = resolve;
  });

  constructor(config: Config, logger: Logger, threads: EarlyThreads) {
    this.#config = config;
    this.#threads = threads;
    this.#token = readAdminToken(config);
    this.#logger = this.#events.tap(logger);
    for (const line of config.warnings) this.#events.publish('config_problem', 'warn', line, {});
    this.#manager = new ServiceNotifier(process.env, this.#logger);
    this.#usesNative = usesNative(config.engine);
    this.#succession = new Succession(config, this.#usesNative, this.#manager, this.#logger);
    // Without SO_REUSEPORT only one thread can listen on an address.
    this.#workers = this.#usesNative || process.platform === 'linux' ? config.workers : 1;
  }

  async run(): Promise<number> {
    // First, with the privileges that the process has at the start.
    if (this.#config.meshEnabled) {
      this.#mesh = await (await import('./mesh.ts')).startMesh(this.#config, this.#logger);
    }
    try {
      if (this.#mesh !== null) {
        const { PathRouting } = await import('./path-routing.ts');
        this.#paths = new PathRouting(this.#config, this.#mesh, this.#backendState, this.#logger);
      }
      await this.#serve();
    } catch (error) {
      this.#mesh?.abandon();
      throw error;
    }
    return this.#finished;
  }

  async #serve(): Promise<void> {
    const config = this.#config;
    const maxConnections = sessionLimit(config, this.#logger);
    if (config.user !== null) await this.#become(config.user);
    const db = openRoutingDb(config.dbPath);
    this.#pool = new WorkerPool(this.#threads, {
      engine: config.engine,
      count: this.#workers,
      slots: maxConnections + SLOTS_EXTRA,
      bufferBytes: BUFFER_BYTES,
      bufferCount: Math.floor((config.bufferMemoryMb * 2 ** 20) / BUFFER_BYTES),
      logger: this.#logger,
      recordsSessions: config.sessionLog !== 'off',
      onStopped: () => this.#stopped(),
      onBreaker: (backend, change) => this.#noteBreaker(backend, change),
    });
    try {
      await this.#start(db, maxConnections);
    } catch (error) {
      this.#pool.command(COMMAND_STOP);
      throw error;
    }
  }

  /** Before anything but the listeners is open: what follows is then what the account may do. */
  async #become(user: string): Promise<void> {
    const { dbPath, geoipPath } = this.#config;
    const { findAccount, becomeAccount, checkReadable } = await import('./privileges.ts');
    const account = findAccount(user);
    if (this.#usesNative) await this.#listen();
    becomeAccount(account, this.#logger);
    checkReadable(dbPath, 'routing database', account);
    if (geoipPath !== null) checkReadable(geoipPath, 'country data', account);
  }

  async #start(db: RoutingDb, maxConnections: number): Promise<void> {
    const config = this.#config;
    this.#publisher = createPublisher({
      regionMap: await loadRegionMap(config.regionMapPath),
      popRegion: config.region,
      popCountry: config.country,
      backendState: this.#backendState,
      onNewBackend: (index) => {
        this.#counters.restartBackend(index);
        this.#rampUp(index);
      },
      proxyProtocol: PROXY_PROTOCOLS.indexOf(config.proxyProtocolOut),
    });
    if (this.#listeners.length === 0) await this.#listen();
    const rows = readRouting(db);
    await this.#mesh?.setPeers(rows.peers);
    const problems = [...rows.problems];
    const routing = this.#publisher.publish(rows.backends, problems);
    reportProblems(this.#logger, { ...rows, problems });
    this.#access = this.#openAccess(rows);
    const geo = loadGeoTable(config.geoipPath);
    this.#geo = geo;
    const clients = createClientTable(config.clientTableSize, randomWords(2));
    await this.#pool.start(
      {
        global: createGlobalBlock(),
        backendState: this.#backendStateBuffer,
        clients,
        routing: routing.buffer,
        geo: geo.buffer,
        access: this.#access.buffer,
      },
      (index) => this.#optionsOf(index, maxConnections),
      // Clients wait in the kernel's queue until all is ready here: a crowd could take the descriptors that a start needs.
      this.#usesNative,
    );
    this.#startGuards(rows);
    this.#closers.push(
      sweepRegularly(config, openClientTable(clients, CONTROL_OWNER_ID), this.#epochMs),
    );
    this.#followRouting(db);
    this.#followGeo(geo);
    this.#followSignals();
    await this.#succession.takeOver(this.#listeners, () => this.#accept());
    this.#admin = await this.#startAdmin(maxConnections, clients);
    this.#accept();
    this.#logger.info('Listening', {
      event: 'started',
      addresses: this.#listeners.map(({ app, address }) => `${app}@${address}`),
      admin: this.#admin?.address ?? 'off',
      engine: this.#pool.engines().join(', '),
      workers: this.#workers,
      backends: rows.backends.length,
      routingVersion: routing.version,
      countries: geo.source,
      maxConnections,
      user: config.user ?? undefined,
    });
    const where = this.#listeners.map(({ address }) => address).join(', ');
    void this.#manager.send({ READY: 1, STATUS: `Serving ${where}` });
    this.#closers.push(() => this.#succession.withdraw());
    void this.#succession.offer(this.#listeners, (pid) => this.#handOver(pid));
  }

  #accept(): void {
    if (!this.#stopping) this.#pool.command(COMMAND_RUN);
  }

  #openAccess({ access }: RoutingRows): AccessPublisher {
    const { listen, accessDryRun: dryRun } = this.#config;
    const apps = new Map(listen.map(({ app }) => [app, this.#publisher.appIndex(app)]));
    return new AccessPublisher(access, { logger: this.#logger, apps, dryRun });
  }

  /** What keeps sessions from backends that fail. */
  #startGuards(rows: RoutingRows): void {
    const rampUp = (index: number): void => this.#rampUp(index);
    this.#health = startHealth(this.#config, this.#backendState, this.#logger, rampUp);
    this.#closers.push(() => this.#health?.close());
    const publish = (): void => this.#pool.publish('routing', this.#publisher.republish().buffer);
    this.#paths?.start({ publisher: this.#publisher, health: this.#health, publish });
    this.#closers.push(() => this.#paths?.close());
    this.#followRows(rows);
  }

  /** A new process accepts on these listeners: what is left to do here is to let the sessions finish. */
  #handOver(pid: number): void {
    if (this.#stopping) return;
    this.#sparesSignal = true;
    this.#mesh?.release();
    this.#admin?.close();
    this.#health?.close();
    this.#paths?.close();
    this.#drain(COMMAND_HAND_OVER, { takenOverBy: pid });
  }

  async #listen(): Promise<void> {
    this.#listeners = await this.#succession.open(this.#workers, this.#usesNative);
  }

  #optionsOf(index: number, maxConnections: number): WorkerOptions {
    const [listeners, publisher] = [this.#listeners, this.#publisher];
    const place = { index, workers: this.#workers, epochMs: this.#epochMs };
    return workerOptions(this.#config, listeners, publisher, maxConnections, place);
  }

  async #startAdmin(
    maxConnections: number,
    clients: SharedArrayBuffer,
  ): Promise<AdminServer | null> {
    const sessionLog = await openSessionLog(this.#pool.records(), {
      counters: this.#counters,
      logger: this.#logger,
      listeners: this.#listeners,
      publisher: this.#publisher,
    });
    this.#closers.push(() => sessionLog?.close());
    return startAdmin({
      config: this.#config,
      token: this.#token,
      logger: this.#logger,
      events: this.#events,
      listeners: this.#listeners,
      maxConnections,
      epochMs: this.#epochMs,
      geo: () => this.#geo,
      pool: this.#pool,
      publisher: this.#publisher,
      backendState: this.#backendState,
      counters: this.#counters,
      clients: openClientTable(clients, CONTROL_OWNER_ID),
      reloadErrors: () => this.#reloadErrors + this.#access.errors,
      accessRows: () => this.#access.rows,
      accessTable: () => this.#access.table,
      sessionLog,
      health: this.#health,
      mesh: this.#mesh,
      paths: this.#paths,
      isReady: () => !this.#stopping,
    });
  }

  #followRouting(db: RoutingDb): void {
    const { dbPath, dbReloadSecs } = this.#config;
    const start = (open?: RoutingDb): { close(): void } =>
      watchRoutingDb({
        path: dbPath,
        pollMs: dbReloadSecs * MS,
        onChange: (rows) => this.#republish(rows),
        onError: (error) => {
          this.#reloadErrors++;
          this.#logger.error('routing.db cannot be read, the last good data stays', {
            event: 'routing_unreadable',
            path: dbPath,
            reason: errorMessage(error),
          });
        },
        ...(open === undefined ? {} : { db: open }),
      });
    let watch = start(db);
    this.#closers.push(() => watch.close());
    const reloadGeo = this.#reloadAll;
    this.#reloadAll = () => {
      reloadGeo();
      watch.close();
      watch = start();
    };
  }

  #republish(rows: RoutingRows): void {
    // First, so that a backend that comes together with its access rows is never without them.
    if (this.#access.update(rows.access)) this.#pool.publish('access', this.#access.buffer);
    this.#mesh?.update(rows.peers);
    const problems = [...rows.problems];
    const { buffer, version, changed } = this.#publisher.publish(rows.backends, problems);
    reportProblems(this.#logger, { ...rows, problems });
    if (changed) this.#pool.publish('routing', buffer);
    // Also when only columns of checks or drains changed: workers do not see those.
    this.#followRows(rows);
    if (!changed) return;
    const fields = { event: 'routing_reloaded', version, backends: rows.backends.length };
    this.#logger.info('Routing reloaded', fields);
  }

  #openDrains(): BackendDrains {
    const endSessions = (): void => this.#pool.endDrained();
    const drains = new BackendDrains(
      this.#backendState,
      this.#publisher,
      this.#logger,
      endSessions,
    );
    this.#closers.push(() => drains.close());
    return drains;
  }

  /** What of the rows is not the workers' business. */
  #followRows({ backends }: RoutingRows): void {
    // First: no check may blame a new backend for its path.
    this.#paths?.update(backends);
    this.#health?.update(backends, (id) => this.#publisher.backendIndex(id));
    this.#drains ??= this.#openDrains();
    this.#drains.update(backends);
  }

  #followGeo(current: LoadedGeoTable): void {
    const { geoipPath } = this.#config;
    if (geoipPath === null) return;
    const onTable = (loaded: LoadedGeoTable): void => {
      this.#pool.publish('geo', loaded.buffer);
      this.#geo = loaded;
      this.#logger.info('Country data reloaded', {
        event: 'geo_reloaded',
        path: geoipPath,
        description: loaded.description,
      });
    };
    const onError = (error: ProxyError): void => {
      this.#logger.error('Country data cannot be read, the last good data stays', {
        event: 'geo_unreadable',
        path: geoipPath,
        reason: error.message,
      });
    };
    const watch = watchGeoTable({ path: geoipPath, current, onTable, onError });
    this.#closers.push(() => watch.close());
    const reloadRouting = this.#reloadAll;
    this.#reloadAll = () => {
      reloadRouting();
      try {
        onTable(loadGeoTable(geoipPath));
      } catch (error) {
        onError(error as ProxyError);
      }
    };
  }

  #noteBreaker(backend: number, change: number): void {
    const id = this.#publisher.backendId(backend);
    const opened = change === BREAKER_OPENED;
    this.#paths?.noteBreaker(backend, opened);
    const fields = { event: opened ? 'breaker_opened' : 'breaker_closed', backend: id };
    if (opened) {
      this.#logger.warn('A backend is ejected after failures', fields);
      return;
    }
    this.#logger.info('A backend is taken back after successful trials', fields);
    this.#rampUp(backend);
  }

  /** Slow start of a new or recovered backend. */
  #rampUp(backend: number): void {
    const { slowStartSecs } = this.#config;
    if (slowStartSecs === 0) return;
    startRamp(
      this.#backendState,
      backend,
      Math.floor(monotonicMs() - this.#epochMs),
      slowStartSecs * MS,
    );
  }

  #followSignals(): void {
    const stop = (signal: NodeJS.Signals): void => this.#stop(signal);
    const reload = (): void => {
      this.#logger.info('Reloading on SIGHUP', { event: 'reload_requested' });
      const now = Math.round(monotonicMs() * 1000);
      void this.#manager.send({ RELOADING: 1, MONOTONIC_USEC: now });
      this.#reloadAll();
      void this.#manager.send({ READY: 1 });
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
    process.on('SIGHUP', reload);
    this.#closers.push(() => {
      process.off('SIGTERM', stop);
      process.off('SIGINT', stop);
      process.off('SIGHUP', reload);
    });
    if (process.env[FAULT_INJECTION_ENV] === '1') {
      process.on('SIGUSR2', () => this.#pool.crash(0));
    }
  }

  #stop(signal: string): void {
    if (this.#stopping) {
      if (this.#sparesSignal) {
        this.#sparesSignal = false;
        this.#logger.info('Draining after a takeover already, another signal ends at once', {
          signal,
        });
        return;
      }
      this.#logger.warn('Second signal: ending at once', { event: 'stopping', signal });
      this.#pool.command(COMMAND_STOP);
      return;
    }
    this.#succession.withdraw();
    this.#drain(COMMAND_DRAIN, { signal });
  }

  #drain(command: number, cause: Readonly<Record<string, unknown>>): void {
    this.#stopping = true;
    const { shutdownTimeoutSecs } = this.#config;
    const open = this.#counters.total(STAT_CURRENT);
    this.#logger.info('Draining', { event: 'draining', ...cause, open, shutdownTimeoutSecs });
    void this.#manager.send({
      STOPPING: 1,
      STATUS: `Draining ${open} sessions for at most ${shutdownTimeoutSecs} s`,
      EXTEND_TIMEOUT_USEC: Math.round((shutdownTimeoutSecs + STOP_SECS) * 1e6),
    });
    this.#pool.command(command);
    if (this.#usesNative) {
      const workers = Array.from({ length: this.#workers }, (_, index) => index);
      closeWhenStopped(
        this.#listeners,
        workers.map((index) => this.#pool.acceptingStopped(index)),
      );
    }
    const deadline = setTimeout(() => this.#pool.command(COMMAND_STOP), shutdownTimeoutSecs * MS);
    this.#closers.push(() => clearTimeout(deadline));
  }

  #stopped(): void {
    this.#logger.info('Stopped', { sessionsCut: this.#counters.total(STAT_END + REASON_SHUTDOWN) });
    this.#close(0);
  }

  #close(exitCode: number): void {
    for (const close of this.#closers.splice(0)) close();
    this.#mesh?.close();
    this.#admin?.close();
    this.#finish(exitCode);
  }
}

/** Runs the proxy until a signal ends it; resolves with the exit code. Throws ProxyError when it cannot start. */
export function runProxy(config: Config, logger: Logger, threads: EarlyThreads): Promise<number> {
  return new Supervisor(config, logger, threads).run();
}
