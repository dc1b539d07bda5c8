// Probes the paths to all peers and keeps what is found: state, RTT, loss, MTU. One timer; what has come is read before
// anything is called lost, so a late turn of the event loop costs accuracy of nothing. Probes of many peers are spread over
// the interval. Who uses the findings is told of every change: control/path-routing.ts.

import {
  createPathMtu,
  nextMtuProbe,
  noteMtuAnswer,
  noteMtuLost,
  type PathMtu,
} from './path-mtu.ts';
import {
  createPath,
  isAnswering,
  judgePath,
  noteAnswer,
  noteHandshake,
  noteLost,
  noteProbe,
  type Path,
  type PathSettings,
  type PathState,
  pathLoss,
  pathRttMinimum,
  retargetPath,
  troubleSince,
} from './path-state.ts';

/** Who is probed. */
export interface PathTarget {
  readonly id: string;
  /** Inside the tunnel; null: there is nothing to probe, handshakes alone count. */
  readonly address: ProbeAddress | null;
  /** Of its routes; never more is tried. */
  readonly mtuBytes: number;
}

export interface ProbeAddress {
  readonly family: 4 | 6;
  /** Host order; IPv4 is words 0, 0, 0, address. */
  readonly words: readonly number[];
}

/** What came of sending a probe. */
export type Sent = 'sent' | 'no way' | 'not possible';

/** An answer to a probe. */
export interface EchoAnswer {
  readonly slot: number;
  readonly probe: number;
  readonly address: ProbeAddress;
  /** Of the clock of ProbePort.sentMs; NaN = unknown. */
  readonly arrivedMs: number;
}

/** The way to the network: probe-port.ts, replaced in tests. */
export interface ProbePort {
  /** `bytes` is the size of the whole packet, 0 the smallest. */
  send(target: ProbeAddress, slot: number, probe: number, bytes: number): Sent;
  /** All that has come. */
  receive(): Iterable<EchoAnswer>;
  /** The time a packet that arrives now would be given. */
  arrivalClockMs(): number;
  close(): void;
}

export interface MonitorWorld {
  nowMs(): number;
  wake(delayMs: number, work: () => void): () => void;
  /** From 0 to 1. */
  random(): number;
}

/** What is known of a path, for people and programs. */
export interface PathStatus {
  readonly id: string;
  readonly state: PathState;
  /** '' while it is ok. */
  readonly reason: string;
  /** How long it has been so. */
  readonly stateMs: number;
  /** How long ago the trouble began that made it dead; 0 while it is not. */
  readonly troubleMs: number;
  /** What it is judged by: 'probes', or 'handshakes' of a peer that does not answer them. */
  readonly judgedBy: 'probes' | 'handshakes';
  /** Smoothed, and the smallest of the last minutes; null: no answer. */
  readonly rttMs: number | null;
  readonly rttMinMs: number | null;
  /** Of the last probes; null while they say nothing. */
  readonly loss: number | null;
  /** null: none yet, or not known. */
  readonly handshakeAgeMs: number | null;
  readonly mtuBytes: number;
  /** The interface would take more: large packets were lost. */
  readonly mtuReduced: boolean;
  readonly mtuChanges: number;
  /** Changes of the state, by the state that came. */
  readonly changes: Readonly<Record<PathState, number>>;
}

export interface MonitorOptions {
  readonly settings: PathSettings;
  /** null: probes are not possible here. */
  readonly port: ProbePort | null;
  readonly onState: (status: PathStatus, from: PathState) => void;
  readonly onMtu: (status: PathStatus, fromBytes: number) => void;
}

interface Outstanding {
  readonly sentMs: number;
  /** By the clock of arrivals. */
  readonly sentClockMs: number;
  /** 0: a small one. */
  readonly bytes: number;
  /** Its time is over; it stays a while for a late answer. */
  isLost: boolean;
}

