// "Did you mean": the known names closest to a mistyped one, for settings, commands' ids and apps.

/** Edit distance with adjacent swaps counted as one, because those are the commonest slips. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let best = Math.min(
        (previous[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (previous[column - 1] as number) + (same ? 0 : 1),
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        best = Math.min(best, (beforePrevious[column - 2] as number) + 1);
      }
      current.push(best);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length] as number;
}

/** Some 10 ms: 10,000 ids of 10 letters are all compared, of longer ones as many as that time allows. */
const CELLS_MAX = 1_000_000;

/**
 * Up to `limit` of `known` that could be meant by `name`, nearest first; empty when none is close.
 */
export function nearestNames(name: string, known: Iterable<string>, limit = 3): string[] {
  const wanted = name.toLowerCase();
  const found: { candidate: string; distance: number }[] = [];
  let cells = 0;
  for (const candidate of known) {
    const lower = candidate.toLowerCase();
    const length = Math.max(wanted.length, lower.length);
    const contained = wanted.length >= 3 && (lower.includes(wanted) || wanted.includes(lower));
    // A third of the letters wrong is a slip; more is another name. Skip the table when lengths
    // alone decide.
    const allowed = Math.max(1, Math.floor(length / 3));
    const tooFar = Math.abs(wanted.length - lower.length) > allowed;
    if (!tooFar) cells += wanted.length * lower.length;
    const skip = tooFar || cells > CELLS_MAX;
    const distance = skip ? Number.POSITIVE_INFINITY : editDistance(wanted, lower);
    if (distance <= allowed) found.push({ candidate, distance });
    else if (contained) found.push({ candidate, distance: length });
  }
  found.sort((a, b) => a.distance - b.distance || (a.candidate < b.candidate ? -1 : 1));
  return found.slice(0, limit).map((entry) => entry.candidate);
}
