// Assertions for programmer mistakes: a failed one ends the process or the worker, it is never caught.
// Plain conditions only; callers build no message on a hot path.

/** Throws when `condition` is false. `message` must be a constant string. */
export function assert(condition: boolean, message = 'Assertion failed'): asserts condition {
  if (!condition) throw new Error(message);
}
