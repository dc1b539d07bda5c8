// Judges the path to one peer: ok, degraded or dead, from probes that were answered or lost and from what the device says
// of handshakes and bytes. Pure: the time is an argument, in ms of a monotonic clock. Every state is left later than it is
// entered, so that a path at the limit does not flap.
//
// Probes prove a path both ways, so they count most. Who never answered one (a firewall drops ICMP) is judged by handshakes
// and received bytes alone; so is a peer that stopped to answer, once a new handshake shows that packets do pass.

export type PathState = 'ok' | 'degraded' | 'dead';

export interface PathSettings {
  /** Between two probes. */
  readonly intervalMs: number;
  /** Without any answer for so long the path is dead. */
  readonly deadMs: number;
  /** Share of the probes; 0 = loss does not matter. */
  readonly degradedLoss: number;
  /** Smoothed RTT; 0 = no limit of this kind. */
  readonly degradedRttMs: number;
  /** The same as a multiple of the recent minimum. */
  readonly degradedRttFactor: number;
}

/** What the device says of the peer. */
export interface Handshake {
  /** Age of the last completed one; null: there was none. */
  readonly ageMs: number | null;
  readonly receivedBytes: number;
}

/** Probes whose fate makes up the loss. */
const LOSS_WINDOW = 30;
/** A ratio of fewer probes says little: they count as so many. */
const LOSS_SAMPLES_MIN = 10;
/** One or two lost probes are nothing, whatever the ratio. */
const LOST_MIN = 3;
/** The minimum RTT forgets after ten of these. */
const MINIMUM_SLICE_MS = 60_000;
const MINIMUM_SLICES = 10;
/** A peer in the same room may take five times its 0.2 ms without anybody minding. */
const RTT_SLACK_MS = 50;
/** So many answers in a row above the limit, or it was a hiccup. */
const RTT_ANSWERS = 4;
const SMOOTHING = 1 / 8;
/** Answers in a row that make a dead path a live one. */
const ANSWERS_TO_LIVE = 3;
/** Intervals without a complaint that end the degraded state, at half the loss and four fifths of the RTT. */
const CALM_INTERVALS = 10;
const CALM_LOSS = 1 / 2;
const CALM_RTT = 4 / 5;
/**
 * Of the protocol: keys are refused after 180 s, and whoever sends has new ones before that. Someone who sends and hears
 * nothing for 15 s shakes hands anew, trying every 5 s; a peer that has nothing to say answers with a keepalive after 10 s.
 */
const HANDSHAKE_MS_MAX = 195_000;
const SILENCE_MS_MAX = 30_000;
const FIRST_HANDSHAKE_MS = 5_000;

const NEVER = Number.NEGATIVE_INFINITY;

export interface Path {
  state: PathState;
  /** Why it is not ok; '' while it is. */
  reason: string;
  /** When the state began. */
  sinceMs: number;
  /** Smoothed; NaN before the first answer. */
  rttMs: number;
  /** One bit per probe, the latest lowest, 1 = lost. */
  lostBits: number;
  lostCount: number;
  probes: number;
  /** RTTs of the last answers. */
  readonly recentMs: Float64Array;
  answers: number;
  /** Smallest RTT of each of the last minutes, and the minute of the latest. */
  readonly minimums: Float64Array;
  minute: number;
  answeredAtMs: number;
  answersInRow: number;
  /** When the first probe was sent that came after the last answer; NaN: all are answered. */
  silentSinceMs: number;
  /** When the last answered probe was sent: an older one that is still out does not begin a silence. */
  sentAtMs: number;
  startedMs: number;
  handshakeAtMs: number;
  hasHandshake: boolean;
  /** The device has been asked at all. */
  isKnown: boolean;
  receivedBytes: number;
  receivedAtMs: number;
  calmSinceMs: number;
}

export function createPath(nowMs: number): Path {
  return {
    state: 'ok',
    reason: '',
    sinceMs: nowMs,
    rttMs: Number.NaN,
    lostBits: 0,
    lostCount: 0,
    probes: 0,
    recentMs: new Float64Array(RTT_ANSWERS),
    answers: 0,
    minimums: new Float64Array(MINIMUM_SLICES).fill(Number.POSITIVE_INFINITY),
    minute: Math.floor(nowMs / MINIMUM_SLICE_MS),
    answeredAtMs: NEVER,
    answersInRow: 0,
    silentSinceMs: Number.NaN,
    sentAtMs: NEVER,
    startedMs: nowMs,
    handshakeAtMs: NEVER,
    hasHandshake: false,
    isKnown: false,
    receivedBytes: 0,
    receivedAtMs: nowMs,
    calmSinceMs: nowMs,
  };
}

