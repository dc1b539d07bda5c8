// The session log: empties the workers' rings of records (proxy/session-records.ts), gives each record to those who
// subscribed, keeps the last ones, and writes a line for each to standard output. It looks for records instead of being
// woken for each: every 50 ms while there are some, twice a second otherwise; what it does in one turn is bounded.
//
// Connections turned away beyond what workers record one by one are summed up: a line per reason and second with a count.

import { isatty } from 'node:tty';
import type { Logger } from '../base/log.ts';
import {
  firstRecord,
  openRecordRing,
  type RecordRing,
  recordsDropped,
  recordsWaiting,
  releaseRecord,
} from '../base/record-ring.ts';
import { CLOSE_REASONS, REJECT_REASONS } from '../proxy/close-reason.ts';
import * as record from '../proxy/session-records.ts';
import { STAT_RECORDS_LIMITED, STAT_REJECTED } from '../proxy/stats.ts';
import { countryCode } from '../route/regions.ts';
import { monotonicMs } from '../sys/clock.ts';
import { formatAddress, isMapped } from '../sys/sockaddr.ts';
import type { Counters } from './counters.ts';
import { LogOutput } from './log-output.ts';
import type { Publisher } from './publish.ts';
import {
  createJsonLine,
  jsonSummary,
  readableSessionLine,
  readableSummary,
  type SessionEvent,
  type SessionLine,
  type SummaryLine,
} from './session-line.ts';

export type { SessionEvent } from './session-line.ts';

const STDOUT = 1;
const POLL_MS = 50;
const POLL_IDLE_MS = 500;
/** Records in one turn: some 2 ms. */
const TURN_RECORDS = 500;
const RECENT_MAX = 1000;
const SUMMARY_MS = 1000;
const REPORT_MS = 60_000;

export interface SessionLogOptions {
  readonly counters: Counters;
  readonly logger: Logger;
  /** By index. */
  readonly listeners: readonly { readonly app: string; readonly address: string }[];
  /** Knows the ids of backends. */
  readonly publisher: Pick<Publisher, 'backendName'>;
  /** Replaced in tests. */
  readonly output?: { fd: number; json: boolean };
}

/** Of a connection that was turned away. */
const NO_SESSION = {
  country: '',
  backend: '',
  tier: 0,
  bytesUp: 0,
  bytesDown: 0,
  connectMs: -1,
  durationMs: 0,
  attempts: 0,
  session: '',
};

type Subscriber = (event: SessionEvent) => void;

export class SessionLog {
  readonly #options: SessionLogOptions;
  readonly #rings: readonly RecordRing[];
  readonly #output: LogOutput;
  readonly #line: SessionLine;
  readonly #summary: SummaryLine;
  readonly #subscribers = new Set<Subscriber>();
  readonly #recent: SessionEvent[] = [];
  /** By reason: rejections that have a line, or are in a sum; and those that were missing at the last sum. */
  readonly #rejected = new Float64Array(REJECT_REASONS.length);
  readonly #missing = new Float64Array(REJECT_REASONS.length);
  #summedAt = 0;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #dropsReported = 0;
  #pollMs = POLL_MS;
  #timer: NodeJS.Timeout | undefined;
  #turn: NodeJS.Immediate | undefined;
  /** Lines written, or waiting to be. */
  lines = 0;

  /** `rings` by worker; they stay the same. */
  constructor(rings: readonly SharedArrayBuffer[], options: SessionLogOptions) {
    this.#options = options;
    this.#rings = rings.map((ring) => openRecordRing(ring, record.RECORD_WORDS));
    const { fd, json } = options.output ?? { fd: STDOUT, json: !isatty(STDOUT) };
    this.#output = new LogOutput(fd);
    this.#line = json ? createJsonLine() : readableSessionLine;
    this.#summary = json ? jsonSummary : readableSummary;
    this.#schedule();
  }

  /** Calls `subscriber` with every event from now on, until the returned function is called. */
  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  /** The last events, oldest first. */
  recent(): readonly SessionEvent[] {
    return this.#recent;
  }

  /** Records and lines that are lost, by where. */
  get dropped(): { readonly ring: number; readonly limit: number; readonly output: number } {
    return {
      ring: this.#rings.reduce((sum, ring) => sum + recordsDropped(ring), 0),
      limit: this.#options.counters.total(STAT_RECORDS_LIMITED),
      output: this.#output.dropped,
    };
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#poll(), this.#pollMs).unref();
  }

