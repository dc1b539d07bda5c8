// Figures of several rounds in one: median and quartiles, and ratios taken within a round.

export interface Spread {
  readonly median: number;
  /** Quartiles: half of the rounds lie between them. */
  readonly q1: number;
  readonly q3: number;
}

/** The value below which `share` of the sorted values lie, between two of them in proportion. */
function quantile(sorted: readonly number[], share: number): number {
  const at = (sorted.length - 1) * share;
  const below = Math.floor(at);
  const above = Math.ceil(at);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
}

export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('Cannot take the median of nothing');
  const sorted = values.toSorted((a, b) => a - b);
  return { median: quantile(sorted, 0.5), q1: quantile(sorted, 0.25), q3: quantile(sorted, 0.75) };
}

/**
 * Spread of the ratios of both in the same round: drift of the machine between rounds cancels out. Rounds that only one of
 * them has are left out; null when none is left.
 */
export function ratiosByRound(
  over: ReadonlyMap<number, number>,
  under: ReadonlyMap<number, number>,
): Spread | null {
  const ratios: number[] = [];
  for (const [round, value] of over) {
    const divisor = under.get(round);
    if (divisor !== undefined && divisor > 0) ratios.push(value / divisor);
  }
  return ratios.length === 0 ? null : spreadOf(ratios);
}