interface Watched {
  target: PathTarget;
  readonly slot: number;
  path: Path;
  mtu: PathMtu;
  mtuChanges: number;
  nextAtMs: number;
  probe: number;
  readonly out: Map<number, Outstanding>;
  /** When a small probe was last answered: is it the size that is lost? */
  smallAnsweredMs: number;
  changes: Record<PathState, number>;
}

/** An answer counts as in time so many intervals after the probe, and a second at least. */
const TIMEOUT_INTERVALS = 2;
const TIMEOUT_MS_MIN = 1000;
/** Of a large probe: so many smoothed RTTs, and a bit. */
const SIZE_RTTS = 3;
const SIZE_SLACK_MS = 100;
/** How long a probe is remembered for a late answer, in time-outs. */
const LATE = 5;
const TICKS_PER_INTERVAL = 10;
const TICK_MS_MIN = 10;
const TICK_MS_MAX = 100;
/** Each probe is off its time by up to this share of the interval, so that peers do not meet in step. */
const JITTER = 0.2;
/** In one turn of the event loop: 500 sends take some 5 ms. */
const SENDS_MAX = 500;

function sameAddress(one: ProbeAddress | null, two: ProbeAddress | null): boolean {
  if (one === null || two === null) return one === two;
  return one.family === two.family && one.words.every((word, at) => word === two.words[at]);
}

export const REAL_WORLD: Pick<MonitorWorld, 'wake' | 'random'> = {
  wake: (delayMs, work) => {
    const timer = setTimeout(work, delayMs).unref();
    return () => clearTimeout(timer);
  },
  random: Math.random,
};

export class PathMonitor {
  readonly #options: MonitorOptions;
  readonly #settings: PathSettings;
  readonly #world: MonitorWorld;
  readonly #watched = new Map<string, Watched>();
  readonly #bySlot = new Map<number, Watched>();
  readonly #timeoutMs: number;
  readonly #tickMs: number;
  #slots = 0;
  #cancel: () => void = () => {};
  #closed = false;

  constructor(options: MonitorOptions, world: MonitorWorld) {
    this.#options = options;
    this.#world = world;
    const { intervalMs, deadMs } = options.settings;
    // Three probes must have had their chance, or one lost packet kills a path.
    this.#settings = { ...options.settings, deadMs: Math.max(deadMs, 3 * intervalMs) };
    this.#timeoutMs = Math.max(TIMEOUT_INTERVALS * intervalMs, TIMEOUT_MS_MIN);
    this.#timeoutMs = Math.min(this.#timeoutMs, this.#settings.deadMs);
    const tickMs = intervalMs / TICKS_PER_INTERVAL;
    this.#tickMs = Math.min(TICK_MS_MAX, Math.max(TICK_MS_MIN, tickMs));
    this.#sleep();
  }

  #sleep(): void {
    if (!this.#closed) this.#cancel = this.#world.wake(this.#tickMs, () => this.#work());
  }

  /** Follows the table of peers: what is known of those that stay is kept. */
  update(targets: readonly PathTarget[]): void {
    const nowMs = this.#world.nowMs();
    const ids = new Set(targets.map(({ id }) => id));
    for (const [id, watched] of this.#watched) {
      if (ids.has(id)) continue;
      this.#restoreMtu(watched);
      this.#watched.delete(id);
      this.#bySlot.delete(watched.slot);
    }
    for (const target of targets) {
      const known = this.#watched.get(target.id);
      if (known === undefined) this.#add(target, nowMs);
      else if (sameAddress(known.target.address, target.address)) this.#retarget(known, target);
      else this.#add(target, nowMs, known);
    }
  }

