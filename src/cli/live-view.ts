// What `status` and `top` show: lines of text of a given width, made from what the admin API answers. Nothing here asks or
// prints, so every line can be tested.

import type {
  BackendListData,
  CountriesData,
  EventData,
  StatusData,
} from '../control/api/response-schemas.ts';
import { formatTable } from './table.ts';
import { bytesText, countText, durationText, msText } from './units.ts';

export interface View {
  readonly status: StatusData;
  readonly backends: BackendListData;
  readonly countries: CountriesData;
  /** Oldest first. */
  readonly events: readonly EventData[];
}

type Backend = BackendListData['backends'][number];

/** Columns of the terminal that everything is made for. */
export const WIDTH_MIN = 80;
const ID_COLUMNS = 20;
const COUNTRY_ROWS_MAX = 6;

/** At most `width` columns; what is cut ends in an ellipsis. Control characters would move the cursor. */
function fit(line: string, width: number): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
  const clean = line.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
  return clean.length <= width ? clean : `${clean.slice(0, width - 1)}…`;
}

function engineText({ workers }: StatusData): string {
  const counts = new Map<string, number>();
  for (const { engine } of workers) counts.set(engine, (counts.get(engine) ?? 0) + 1);
  return [...counts].map(([engine, count]) => `${engine} x${count}`).join(', ');
}

/** The counts of a record that are not 0, largest first. */
function nonZero(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([name, count]) => `${name} ${countText(count)}`)
    .join('  ');
}

function summaryLines(status: StatusData): string[] {
  const { pop, sessions, connections, bytes, connect, routing, health, breakers, paths } = status;
  const lost = paths.enabled ? `   paths ${paths.degraded} degraded, ${paths.dead} dead` : '';
  const where = pop.country === null ? pop.region : `${pop.region}/${pop.country}`;
  const draining = status.drain === null ? '' : `, ${status.drain.sessions} sessions left`;
  const rejected = nonZero(status.rejected) || 'none';
  return [
    `edgeproxy ${status.version}  ${where}  ${engineText(status)}  up ${durationText(status.uptime_seconds)}  ${status.state}${draining}`,
    `sessions ${sessions.current} of ${sessions.max}   connections ${countText(connections.per_second)}/s, ${countText(connections.total)} in all   retries ${countText(status.retries)}`,
    `bytes up ${bytesText(bytes.up_per_second)}/s  down ${bytesText(bytes.down_per_second)}/s   connect p50 ${msText(connect.p50_ms)} ms  p99 ${msText(connect.p99_ms)} ms`,
    `buffers ${status.buffers.in_use} in use, ${countText(status.buffers.waits)} waits   bindings ${countText(status.bindings.current)}   routing v${routing.version}, ${routing.backends} backends`,
    `health ${health.enabled ? `${health.unhealthy} of ${health.checked} down` : 'off'}   breakers ${breakers.enabled ? `${breakers.open} open` : 'off'}${lost}   rejected ${countText(status.rejected_per_second)}/s: ${rejected}`,
    `ended: ${nonZero(status.ended) || 'none'}`,
  ];
}

/** What needs somebody's eyes: nothing when all is well. */
function alarmLines({ routing, geo, workers, state }: StatusData): string[] {
  const dead = workers.filter(({ phase }) => phase === 'dead').length;
  return [
    ...(routing.last_error === null ? [] : [`routing.db: ${routing.last_error.message}`]),
    ...(routing.problems_total === 0
      ? []
      : [`${routing.problems_total} rows of routing.db are bad`]),
    ...(geo.last_error === null ? [] : [`country data: ${geo.last_error.message}`]),
    ...(dead === 0 || state !== 'running' ? [] : [`${dead} workers are dead`]),
  ].map((line) => `! ${line}`);
}

function stateText({ excluded, breaker, drain, path }: Backend): string {
  if (drain !== null) return 'draining';
  if (excluded === null && path?.state === 'degraded') return 'path degraded';
  return excluded ?? (breaker.ejections > 0 ? 'ok, was ejected' : 'ok');
}

/** Those with most sessions first, those that serve nobody last. */
function byActivity(one: Backend, other: Backend): number {
  return other.active - one.active || (one.id < other.id ? -1 : 1);
}

function backendLines({ backends, total }: BackendListData, rows: number): string[] {
  const header = ['BACKEND', 'WHERE', 'ACTIVE', 'SOFT', 'HARD', 'CONN/S', 'P50', 'P99', 'STATE'];
  const shown = backends.toSorted(byActivity).slice(0, rows);
  const table = formatTable(
    header,
    shown.map((backend) => [
      fit(backend.id, ID_COLUMNS),
      backend.located_in ?? backend.region,
      String(backend.active),
      String(backend.soft_limit),
      backend.hard_limit === 0 ? '-' : String(backend.hard_limit),
      countText(backend.connections.per_second),
      msText(backend.connect.p50_ms),
      msText(backend.connect.p99_ms),
      stateText(backend),
    ]),
    new Set(['ACTIVE', 'SOFT', 'HARD', 'CONN/S', 'P50', 'P99']),
  );
  const left = total - shown.length;
  return [...table.trimEnd().split('\n'), ...(left > 0 ? [`… and ${left} more`] : [])];
}

function countryLines({ countries }: CountriesData): string[] {
  if (countries.length === 0) return [];
  const shown = countries.slice(0, COUNTRY_ROWS_MAX).map((row) => {
    const rate = `${countText(row.connections_per_second)}/s`;
    return `${row.country ?? 'none'} ${countText(row.sessions)} (${rate})`;
  });
  const left = countries.length - shown.length;
  return [`countries: ${shown.join('  ')}${left > 0 ? `  … ${left} more` : ''}`];
}

function eventLines(events: readonly EventData[], rows: number): string[] {
  return events.slice(-rows).map(({ time, level, message, fields }) => {
    const what = fields.backend ?? fields.worker ?? fields.reason;
    const about =
      what === undefined ? '' : `  ${typeof what === 'string' ? what : JSON.stringify(what)}`;
    return `${time.slice(11, 19)} ${level.padEnd(5)} ${message}${about}`;
  });
}

/** Everything, for a terminal of this size; backends get the rows that are left, events a third of them. */
export function screenLines(view: View, width: number, height: number): string[] {
  const top = [...summaryLines(view.status), ...alarmLines(view.status)];
  const countries = countryLines(view.countries);
  const left = Math.max(4, height - top.length - countries.length - 5);
  const eventRows = Math.min(view.events.length, Math.max(2, Math.floor(left / 3)));
  const lines = [
    ...top,
    '',
    ...backendLines(view.backends, Math.max(1, left - eventRows)),
    '',
    ...countries,
    ...eventLines(view.events, eventRows),
  ];
  return lines.map((line) => fit(line, width)).slice(0, height);
}