/** The same peer, asked at another address: what it was stays until that has said something. */
export function retargetPath(path: Path, nowMs: number): Path {
  const { state, reason, sinceMs, startedMs, calmSinceMs } = path;
  const { handshakeAtMs, hasHandshake, isKnown, receivedBytes, receivedAtMs } = path;
  return {
    ...createPath(nowMs),
    ...{ state, reason, sinceMs, startedMs, calmSinceMs },
    ...{ handshakeAtMs, hasHandshake, isKnown, receivedBytes, receivedAtMs },
  };
}

/** A probe went out, or could not because there is no way to the peer. */
export function noteProbe(path: Path, nowMs: number): void {
  path.sentAtMs = nowMs;
  if (Number.isNaN(path.silentSinceMs)) path.silentSinceMs = nowMs;
}

/** The fate of a probe, for the loss: answered in time, or not. */
function countProbe(path: Path, lost: number): void {
  const oldest = path.probes >= LOSS_WINDOW ? (path.lostBits >>> (LOSS_WINDOW - 1)) & 1 : 0;
  path.lostBits = ((path.lostBits << 1) | lost) & (2 ** LOSS_WINDOW - 1);
  path.lostCount += lost - oldest;
  path.probes++;
}

/** The time for an answer is over. It may still come. */
export function noteLost(path: Path): void {
  countProbe(path, 1);
  path.answersInRow = 0;
}

/** An answer to the probe of `sentMs`; `inTime`: it does not count as lost already. */
export function noteAnswer(
  path: Path,
  nowMs: number,
  sentMs: number,
  rttMs: number,
  inTime: boolean,
): void {
  if (inTime) countProbe(path, 0);
  path.answersInRow++;
  path.answeredAtMs = nowMs;
  // Probes sent after that one are still out; the silence, if it is one, began with the first of them, at most an interval
  // later. Taking the answer's own time is good enough and never too early.
  path.silentSinceMs = path.sentAtMs > sentMs ? nowMs : Number.NaN;
  // One that is late waited for a handshake, most likely: its RTT is not the path's.
  if (!inTime) return;
  path.recentMs[path.answers++ % RTT_ANSWERS] = rttMs;
  path.rttMs = Number.isNaN(path.rttMs) ? rttMs : path.rttMs + (rttMs - path.rttMs) * SMOOTHING;
  turnMinutes(path, nowMs);
  const slice = path.minute % MINIMUM_SLICES;
  path.minimums[slice] = Math.min(path.minimums[slice], rttMs);
}

function turnMinutes(path: Path, nowMs: number): void {
  const minute = Math.floor(nowMs / MINIMUM_SLICE_MS);
  const turns = Math.min(minute - path.minute, MINIMUM_SLICES);
  for (let turn = 0; turn < turns; turn++) {
    path.minimums[(minute - turn) % MINIMUM_SLICES] = Number.POSITIVE_INFINITY;
  }
  path.minute = minute;
}

export function noteHandshake(path: Path, nowMs: number, handshake: Handshake): void {
  path.hasHandshake = handshake.ageMs !== null;
  path.handshakeAtMs = handshake.ageMs === null ? NEVER : nowMs - handshake.ageMs;
  // The first look says how much, not when.
  if (path.isKnown && handshake.receivedBytes !== path.receivedBytes) path.receivedAtMs = nowMs;
  path.receivedBytes = handshake.receivedBytes;
  path.isKnown = true;
}

/** When the peer was last heard of, or should have been. */
export function troubleSince(path: Path): number {
  if (path.answeredAtMs !== NEVER) return path.silentSinceMs;
  return Math.max(path.startedMs, path.handshakeAtMs, path.receivedAtMs);
}

/** Lost share of the last probes, 0 before there are some. */
export function pathLoss(path: Path): number {
  return path.lostCount / Math.max(1, Math.min(path.probes, LOSS_WINDOW));
}

/** Smallest RTT of the last ten minutes; NaN before the first answer. */
export function pathRttMinimum(path: Path): number {
  const least = Math.min(...path.minimums);
  return Number.isFinite(least) ? least : path.rttMs;
}

/** Whether probes say something: the peer answers them, or did until a moment ago. */
export function isAnswering(path: Path, settings: PathSettings, nowMs: number): boolean {
  return path.answeredAtMs !== NEVER && !(nowMs - path.silentSinceMs >= settings.deadMs);
}

