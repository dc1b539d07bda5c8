// A process that puts load on a proxy, on the io_uring engine. It takes orders as JSON lines on its input, answers each
// with a JSON line, and ends with its input. One order is one measurement: warm up, then a window in which operations,
// bytes and the CPU time of the named processes are counted, then an orderly end of its connections.
//
// Every connection comes from one of `clients` loopback addresses (127.1.0.0 and on), so that ports never run out and the
// proxy sees many clients.

import { createInterface } from 'node:readline';
import {
  EVENT_BUFFER,
  EVENT_ENDPOINT,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  OP_CONNECT,
  OP_RECEIVE,
  OP_SEND,
} from '../engine/proactor.ts';
import { UringEngine } from '../engine/uring.ts';
import { monotonicMs, readMonotonic } from '../sys/clock.ts';
import { ENOBUFS } from '../sys/errno.ts';
import { createEventfd } from '../sys/eventfd.ts';
import { checked, native, num } from '../sys/native.ts';
import {
  SCRATCH_SOCKADDR,
  SCRATCH_VALUE,
  SOCKADDR_POINTER,
  scratchWords,
  VALUE_POINTER,
} from '../sys/scratch.ts';
import { encodeSockaddrWords } from '../sys/sockaddr.ts';
import { explainRefusal } from '../sys/uring.ts';
import {
  createPace,
  isPaceOver,
  type Latency,
  latencyOf,
  type Pace,
  takeAnswer,
  takeDue,
} from './load-pace.ts';
import { cpuNanoseconds, type MachineUse, machineUse, machineUseBetween } from './load-usage.ts';

/**
 * connect: open, one exchange, close, again and again. exchange: exchanges on open connections. paced: the same at `rate`,
 * with latencies. download, upload, both: as fast as it goes. hold: open, one exchange each, and keep. release: close what
 * `hold` kept.
 */
export type LoadMode =
  | 'connect'
  | 'exchange'
  | 'paced'
  | 'download'
  | 'upload'
  | 'both'
  | 'hold'
  | 'release';

export interface LoadOrder {
  readonly mode: LoadMode;
  readonly port: number;
  /** Connections open at once. */
  readonly connections: number;
  /** The window opens when both have passed… */
  readonly warmSeconds: number;
  readonly warmOperations: number;
  /** …and closes when both of these have. */
  readonly seconds: number;
  readonly operations: number;
  readonly clients: number;
  /** Mode paced: requests per second, over all connections. */
  readonly rate: number;
  /** Processes whose CPU time in the window is wanted. */
  readonly pids: readonly number[];
}

export interface LoadReport {
  /** Of the window: connections or exchanges completed. */
  readonly operations: number;
  readonly bytes: number;
  readonly seconds: number;
  /** By pid of the order. */
  readonly cpuNanoseconds: readonly number[];
  readonly machine: MachineUse;
  /** Of the whole order. */
  readonly failures: number;
  /** Mode paced: since requests were due, and how late this client sent them where it could. */
  readonly latency: Latency | null;
  readonly lateness: Latency | null;
}

const SLOTS = 131_072;
const BUFFER_BYTES = 131_072;
const BUFFER_COUNT = 4096;
const MESSAGE_BYTES = 64;
/** Connects at once while many connections are opened: below every proxy's listen queue. */
const OPENING_MAX = 128;
const STUCK_MS = 15_000;
const TARGET = Uint32Array.of(0, 0, 0, 0x7f00_0001);
const CLIENT_FIRST = 0x7f01_0001;
const CLIENT_WORDS = new Uint32Array(4);
const IPPROTO_IP = 0n;
/** ip(7): the port is chosen at connect, where only the pair of addresses must be free. */
const IP_BIND_ADDRESS_NO_PORT = 24n;

const CLOSED = 0;
const CONNECTING = 1;
const OPEN = 2;
const ENDING = 3;

const state = new Uint8Array(SLOTS);
const sockets = new Int32Array(SLOTS);
const generation = new Int32Array(SLOTS);
const received = new Int32Array(SLOTS);
const sending = new Uint8Array(SLOTS);
const receiving = new Uint8Array(SLOTS);

function openEngine(): UringEngine {
  const opened = UringEngine.open({
    slots: SLOTS,
    wakeFd: createEventfd(),
    bufferBytes: BUFFER_BYTES,
    bufferCount: BUFFER_COUNT,
  });
  if (typeof opened === 'number') throw new Error(`Cannot start: ${explainRefusal(opened)}`);
  return opened;
}

const engine = openEngine();
/** Never received into: the engine hands the last buffer out only once all others are taken. */
const MESSAGE_BUFFER = engine.bufferCount - 1;

let order: LoadOrder;
let nextClient = 0;
let running = false;
let opened = 0;
let opening = 0;
let operations = 0;
let bytes = 0;
let failures = 0;

const now = new Float64Array(1);
let pace: Pace = createPace(1, 1, 0, 0, 0);