  #poll(): void {
    const found = this.#empty(TURN_RECORDS);
    this.#output.flush();
    if (this.#rings.some((ring) => recordsWaiting(ring) > 0)) {
      this.#turn = setImmediate(() => this.#poll());
      return;
    }
    this.#pollMs = found ? POLL_MS : Math.min(POLL_IDLE_MS, this.#pollMs * 2);
    const nowMs = monotonicMs();
    if (nowMs - this.#summedAt >= SUMMARY_MS) {
      this.#summedAt = nowMs;
      this.#sumUpRejections(false);
      this.#reportDrops(nowMs);
    }
    this.#schedule();
  }

  /** Takes up to `most` records, as many from each worker. False: there was none. */
  #empty(most: number): boolean {
    const toWallMs = Date.now() - monotonicMs();
    const share = Math.ceil(most / this.#rings.length);
    let found = false;
    for (let index = 0; index < this.#rings.length; index++) {
      const ring = this.#rings[index] as RecordRing;
      for (let left = Math.min(share, recordsWaiting(ring)); left > 0; left--) {
        const event = this.#read(ring, index + 1, toWallMs);
        releaseRecord(ring);
        this.#tell(event);
        found = true;
      }
    }
    return found;
  }

  #tell(event: SessionEvent): void {
    this.#recent.push(event);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
    for (const subscriber of this.#subscribers) subscriber(event);
    if (!this.#output.isFull) this.#write(this.#line(event));
    else this.#output.dropped++;
  }

  #write(line: string): void {
    this.lines++;
    this.#output.add(line);
  }

  #read(ring: RecordRing, worker: number, toWallMs: number): SessionEvent {
    const { words, doubles } = ring;
    const at = firstRecord(ring);
    const times = (at + record.RECORD_TIMES) / 2;
    const kind = words[at + record.RECORD_KIND];
    const reason = words[at + record.RECORD_REASON];
    const listener = this.#options.listeners[words[at + record.RECORD_LISTENER]];
    const event = {
      timeMs: toWallMs + doubles[times + record.TIME_NOW],
      client: clientText(words, at + record.RECORD_CLIENT),
      clientPort: words[at + record.RECORD_CLIENT_PORT],
      app: listener?.app ?? '',
      listener: listener?.address ?? '',
    };
    if (kind === record.RECORD_REJECTION) {
      this.#rejected[reason]++;
      const { name } = REJECT_REASONS[reason];
      return { ...NO_SESSION, ...event, name: 'connection_rejected', reason: name };
    }
    const backend = words[at + record.RECORD_BACKEND] - 1;
    const incarnation = words[at + record.RECORD_INCARNATION];
    const slot = words[at + record.RECORD_SLOT];
    const ended = kind === record.RECORD_END;
    return {
      ...event,
      name: ended ? 'session_ended' : 'session_lasting',
      reason: ended ? CLOSE_REASONS[reason].name : '',
      country: countryCode(words[at + record.RECORD_COUNTRY]),
      backend: backend < 0 ? '' : this.#options.publisher.backendName(backend, incarnation),
      tier: words[at + record.RECORD_TIER],
      bytesUp: doubles[times + record.TIME_BYTES_UP],
      bytesDown: doubles[times + record.TIME_BYTES_DOWN],
      connectMs: doubles[times + record.TIME_CONNECT],
      durationMs: doubles[times + record.TIME_OPEN],
      attempts: words[at + record.RECORD_ATTEMPTS],
      session: `${worker}.${slot}.${words[at + record.RECORD_GENERATION]}`,
    };
  }

  /**
   * A line for each reason that connections were turned away for without one of their own. What is missing now may only
   * be on its way through a ring: it counts when it was missing a second ago, too, or at the end.
   */
  #sumUpRejections(isLast: boolean): void {
    for (const [reason, { name }] of REJECT_REASONS.entries()) {
      const total = this.#options.counters.total(STAT_REJECTED + reason);
      const missing = total - this.#rejected[reason];
      const count = isLast ? missing : Math.min(missing, this.#missing[reason]);
      if (count > 0) {
        this.#rejected[reason] += count;
        this.#write(this.#summary(name, count));
      }
      this.#missing[reason] = missing - Math.max(0, count);
    }
  }

  /** Says that lines were lost, at most once in REPORT_MS. */
  #reportDrops(nowMs: number): void {
    const { ring, output } = this.dropped;
    const lost = ring + output - this.#dropsReported;
    if (lost === 0 || nowMs - this.#reportedAt < REPORT_MS) return;
    this.#reportedAt = nowMs;
    this.#dropsReported += lost;
    this.#options.logger.warn('Lines of the session log were dropped', { lines: lost });
  }

  /** Empties the rings, and writes what the reader takes within a moment. The workers have stopped. */
  close(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#turn);
    while (this.#empty(TURN_RECORDS)) this.#output.flush();
    this.#sumUpRejections(true);
    this.#output.close();
    this.#reportDrops(Number.POSITIVE_INFINITY);
  }
}

/** '' when the address is not known. */
function clientText(words: Int32Array, at: number): string {
  const client = words.subarray(at, at + 4);
  if ((client[0] | client[1] | client[2] | client[3]) === 0) return '';
  return formatAddress(isMapped(client[0], client[1], client[2]) ? 4 : 6, client);
}