  #retarget(known: Watched, target: PathTarget): void {
    const sizeChanged = known.target.mtuBytes !== target.mtuBytes;
    known.target = target;
    if (sizeChanged) this.#restoreMtu(known);
  }

  /** The search begins anew, from the full size; whoever was told of less is told of that. */
  #restoreMtu(watched: Watched): void {
    const { target, mtu } = watched;
    const isReduced = mtu.bytes < mtu.fullBytes;
    const family = target.address?.family ?? 4;
    watched.mtu = createPathMtu(family, target.mtuBytes, this.#world.nowMs());
    if (isReduced) this.#sizeChanged(watched, mtu.bytes);
  }

  #add(target: PathTarget, nowMs: number, before?: Watched): void {
    if (before !== undefined) {
      this.#restoreMtu(before);
      this.#bySlot.delete(before.slot);
    }
    const watched: Watched = {
      target,
      slot: this.#slots++ >>> 0,
      path: before === undefined ? createPath(nowMs) : retargetPath(before.path, nowMs),
      mtu: createPathMtu(target.address?.family ?? 4, target.mtuBytes, nowMs),
      mtuChanges: before?.mtuChanges ?? 0,
      // Somewhere in the interval, so that the start is no burst.
      nextAtMs: nowMs + this.#world.random() * this.#settings.intervalMs,
      probe: 0,
      out: new Map(),
      smallAnsweredMs: Number.NEGATIVE_INFINITY,
      changes: before?.changes ?? { ok: 0, degraded: 0, dead: 0 },
    };
    this.#watched.set(target.id, watched);
    this.#bySlot.set(watched.slot, watched);
  }

  /** What the device says of a peer; `ageMs` null: no handshake yet. */
  noteHandshake(id: string, ageMs: number | null, receivedBytes: number): void {
    const watched = this.#watched.get(id);
    if (watched !== undefined) {
      noteHandshake(watched.path, this.#world.nowMs(), { ageMs, receivedBytes });
    }
  }

  #work(): void {
    if (this.#closed) return;
    for (const answer of this.#options.port?.receive() ?? []) this.#answered(answer);
    const nowMs = this.#world.nowMs();
    let sends = SENDS_MAX;
    for (const watched of this.#watched.values()) {
      this.#expire(watched, nowMs);
      if (nowMs >= watched.nextAtMs && sends > 0) {
        sends--;
        this.#probe(watched, nowMs);
      }
      this.#judge(watched, nowMs);
    }
    this.#sleep();
  }

  #probe(watched: Watched, nowMs: number): void {
    const { intervalMs } = this.#settings;
    const jitter = (this.#world.random() - 0.5) * JITTER * intervalMs;
    // From when it was due, unless that is long ago.
    const fromMs = Math.max(watched.nextAtMs, nowMs - intervalMs / 2);
    watched.nextAtMs = fromMs + intervalMs + jitter;
    if (watched.target.address === null || this.#options.port === null) {
      // Nothing to send: the silence that handshakes are judged in begins all the same.
      noteProbe(watched.path, nowMs);
      return;
    }
    const small = this.#send(watched, 0, nowMs);
    if (small === 'not possible') return;
    noteProbe(watched.path, nowMs);
    if (small === 'no way') {
      noteLost(watched.path);
      return;
    }
    if (!isAnswering(watched.path, this.#settings, nowMs)) return;
    const bytes = nextMtuProbe(watched.mtu, nowMs);
    // What the interface does not take cannot pass either.
    if (bytes > 0 && this.#send(watched, bytes, nowMs) !== 'sent') {
      this.#sizeLost(watched, nowMs, true);
    }
  }

  #send(watched: Watched, bytes: number, nowMs: number): Sent {
    const { port } = this.#options;
    const { address } = watched.target;
    if (port === null || address === null) return 'not possible';
    const probe = watched.probe;
    watched.probe = (probe + 1) >>> 0;
    const sentClockMs = port.arrivalClockMs();
    const sent = port.send(address, watched.slot, probe, bytes);
    if (sent === 'sent') {
      watched.out.set(probe, { sentMs: nowMs, sentClockMs, bytes, isLost: false });
    }
    return sent;
  }

  #answered({ slot, probe, address, arrivedMs }: EchoAnswer): void {
    const watched = this.#bySlot.get(slot);
    const sent = watched?.out.get(probe);
    if (watched === undefined || sent === undefined) return;
    if (!sameAddress(watched.target.address, address)) return;
    watched.out.delete(probe);
    const nowMs = this.#world.nowMs();
    if (sent.bytes > 0) {
      if (sent.isLost) return;
      const before = watched.mtu.bytes;
      if (noteMtuAnswer(watched.mtu, this.#settings, nowMs)) this.#sizeChanged(watched, before);
      return;
    }
    // By the kernel's clock, unless somebody set that meanwhile.
    const elapsedMs = nowMs - sent.sentMs;
    const byKernelMs = arrivedMs - sent.sentClockMs;
    const isSane = byKernelMs >= 0 && byKernelMs <= elapsedMs + 1;
    const rttMs = isSane ? byKernelMs : elapsedMs;
    watched.smallAnsweredMs = nowMs;
    noteAnswer(watched.path, nowMs, sent.sentMs, rttMs, !sent.isLost);
  }

  #expire(watched: Watched, nowMs: number): void {
    for (const [probe, sent] of watched.out) {
      const ageMs = nowMs - sent.sentMs;
      if (ageMs < (sent.bytes === 0 ? this.#timeoutMs : this.#sizeTimeoutMs(watched))) continue;
      if (ageMs >= this.#timeoutMs * LATE) watched.out.delete(probe);
      if (sent.isLost) continue;
      sent.isLost = true;
      if (sent.bytes === 0) noteLost(watched.path);
      else this.#sizeLost(watched, nowMs, watched.smallAnsweredMs >= sent.sentMs);
    }
  }

  /** A large packet takes about as long as a small one: a search need not wait for what cannot come any more. */
  #sizeTimeoutMs({ path }: Watched): number {
    const patientMs = SIZE_RTTS * path.rttMs + SIZE_SLACK_MS;
    return Math.min(
      this.#timeoutMs,
      Math.max(TIMEOUT_INTERVALS * this.#settings.intervalMs, patientMs),
    );
  }

  #sizeLost(watched: Watched, nowMs: number, smallPass: boolean): void {
    const before = watched.mtu.bytes;
    const { mtu } = watched;
    if (noteMtuLost(mtu, this.#settings, nowMs, smallPass)) this.#sizeChanged(watched, before);
  }

  #sizeChanged(watched: Watched, before: number): void {
    watched.mtuChanges++;
    this.#options.onMtu(this.#statusOf(watched), before);
  }

  #judge(watched: Watched, nowMs: number): void {
    const from = watched.path.state;
    if (!judgePath(watched.path, this.#settings, nowMs)) return;
    watched.changes[watched.path.state]++;
    this.#options.onState(this.#statusOf(watched), from);
  }

  #statusOf({ target, path, mtu, mtuChanges, changes }: Watched): PathStatus {
    const nowMs = this.#world.nowMs();
    const isProbed = isAnswering(path, this.#settings, nowMs) || path.state === 'dead';
    const numberOrNull = (value: number): number | null => (Number.isNaN(value) ? null : value);
    const answered = Number.isFinite(path.answeredAtMs);
    return {
      id: target.id,
      state: path.state,
      reason: path.reason,
      stateMs: nowMs - path.sinceMs,
      troubleMs: path.state === 'dead' ? nowMs - troubleSince(path) : 0,
      judgedBy: answered && isProbed ? 'probes' : 'handshakes',
      rttMs: numberOrNull(path.rttMs),
      rttMinMs: numberOrNull(pathRttMinimum(path)),
      loss: answered && isProbed && path.probes > 0 ? pathLoss(path) : null,
      handshakeAgeMs: path.hasHandshake ? nowMs - path.handshakeAtMs : null,
      mtuBytes: mtu.bytes,
      mtuReduced: mtu.bytes < mtu.fullBytes,
      mtuChanges,
      changes: { ...changes },
    };
  }

  status(id: string): PathStatus | null {
    const watched = this.#watched.get(id);
    return watched === undefined ? null : this.#statusOf(watched);
  }

  *statuses(): Iterable<PathStatus> {
    for (const watched of this.#watched.values()) yield this.#statusOf(watched);
  }

  /** May be called again: descriptors are closed once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancel();
    this.#options.port?.close();
  }
}
