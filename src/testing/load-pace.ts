// Requests at a fixed rate, and how long they took since they were due: a request whose connection is still busy waits, and
// its waiting counts (no coordinated omission). Pure: times are arguments. Typed arrays, because a collection of garbage in
// the load client would look like latency of the proxy.

/** Histogram ticks of a tenth of a microsecond; 64 buckets to each doubling keep the error below 1.6 %. */
const TICKS_PER_MS = 10_000;
const BUCKET_BITS = 6;
const BUCKETS = (32 - BUCKET_BITS) << BUCKET_BITS;
const TICKS_MAX = 2 ** 31 - 1;

export interface Latency {
  readonly count: number;
  /** Microseconds. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export type Histogram = Float64Array;

export function createHistogram(): Histogram {
  return new Float64Array(BUCKETS);
}

function bucketOf(ticks: number): number {
  const shift = Math.max(0, 31 - Math.clz32(ticks) - BUCKET_BITS);
  return (shift << BUCKET_BITS) + (ticks >>> shift);
}

/** The middle of a bucket, in microseconds. */
function bucketMicroseconds(bucket: number): number {
  const shift = Math.max(0, (bucket >> BUCKET_BITS) - 1);
  const first = (bucket - (shift << BUCKET_BITS)) * 2 ** shift;
  return ((first + (2 ** shift - 1) / 2) * 1000) / TICKS_PER_MS;
}

export function recordMs(histogram: Histogram, ms: number): void {
  const ticks = Math.min(TICKS_MAX, Math.max(0, Math.round(ms * TICKS_PER_MS)));
  histogram[bucketOf(ticks)]++;
}

/** Percentiles of a histogram; all 0 when it is empty. */
export function latencyOf(histogram: Histogram): Latency {
  const count = histogram.reduce((sum, inBucket) => sum + inBucket, 0);
  const at = (share: number): number => {
    const rank = Math.max(1, Math.ceil(share * count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += histogram[bucket];
      if (seen >= rank) return bucketMicroseconds(bucket);
    }
    return 0;
  };
  return { count, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1) };
}

export interface Pace {
  /** Since they were due. */
  readonly latencies: Histogram;
  /** Of requests whose connection was free: how late this generator was. Not small, it was too busy to be believed. */
  readonly lateness: Histogram;
  /** Milliseconds: [start, gap between two requests, end of the window]. */
  readonly times: Float64Array;
  /** By connection: answered requests, requests due and not sent, whether one is under way. */
  readonly answered: Float64Array;
  readonly waiting: Int32Array;
  readonly busy: Uint8Array;
  /** The next request due, the first that counts. */
  next: number;
  counted: number;
  /** Sent or waiting, and not answered. */
  open: number;
}

const START = 0;
const GAP = 1;
const END = 2;

/** Request `i` is due at `startMs + i / rate` on connection `i % connections`. */
export function createPace(
  connections: number,
  rate: number,
  startMs: number,
  warmSeconds: number,
  seconds: number,
): Pace {
  return {
    latencies: createHistogram(),
    lateness: createHistogram(),
    times: Float64Array.of(startMs, 1000 / rate, startMs + (warmSeconds + seconds) * 1000),
    answered: new Float64Array(connections),
    waiting: new Int32Array(connections),
    busy: new Uint8Array(connections),
    next: 0,
    counted: Math.ceil(warmSeconds * rate),
    open: 0,
  };
}

/** Takes the next request that is due; the connection to send it on now, -1 when none is due, -2 when it must wait. */
export function takeDue(pace: Pace, now: Float64Array): number {
  const { times, busy, waiting } = pace;
  const dueMs = times[START] + pace.next * times[GAP];
  if (dueMs > now[0] || dueMs >= times[END]) return -1;
  const connection = pace.next % busy.length;
  pace.open++;
  pace.next++;
  if (busy[connection] === 1) {
    waiting[connection]++;
    return -2;
  }
  if (pace.next > pace.counted) recordMs(pace.lateness, now[0] - dueMs);
  busy[connection] = 1;
  return connection;
}

/** Takes note of an answer; true when the connection has a request waiting, to be sent at once. */
export function takeAnswer(pace: Pace, connection: number, now: Float64Array): boolean {
  const { times, busy, waiting, answered } = pace;
  const request = answered[connection] * busy.length + connection;
  answered[connection]++;
  pace.open--;
  if (request >= pace.counted) {
    recordMs(pace.latencies, now[0] - (times[START] + request * times[GAP]));
  }
  if (waiting[connection] === 0) {
    busy[connection] = 0;
    return false;
  }
  waiting[connection]--;
  return true;
}

/** Whether every request of the window was answered. */
export function isPaceOver(pace: Pace): boolean {
  return pace.open === 0 && pace.times[START] + pace.next * pace.times[GAP] >= pace.times[END];
}
