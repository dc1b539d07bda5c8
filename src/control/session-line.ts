// One line of the session log: JSON for machines, readable for a terminal, in the form of all other log lines
// (base/log.ts). Written by hand because there may be thousands a second; what is not known is left out.

import { readableLine } from '../base/log.ts';

/** What happened to one connection. */
export interface SessionEvent {
  /** `session_lasting`: it is open and goes on. */
  readonly name: 'session_ended' | 'session_lasting' | 'connection_rejected';
  /** ms since 1970. */
  readonly timeMs: number;
  readonly reason: string;
  /** '' where it is not known: here and below. */
  readonly client: string;
  readonly clientPort: number;
  readonly country: string;
  readonly app: string;
  readonly listener: string;
  readonly backend: string;
  /** How near the backend is, 0 to 3. */
  readonly tier: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** -1: never connected. */
  readonly connectMs: number;
  readonly durationMs: number;
  readonly attempts: number;
  /** Worker, slot and generation: the records of one session have the same, and no other session has. */
  readonly session: string;
}

const MESSAGES: Readonly<Record<SessionEvent['name'], string>> = {
  session_ended: 'Session ended',
  session_lasting: 'Session goes on',
  connection_rejected: 'Connection rejected',
};

const SUMMARY = 'Further connections rejected';
const SUMMARY_EVENT = 'connections_rejected';

/** Milliseconds with microseconds. */
function ms(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** A line with its newline. */
export type SessionLine = (event: SessionEvent) => string;

/** Names that come again and again, as JSON. */
const QUOTED_MAX = 10_000;

export function createJsonLine(): SessionLine {
  const quoted = new Map<string, string>();
  const quote = (text: string): string => {
    const known = quoted.get(text);
    if (known !== undefined) return known;
    if (quoted.size >= QUOTED_MAX) quoted.clear();
    const json = JSON.stringify(text);
    quoted.set(text, json);
    return json;
  };
  // Addresses, country codes, reasons and numbers need no escapes; apps and backends may.
  return (event) => {
    const { name, reason, client, country, listener, app } = event;
    let line = `{"time":"${new Date(event.timeMs).toISOString()}","level":"info"`;
    line += `,"message":"${MESSAGES[name]}","event":"${name}"`;
    if (reason !== '') line += `,"reason":"${reason}"`;
    if (client !== '') line += `,"client":"${client}","clientPort":${event.clientPort}`;
    if (country !== '') line += `,"country":"${country}"`;
    if (app !== '') line += `,"app":${quote(app)}`;
    if (listener !== '') line += `,"listener":"${listener}"`;
    if (name === 'connection_rejected') return `${line}}\n`;
    if (event.backend !== '') line += `,"backend":${quote(event.backend)},"tier":${event.tier}`;
    line += `,"bytesUp":${event.bytesUp},"bytesDown":${event.bytesDown}`;
    if (event.connectMs >= 0) line += `,"connectMs":${ms(event.connectMs)}`;
    line += `,"durationMs":${ms(event.durationMs)},"attempts":${event.attempts}`;
    return `${line},"session":"${event.session}"}\n`;
  };
}

/** The same fields for a terminal. */
export function readableSessionLine(event: SessionEvent): string {
  const json = createJsonLine()(event);
  const { time, level, message, ...fields } = JSON.parse(json) as Record<string, unknown>;
  return readableLine(String(time), 'info', String(message), fields);
}

/** A line about `count` connections that were turned away without a line of their own. */
export type SummaryLine = (reason: string, count: number) => string;

export function jsonSummary(reason: string, count: number): string {
  const head = `{"time":"${new Date().toISOString()}","level":"info"`;
  return `${head},"message":"${SUMMARY}","event":"${SUMMARY_EVENT}","reason":"${reason}","count":${count}}\n`;
}

export function readableSummary(reason: string, count: number): string {
  const fields = { event: SUMMARY_EVENT, reason, count };
  return readableLine(new Date().toISOString(), 'info', SUMMARY, fields);
}
