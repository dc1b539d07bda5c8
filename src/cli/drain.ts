// `edgeproxy backend drain ID`: writes the drain to routing.db, then waits until the backend is
// empty and shows how many sessions are left. The drain does not need the wait: it is in the
// database, and goes on when this command ends.

import { setTimeout as sleep } from 'node:timers/promises';
import { type ConfigFlags, loadConfig } from '../config.ts';
import { drainBackend } from '../control/routing-edit.ts';
import { type AdminAddress, adminText, askedAddress } from './admin-client.ts';
import { numberOption, withDb } from './backend.ts';
import { type DrainPlan, DrainWatch, sessionsText } from './drain-watch.ts';
import { EXIT_DONE, EXIT_FAILED, print, printProblem, usageError } from './output.ts';
import { lookAtBackend } from './proxy-look.ts';

/** 128 + SIGINT, as shells have it. */
const EXIT_INTERRUPTED = 130;
const TIMEOUT_SECS_MAX = 31_536_000;
const RATE_MAX = 1e9;
const LOOK_MS = 250;
/** A page that takes long to make is asked for less often: so many times the time it took, but not too seldom. */
const LOOK_SHARE = 5;
const LOOK_MS_MAX = 2000;
const LINE_MS = 1000;
const CLEAR_LINE = '\r\x1b[K';

/** Prints how a drain goes: JSON lines, one line that changes, or a line per change. */
class DrainReport {
  readonly #id: string;
  readonly #json: boolean;
  readonly #isTerminal: boolean;
  #shown: number | null = null;
  #shownMs = Number.NEGATIVE_INFINITY;

  constructor(id: string, json: boolean) {
    this.#id = id;
    this.#json = json;
    this.#isTerminal = !json && process.stdout.isTTY === true;
  }

  event(name: string, text: string, fields: Record<string, unknown>): void {
    this.#clear();
    if (this.#json) print(JSON.stringify({ event: name, backend: this.#id, ...fields }));
    else print(text);
  }

  /** At most a line per second where lines stay. */
  progress(open: number, closing: boolean, leftMs: number | null, nowMs: number): void {
    const doing = closing ? ', being ended' : '';
    if (this.#isTerminal) {
      const left = leftMs === null || closing ? '' : `, ${Math.ceil(leftMs / 1000)} s left`;
      process.stdout.write(`${CLEAR_LINE}${sessionsText(open)} open${doing || left}`);
      return;
    }
    if (open === this.#shown || nowMs - this.#shownMs < LINE_MS) return;
    this.#shown = open;
    this.#shownMs = nowMs;
    this.event('open', `${sessionsText(open)} open${doing}`, { open, closing });
  }

  /** To standard error, and for `--json` an event as well. */
  problem(name: string, text: string, fields: Record<string, unknown>): void {
    this.#clear();
    if (this.#json) this.event(name, '', fields);
    printProblem(text);
  }

  #clear(): void {
    if (this.#isTerminal) process.stdout.write(CLEAR_LINE);
  }
}

function above0(name: string, text: string | boolean | undefined): number | undefined {
  const value = numberOption(name, text);
  if (value === undefined || (value > 0 && value <= RATE_MAX)) return value;
  throw usageError(`${name} is "${text}", allowed: a number above 0`);
}

function timeoutOption(text: string | boolean | undefined): number | undefined {
  const value = numberOption('--timeout', text);
  if (value === undefined || value <= TIMEOUT_SECS_MAX) return value;
  throw usageError(`--timeout is "${text}", allowed: seconds, up to ${TIMEOUT_SECS_MAX}`);
}

function drainText(id: string, timeout: number | undefined, rate: number | undefined): string {
  const start = `Backend "${id}" is draining`;
  if (timeout === undefined) return `${start}; open sessions go on`;
  const pace = rate === undefined ? '' : `, ${rate} per second`;
  return `${start}; what is open after ${timeout} s is ended${pace}`;
}

export async function drainOne(id: string, flags: ConfigFlags): Promise<number> {
  const timeout = timeoutOption(flags.timeout);
  const rate = above0('--rate', flags.rate);
  if (rate !== undefined && timeout === undefined) {
    throw usageError('--rate is the pace after --timeout, which is missing');
  }
  const wait = flags.wait !== false;
  const address = wait ? askedAddress(flags) : '';
  const { dbPath } = loadConfig(flags, process.env, ['dbPath']);
  const closeAtMs = timeout === undefined ? null : Date.now() + Math.round(timeout * 1000);
  const closeAt = closeAtMs === null ? null : closeAtMs / 1000;
  const closeRate = rate ?? null;
  withDb(flags, true, (db) => drainBackend(db, id, { closeAt, closeRate }));
  const report = new DrainReport(id, flags.json === true);
  const fields = { close_at: closeAt, close_rate: closeRate };
  report.event('draining', drainText(id, timeout, rate), fields);
  if (!wait) return EXIT_DONE;
  if (typeof address === 'string') {
    report.problem('failed', unwatched(id, address), { open: null, reason: address });
    return EXIT_FAILED;
  }
  const plan = { closeAtMs, closeRate, address: adminText(address), dbPath };
  return watchDrain(id, address, plan, report);
}

function unwatched(id: string, reason: string): string {
  return `Cannot wait for backend "${id}", which stays draining: ${reason}`;
}

async function watchDrain(
  id: string,
  address: AdminAddress,
  plan: DrainPlan,
  report: DrainReport,
): Promise<number> {
  const interrupt = new AbortController();
  const stop = (): void => interrupt.abort();
  process.once('SIGINT', stop);
  const watch = new DrainWatch(plan, Date.now());
  try {
    for (;;) {
      const startMs = Date.now();
      const look = await lookAtBackend(address, id);
      const nowMs = Date.now();
      const { done, problem } = watch.see(look, nowMs);
      if (problem !== '') {
        report.problem('failed', unwatched(id, problem), { open: watch.open, reason: problem });
        return EXIT_FAILED;
      }
      if (done) {
        report.event('empty', `Backend "${id}" is empty`, { open: 0 });
        return EXIT_DONE;
      }
      if (watch.open !== null) {
        const leftMs = plan.closeAtMs === null ? null : plan.closeAtMs - nowMs;
        report.progress(watch.open, watch.isClosing(nowMs), leftMs, nowMs);
      }
      const restMs = Math.min(LOOK_MS_MAX, (nowMs - startMs) * LOOK_SHARE);
      const pauseMs = Math.max(LOOK_MS, restMs);
      await sleep(pauseMs, undefined, { signal: interrupt.signal });
    }
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    const left = watch.open === null ? '' : ` with ${sessionsText(watch.open)} open`;
    const text = `Backend "${id}" stays draining${left}; backend undrain ends that`;
    report.problem('interrupted', text, { open: watch.open });
    return EXIT_INTERRUPTED;
  } finally {
    process.off('SIGINT', stop);
  }
}
