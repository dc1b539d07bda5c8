// Finds the largest packet that passes the path to one peer. Full-size probes go out now and then; when they are lost while
// small ones are answered, the path swallows large packets (a black hole), and the size that passes is searched by
// bisection. A smaller size is tried to be raised from time to time. Pure: times and fates of probes are arguments.

export interface MtuSettings {
  readonly intervalMs: number;
}

/** Every packet of IPv6 passes below this, and most tunnels do: the first guess. */
const COMMON_BYTES = 1280;
const FLOOR_BYTES = { 4: 576, 6: 1280 } as const;
/** Probes of one size, all lost, that mean it does not pass. */
const LOST_MAX = 3;
/** A full-size probe for so many small ones. */
const CHECK_INTERVALS = 5;
const RAISE_MS = 600_000;
/** The search ends when it knows the MTU this exactly. */
const EXACT_BYTES = 4;

export interface PathMtu {
  /** What the interface takes: never more is tried. */
  readonly fullBytes: number;
  readonly floorBytes: number;
  /** What passes, as far as is known. */
  bytes: number;
  isSearching: boolean;
  /** In a search: the largest size that passes, the smallest that does not, and the one in question. */
  passes: number;
  fails: number;
  trial: number;
  /** Lost probes of the size in question, in a row. */
  lost: number;
  /** A probe is out: its fate comes first. */
  isOut: boolean;
  nextAtMs: number;
  raiseAtMs: number;
}

export function createPathMtu(family: 4 | 6, fullBytes: number, nowMs: number): PathMtu {
  return {
    fullBytes,
    floorBytes: Math.min(FLOOR_BYTES[family], fullBytes),
    bytes: fullBytes,
    isSearching: false,
    passes: 0,
    fails: 0,
    trial: fullBytes,
    lost: 0,
    isOut: false,
    nextAtMs: nowMs,
    raiseAtMs: nowMs + RAISE_MS,
  };
}

/** The size of the packet to send now, 0 = none; it counts as sent. */
export function nextMtuProbe(mtu: PathMtu, nowMs: number): number {
  if (mtu.isOut || nowMs < mtu.nextAtMs) return 0;
  const canRaise = !mtu.isSearching && mtu.bytes < mtu.fullBytes && mtu.lost === 0;
  if (canRaise && nowMs >= mtu.raiseAtMs) {
    search(mtu, mtu.bytes, mtu.fullBytes + 1, mtu.fullBytes);
    mtu.raiseAtMs = nowMs + RAISE_MS;
  }
  mtu.isOut = true;
  return mtu.trial;
}

/** Its probe was answered; true when `bytes` has changed. */
export function noteMtuAnswer(mtu: PathMtu, settings: MtuSettings, nowMs: number): boolean {
  mtu.isOut = false;
  mtu.lost = 0;
  if (!mtu.isSearching) {
    mtu.nextAtMs = nowMs + CHECK_INTERVALS * settings.intervalMs;
    return false;
  }
  mtu.nextAtMs = nowMs;
  mtu.passes = mtu.trial;
  return stepSearch(mtu, settings, nowMs);
}

/**
 * Its probe was lost; true when `bytes` has changed. `smallPass`: small ones sent around it were answered, so that it is
 * the size that was lost.
 */
export function noteMtuLost(
  mtu: PathMtu,
  settings: MtuSettings,
  nowMs: number,
  smallPass: boolean,
): boolean {
  mtu.isOut = false;
  mtu.nextAtMs = nowMs;
  if (!smallPass) {
    // The path as a whole is in trouble: nothing is learnt, and a search begins anew when it is over.
    if (mtu.isSearching) mtu.raiseAtMs = nowMs + CHECK_INTERVALS * settings.intervalMs;
    mtu.isSearching = false;
    mtu.trial = mtu.bytes;
    mtu.lost = 0;
    mtu.nextAtMs = nowMs + CHECK_INTERVALS * settings.intervalMs;
    return false;
  }
  if (++mtu.lost < LOST_MAX) return false;
  mtu.lost = 0;
  if (mtu.isSearching) {
    mtu.fails = mtu.trial;
    return stepSearch(mtu, settings, nowMs);
  }
  if (mtu.bytes <= mtu.floorBytes) return false;
  const guess = mtu.bytes > COMMON_BYTES ? COMMON_BYTES : middle(mtu.floorBytes, mtu.bytes);
  search(mtu, mtu.floorBytes, mtu.bytes, guess);
  if (guess <= mtu.floorBytes) mtu.trial = middle(mtu.passes, mtu.fails);
  mtu.raiseAtMs = nowMs + RAISE_MS;
  // What is sure to pass at once, so that transfers go on while the rest is found out.
  mtu.bytes = Math.max(mtu.floorBytes, Math.min(guess, COMMON_BYTES));
  return true;
}

function middle(low: number, high: number): number {
  return (low + high) >> 1;
}

function search(mtu: PathMtu, passes: number, fails: number, trial: number): void {
  mtu.isSearching = true;
  mtu.passes = passes;
  mtu.fails = fails;
  mtu.trial = trial;
  mtu.lost = 0;
}

/** The next size, or the end of the search. */
function stepSearch(mtu: PathMtu, settings: MtuSettings, nowMs: number): boolean {
  const before = mtu.bytes;
  if (mtu.fails - mtu.passes > EXACT_BYTES) {
    mtu.trial = middle(mtu.passes, mtu.fails);
    // A guess that turned out too large is no relief.
    if (mtu.bytes >= mtu.fails) mtu.bytes = mtu.floorBytes;
    return mtu.bytes !== before;
  }
  mtu.isSearching = false;
  mtu.bytes = mtu.passes;
  mtu.trial = mtu.bytes;
  mtu.nextAtMs = nowMs + CHECK_INTERVALS * settings.intervalMs;
  return mtu.bytes !== before;
}
