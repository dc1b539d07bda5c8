// The words of `explain`: why a backend is chosen, loses or cannot be chosen. Pure, from candidate
// to sentence.

import type { Candidate } from '../route/candidates.ts';
import type { ExplainedCandidate } from './explain.ts';
import type { RawBackend } from './routing-rows.ts';

/** By tier; each reads after "it is" and after "tier N is". */
const TIER_TEXT = [
  "in the client's country",
  "in the client's region",
  "in this POP's region",
  'elsewhere',
  'elsewhere behind a degraded path',
] as const;

function tierText(tier: number): string {
  return TIER_TEXT[tier] ?? `tier ${tier}`;
}

/** Short enough for a column, exact enough to see which of two is lower. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
}

/** Why no new client goes to `backend`. */
export function exclusionText(excluded: Candidate['excluded'], backend: RawBackend): string {
  switch (excluded) {
    case 'disabled':
      return backend.deleted ? 'removed' : 'disabled';
    case 'weight 0':
      return 'weight 0, takes no new clients';
    case 'hard limit':
      return `at its hard limit ${backend.hardLimit}`;
    case 'health':
      return 'unhealthy';
    case 'breaker':
      return 'circuit breaker open';
    case 'path':
      return 'no path to it';
    default:
      return excluded;
  }
}

/** One phrase for the row of a candidate; `best` is the chosen one, `pathReason` why its path is not ok. */
export function candidateReason(
  candidate: Candidate,
  backend: RawBackend,
  best: Candidate | null,
  bestId: string | null,
  pathReason = '',
): string {
  const { excluded, degraded } = candidate;
  if (excluded === 'path' && pathReason !== '') return `no path to it: ${pathReason}`;
  if (excluded !== '') return exclusionText(excluded, backend);
  const placed = placeReason(candidate, best, bestId);
  if (!degraded) return placed;
  const why = pathReason === '' ? '' : `: ${pathReason}`;
  return `${placed}; one tier back, its path is degraded${why}`;
}

function placeReason(candidate: Candidate, best: Candidate | null, bestId: string | null): string {
  if (best === null || candidate.index === best.index) {
    return `chosen: ${tierText(candidate.tier)}`;
  }
  if (candidate.tier !== best.tier) return tierText(candidate.tier);
  const distance = candidate.distanceKm ?? 0;
  if (distance > (best.distanceKm ?? 0)) return 'farther away';
  if (candidate.score > best.score) return `score above ${numberText(best.score)}`;
  return `equal, takes turns with ${bestId}`;
}

/** One sentence, without the name of the choice: `explain` prints that before it. */
export function choiceReason(candidates: readonly ExplainedCandidate[], app: string): string {
  const open = candidates.filter(({ candidate }) => candidate.excluded === '');
  const best = open[0]?.candidate;
  if (best === undefined) {
    if (candidates.length > 0) return 'every backend is excluded';
    return app === '*' ? 'there are no backends' : `app ${app} has no backends`;
  }
  const rivals = open.filter(({ candidate }) => candidate.tier === best.tier);
  const where = `it is ${tierText(best.tier)} (tier ${best.tier})`;
  if (rivals.length === 1) {
    return open.length === 1
      ? `${where} and the only backend that takes new clients`
      : `${where} and no other backend is in a tier as good`;
  }
  const equals = rivals.filter(
    ({ candidate }) =>
      candidate.score === best.score && (candidate.distanceKm ?? 0) === (best.distanceKm ?? 0),
  );
  if (equals.length > 1) return `${where} and takes turns with ${equals.length - 1} equal to it`;
  const nearest = rivals.every(
    ({ candidate }) =>
      candidate.index === best.index || (candidate.distanceKm ?? 0) > (best.distanceKm ?? 0),
  );
  return best.tier >= 3 && nearest
    ? `${where} and the nearest of ${rivals.length} there`
    : `${where} and has the lowest score of ${rivals.length} there`;
}