function isUpload(): boolean {
  return order.mode === 'upload' || order.mode === 'both';
}

function isBulk(): boolean {
  return order.mode === 'download' || isUpload();
}

function bindClient(socket: number): number {
  CLIENT_WORDS[3] = CLIENT_FIRST + nextClient;
  nextClient = (nextClient + 1) % order.clients;
  scratchWords[SCRATCH_VALUE / 4] = 1;
  native.setsockopt(num(socket), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, VALUE_POINTER, 4n);
  const length = encodeSockaddrWords(scratchWords, SCRATCH_SOCKADDR / 4, 4, CLIENT_WORDS, 0, 0);
  return checked(native.bind(num(socket), SOCKADDR_POINTER, num(length)));
}

function open(slot: number): void {
  const socket = engine.openSocket(4);
  if (socket < 0) throw new Error(`Cannot open a socket: errno ${-socket}`);
  const bound = bindClient(socket);
  if (bound < 0) throw new Error(`Cannot bind a client address: errno ${-bound}`);
  state[slot] = CONNECTING;
  sockets[slot] = socket;
  generation[slot] = (generation[slot] + 1) & 0xff_ffff;
  received[slot] = 0;
  opened++;
  opening++;
  engine.connect(slot * 2, generation[slot], socket, 4, TARGET, 0, order.port);
}

function send(slot: number, count: number): void {
  sending[slot] = 1;
  engine.send(slot * 2, generation[slot], sockets[slot], MESSAGE_BUFFER, 0, count);
}

function onConnect(slot: number, result: number): void {
  opening--;
  if (result < 0) {
    failures++;
    settle(slot);
    return;
  }
  state[slot] = OPEN;
  receiving[slot] = 1;
  engine.receive(slot * 2, generation[slot], sockets[slot]);
  if (isUpload()) send(slot, BUFFER_BYTES);
  else if (order.mode !== 'download' && order.mode !== 'paced') send(slot, MESSAGE_BYTES);
}

function onReceive(slot: number, result: number, buffer: number, more: number): void {
  if (buffer >= 0) engine.releaseBuffer(buffer);
  if (more === 0) receiving[slot] = 0;
  if (result > 0 || result === -ENOBUFS) {
    if (isBulk()) bytes += Math.max(0, result);
    else if (result > 0) exchanged(slot, result);
    if (more !== 0) return;
    if (isBulk() && state[slot] === ENDING) {
      // A flow without end: receiving again after the cancel would never stop.
      settle(slot);
      return;
    }
    receiving[slot] = 1;
    engine.receive(slot * 2, generation[slot], sockets[slot]);
    return;
  }
  if (state[slot] === OPEN) {
    failures++;
    state[slot] = ENDING;
    if (sending[slot] === 1) engine.cancel(slot * 2, generation[slot], sockets[slot]);
  }
  settle(slot);
}

function exchanged(slot: number, result: number): void {
  received[slot] += result;
  if (received[slot] < MESSAGE_BYTES) return;
  received[slot] = 0;
  if (order.mode === 'exchange' && running) {
    operations++;
    send(slot, MESSAGE_BYTES);
  } else if (order.mode === 'paced') {
    operations++;
    readMonotonic(now);
    if (takeAnswer(pace, slot, now)) send(slot, MESSAGE_BYTES);
  } else if (order.mode === 'connect') {
    state[slot] = ENDING;
    engine.shutdownWrite(sockets[slot]);
  } else if (order.mode === 'hold') {
    operations++;
  }
}

function onSend(slot: number, result: number): void {
  sending[slot] = 0;
  if (isUpload() && result > 0) {
    bytes += result;
    if (state[slot] === OPEN) send(slot, BUFFER_BYTES);
  }
  settle(slot);
}

/** Closes a connection that ended once nothing is in flight; in mode connect the next one starts. */
function settle(slot: number): void {
  if (state[slot] === OPEN || state[slot] === CLOSED) return;
  if (sending[slot] === 1 || receiving[slot] === 1) return;
  if (isBulk()) engine.reset(-1, sockets[slot]);
  else engine.close(-1, sockets[slot]);
  state[slot] = CLOSED;
  opened--;
  if (order.mode !== 'connect') return;
  operations++;
  if (running) open(slot);
}

function handle(at: number): void {
  const { events } = engine;
  const operation = events[at + EVENT_OP];
  const slot = events[at + EVENT_ENDPOINT] >> 1;
  const result = events[at + EVENT_RESULT];
  if (operation === OP_CONNECT) onConnect(slot, result);
  else if (operation === OP_RECEIVE) {
    onReceive(slot, result, events[at + EVENT_BUFFER], events[at + EVENT_MORE]);
  } else if (operation === OP_SEND) onSend(slot, result);
}

function turn(waitMs: number): void {
  const events = engine.wait(waitMs);
  for (let event = 0; event < events; event++) handle(event * EVENT_WORDS);
}

