// Waiting in tests: for a condition, never for a time. The limit only turns a hang into a failure with a name.

import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 5;
const LIMIT_MS = 15_000;

/** Polls until `condition` gives something truthy and returns it; fails naming `what` after a generous limit. */
export async function until<Value>(
  what: string,
  condition: () => Value | Promise<Value>,
  limitMs = LIMIT_MS,
): Promise<NonNullable<Value>> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`Waited in vain for ${what}`);
    await delay(POLL_MS);
  }
}

/** The promise, or a failure naming `what` when it does not settle. */
export async function within<Value>(
  what: string,
  promise: Promise<Value>,
  limitMs = LIMIT_MS,
): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  // Made here, so that its stack tells who waited.
  const failure = new Error(`Waited in vain for ${what}`);
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(failure), limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/** A value that stays the same over `polls` looks: used where "nothing moves any more" is what is waited for. */
export async function untilStill(
  what: string,
  read: () => number,
  polls = 20,
  limitMs = LIMIT_MS,
): Promise<number> {
  let last = read();
  let same = 0;
  await until(
    what,
    () => {
      const now = read();
      same = now === last ? same + 1 : 0;
      last = now;
      return same >= polls;
    },
    limitMs,
  );
  return last;
}
