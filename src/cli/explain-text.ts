// How `edgeproxy explain` is printed, from what explanationJson() says: of the rows of routing.db, or of a running proxy.

import { countryNameOf } from '../control/address-facts.ts';
import type { explanationJson } from '../control/explain.ts';
import { numberText } from '../control/explain-reasons.ts';
import { print } from './output.ts';
import { formatTable } from './table.ts';

export type ShownExplanation = ReturnType<typeof explanationJson>;

function shownNumber(value: number | null): string {
  return value === null ? '-' : numberText(value);
}

export function printExplanation(shown: ShownExplanation): void {
  const { ip, country, region, pop, app, access, choice, candidates } = shown;
  const where =
    country === null
      ? `none: ${shown.country_reason}`
      : `${countryNameOf(country)}, region ${region}`;
  print(`Client   ${ip}`);
  print(`Country  ${where}`);
  print(`POP      region ${pop.region}, country ${pop.country ?? 'not set'}`);
  print(`App      ${app === '*' ? 'any' : app}`);
  const dryRun = !access.allowed && access.dry_run ? ', but a dry run only counts it' : '';
  print(`Access   ${access.allowed ? 'allowed' : 'denied'}${dryRun}: ${access.reason}`);
  print(`Choice   ${choice ?? 'none'}: ${shown.reason}`);
  if (candidates.length > 0) {
    const header = ['', 'BACKEND', 'WHERE', 'TIER', 'SCORE', 'KM', 'RESULT'];
    const rows = candidates.map((candidate) => [
      candidate.id === choice ? '*' : '',
      candidate.id,
      `${candidate.region}/${candidate.country ?? '-'}`,
      String(candidate.tier),
      shownNumber(candidate.score),
      candidate.distance_km === null ? '' : numberText(Math.round(candidate.distance_km)),
      candidate.reason,
    ]);
    print(`\n${formatTable(header, rows, new Set(['TIER', 'SCORE', 'KM'])).trimEnd()}`);
  }
  print(`\n${shown.note}`);
}