/** Runs until `done`; an order that makes no progress is a failure of the proxy and ends this process. */
function runUntil(done: () => boolean, what: string): void {
  let mark = -1;
  let markAt = monotonicMs();
  while (!done()) {
    turn(100);
    const progress = operations + bytes - opened;
    if (progress !== mark) {
      mark = progress;
      markAt = monotonicMs();
    } else if (monotonicMs() - markAt > STUCK_MS) {
      throw new Error(`No progress for ${STUCK_MS} ms while ${what}: ${opened} connections open`);
    }
  }
}

/** Opens connections up to the order's number, not too many at once. */
function openAll(): void {
  let next = 0;
  runUntil(() => {
    while (next < order.connections && opening < OPENING_MAX) open(next++);
    return next === order.connections && (order.mode === 'connect' || opening === 0);
  }, 'connecting');
}

function closeAll(): void {
  for (let slot = 0; slot < SLOTS; slot++) {
    // In mode connect each connection comes to its own end.
    if (state[slot] !== OPEN || order.mode === 'connect') continue;
    state[slot] = ENDING;
    if (isBulk()) engine.cancel(slot * 2, generation[slot], sockets[slot]);
    else engine.shutdownWrite(sockets[slot]);
  }
  runUntil(() => opened === 0, 'closing');
}

function measure(): LoadReport {
  const startedAt = monotonicMs();
  const since = (then: number): number => (monotonicMs() - then) / 1000;
  const { warmSeconds, warmOperations, pids } = order;
  runUntil(() => since(startedAt) >= warmSeconds && operations >= warmOperations, 'warming up');
  const windowAt = monotonicMs();
  const before = { operations, bytes, machine: machineUse(), cpu: pids.map(cpuNanoseconds) };
  runUntil(
    () => since(windowAt) >= order.seconds && operations - before.operations >= order.operations,
    'measuring',
  );
  const cpu = pids.map((pid, index) => cpuNanoseconds(pid) - before.cpu[index]);
  return {
    ...NOTHING,
    operations: operations - before.operations,
    bytes: bytes - before.bytes,
    seconds: since(windowAt),
    cpuNanoseconds: cpu,
    machine: machineUseBetween(before.machine, machineUse()),
    failures,
  };
}

/**
 * Requests at a fixed rate. It never sleeps, because a timer would round what is due to milliseconds: started with
 * `chrt --idle 0`, it leaves the CPU to the backend beside it whenever that has something to do.
 */
function measurePaced(): LoadReport {
  const { warmSeconds, seconds, pids } = order;
  readMonotonic(now);
  const windowAt = now[0] + warmSeconds * 1000;
  pace = createPace(order.connections, order.rate, now[0], warmSeconds, seconds);
  let before = { machine: machineUse(), cpu: pids.map(cpuNanoseconds) };
  let isWarm = false;
  let progress = operations;
  let progressAt = now[0];
  while (!isPaceOver(pace)) {
    turn(0);
    readMonotonic(now);
    if (!isWarm && now[0] >= windowAt) {
      isWarm = true;
      before = { machine: machineUse(), cpu: pids.map(cpuNanoseconds) };
    }
    for (let slot = takeDue(pace, now); slot !== -1; slot = takeDue(pace, now)) {
      if (slot >= 0) send(slot, MESSAGE_BYTES);
    }
    if (operations !== progress) {
      progress = operations;
      progressAt = now[0];
    } else if (now[0] - progressAt > STUCK_MS) {
      throw new Error(`No progress for ${STUCK_MS} ms at a fixed rate: ${pace.open} unanswered`);
    }
  }
  const cpu = pids.map((pid, index) => cpuNanoseconds(pid) - before.cpu[index]);
  const latency = latencyOf(pace.latencies);
  return {
    ...NOTHING,
    operations: latency.count,
    seconds: (monotonicMs() - windowAt) / 1000,
    cpuNanoseconds: cpu,
    machine: machineUseBetween(before.machine, machineUse()),
    failures,
    latency,
    lateness: latencyOf(pace.lateness),
  };
}

const NOTHING: LoadReport = {
  operations: 0,
  bytes: 0,
  seconds: 0,
  cpuNanoseconds: [],
  machine: { idle: [], steal: [] },
  failures: 0,
  latency: null,
  lateness: null,
};

function obey(next: LoadOrder): LoadReport {
  order = next;
  operations = 0;
  bytes = 0;
  failures = 0;
  if (order.mode === 'release') {
    closeAll();
    return { ...NOTHING, operations, failures };
  }
  running = true;
  openAll();
  if (order.mode === 'hold') {
    runUntil(() => operations + failures >= order.connections, 'exchanging');
    return { ...NOTHING, operations, failures };
  }
  const report = order.mode === 'paced' ? measurePaced() : measure();
  running = false;
  closeAll();
  return { ...report, failures };
}

for await (const line of createInterface(process.stdin)) {
  process.stdout.write(`${JSON.stringify(obey(JSON.parse(line) as LoadOrder))}\n`);
}
engine.end();
