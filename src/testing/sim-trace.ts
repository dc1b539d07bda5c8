// What happened in a simulation: the last events in a ring, to be shown when a check fails, and a hash over all of them,
// by which two runs of one seed are compared.

export class SimFailure extends Error {
  /** Worker and slot the failure is about, -1 = none in particular. */
  readonly worker: number;
  readonly slot: number;

  constructor(message: string, worker = -1, slot = -1) {
    super(message);
    this.worker = worker;
    this.slot = slot;
  }
}

/** Stops the run with a violation of what must hold. */
export function fail(message: string, worker = -1, slot = -1): never {
  throw new SimFailure(message, worker, slot);
}

const RECORDS = 16_384;
const RECORD_WORDS = 7;

/** Kinds of record, by index. */
const KINDS = [
  'accepted',
  'accept-error',
  'connect',
  'receive',
  'send',
  'pump',
  'cancel-receive',
  'stop-pump',
  'cancel',
  'shutdown',
  'close',
  'reset',
  'event-connect',
  'event-receive',
  'event-send',
  'event-pump',
  'rst-arrived',
  'peer-fin',
  'peer-close',
  'peer-reset',
  'publish',
  'command',
  'open-socket',
  'peer-lost',
] as const;

export type TraceKind = (typeof KINDS)[number];
const NUMBERS = new Map<TraceKind, number>(KINDS.map((kind, number) => [kind, number]));

export function traceKind(kind: TraceKind): number {
  return NUMBERS.get(kind) as number;
}

export class SimTrace {
  #records = 0;
  readonly #words = new Int32Array(RECORDS * RECORD_WORDS);
  readonly #times = new Float64Array(RECORDS);
  readonly #hash = Int32Array.of(0x811c_9dc5 | 0);
  /** Step and time of what is recorded, kept by the run. */
  step = 0;
  readonly clock = new Float64Array(1);

  /** `worker` and `slot` name the session, -1 = none; the rest is what the kind says. */
  add(kind: number, worker: number, endpoint: number, one: number, two: number, three = 0): void {
    const record = this.#records++ % RECORDS;
    const at = record * RECORD_WORDS;
    const words = this.#words;
    words[at] = kind;
    words[at + 1] = worker;
    words[at + 2] = endpoint;
    words[at + 3] = one;
    words[at + 4] = two;
    words[at + 5] = three;
    words[at + 6] = this.step;
    this.#times[record] = this.clock[0];
    let hash = this.#hash[0] ^ Math.floor(this.clock[0] * 1000);
    for (let word = 0; word < 6; word++) hash = Math.imul(hash ^ words[at + word], 0x0100_0193);
    this.#hash[0] = hash ^ (hash >>> 15);
  }

  /** Equal for equal histories. */
  hash(): string {
    return (this.#hash[0] >>> 0).toString(16).padStart(8, '0');
  }

  /** The last records of a session, or of all sessions when `slot` is -1. */
  lines(worker: number, slot: number, countMax: number): string[] {
    const lines: string[] = [];
    const first = Math.max(0, this.#records - RECORDS);
    for (let index = this.#records - 1; index >= first && lines.length < countMax; index--) {
      const at = (index % RECORDS) * RECORD_WORDS;
      const [kind, ofWorker, endpoint, one, two, three, step] = this.#words.subarray(at, at + 7);
      const wanted = slot < 0 || (ofWorker === worker && (endpoint as number) >> 1 === slot);
      if (!wanted) continue;
      const time = this.#times[index % RECORDS]?.toFixed(3);
      lines.unshift(
        `  step ${step} t=${time} worker ${ofWorker} endpoint ${endpoint} ` +
          `${KINDS[kind as number]} ${one} ${two} ${three}`,
      );
    }
    return lines;
  }
}