/** Why the path is dead, '' when it is not. */
function deadReason(path: Path, settings: PathSettings, nowMs: number): string {
  const { silentSinceMs } = path;
  if (Number.isNaN(silentSinceMs)) return '';
  const silentMs = nowMs - silentSinceMs;
  if (silentMs < settings.deadMs) return '';
  if (path.answeredAtMs === NEVER) return withoutProbes(path, settings, nowMs);
  // A handshake well into the silence, and probes after it that were not answered either: they are filtered now.
  const { handshakeAtMs } = path;
  const passes = handshakeAtMs - silentSinceMs >= settings.deadMs;
  if (passes && nowMs - handshakeAtMs >= settings.deadMs) {
    return withoutProbes(path, settings, nowMs);
  }
  return `no answer for ${seconds(silentMs)}`;
}

/** The same for a peer that does not answer probes. They are sent all the same: the protocol's clocks only run so. */
function withoutProbes(path: Path, settings: PathSettings, nowMs: number): string {
  if (!path.isKnown) return '';
  if (!path.hasHandshake) {
    const waitedMs = nowMs - path.startedMs;
    const isLate = waitedMs >= settings.deadMs + FIRST_HANDSHAKE_MS;
    return isLate ? `no handshake for ${seconds(waitedMs)}` : '';
  }
  const ageMs = nowMs - path.handshakeAtMs;
  if (ageMs > HANDSHAKE_MS_MAX) return `the last handshake is ${seconds(ageMs)} old`;
  const unheardMs = nowMs - Math.max(path.receivedAtMs, path.handshakeAtMs);
  return unheardMs > SILENCE_MS_MAX + settings.intervalMs
    ? `nothing received for ${seconds(unheardMs)}`
    : '';
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}

/** The limit of the smoothed RTT, Infinity for none. */
function rttLimit(path: Path, { degradedRttMs, degradedRttFactor }: PathSettings): number {
  const least = pathRttMinimum(path);
  const relative =
    degradedRttFactor === 0
      ? Number.POSITIVE_INFINITY
      : Math.max(least * degradedRttFactor, least + RTT_SLACK_MS);
  return degradedRttMs === 0 ? relative : Math.min(relative, degradedRttMs);
}

/** Why the path is bad, '' when it is not; one that is bad already has to be clearly better. */
function degradedReason(path: Path, settings: PathSettings, nowMs: number): string {
  if (!isAnswering(path, settings, nowMs)) return '';
  const isBad = path.state === 'degraded';
  const { degradedLoss } = settings;
  const samples = Math.max(LOSS_SAMPLES_MIN, Math.min(path.probes, LOSS_WINDOW));
  const ratio = path.lostCount / samples;
  const lossLimit = isBad ? degradedLoss * CALM_LOSS : degradedLoss;
  const enough = path.lostCount >= (isBad ? 2 : LOST_MIN);
  if (degradedLoss > 0 && enough && ratio >= lossLimit) {
    return `${Math.round(pathLoss(path) * 100)} % of the probes are lost`;
  }
  const limit = rttLimit(path, settings) * (isBad ? CALM_RTT : 1);
  const isSlow = path.rttMs > limit && (isBad || Math.min(...path.recentMs) > limit);
  return isSlow ? `the RTT is ${path.rttMs.toFixed(1)} ms` : '';
}

/** Looks at the path anew; true when its state has changed. */
export function judgePath(path: Path, settings: PathSettings, nowMs: number): boolean {
  const dead = deadReason(path, settings, nowMs);
  if (dead !== '') return enter(path, 'dead', dead, nowMs);
  if (path.state === 'dead') return leaveDead(path, settings, nowMs);
  const reason = degradedReason(path, settings, nowMs);
  if (reason !== '') {
    path.calmSinceMs = nowMs;
    return enter(path, 'degraded', reason, nowMs);
  }
  if (path.state === 'ok') return false;
  const calm = nowMs - path.calmSinceMs >= CALM_INTERVALS * settings.intervalMs;
  return calm && enter(path, 'ok', '', nowMs);
}

function leaveDead(path: Path, settings: PathSettings, nowMs: number): boolean {
  // A silence that is not long enough yet is no sign of life; without probes there is nothing to wait for.
  if (isAnswering(path, settings, nowMs)) {
    if (path.answersInRow < ANSWERS_TO_LIVE) return false;
  } else if (!(nowMs - path.silentSinceMs >= settings.deadMs)) return false;
  // What was lost while it was dead is no news about the path as it is now.
  path.lostBits = 0;
  path.lostCount = 0;
  path.probes = 0;
  path.rttMs = Math.min(path.rttMs, ...path.recentMs);
  return enter(path, 'ok', '', nowMs);
}

function enter(path: Path, state: PathState, reason: string, nowMs: number): boolean {
  path.reason = reason;
  if (path.state === state) return false;
  path.state = state;
  path.sinceMs = nowMs;
  return true;
}
