// A process that serves as backend under load, on the io_uring engine: three listeners that echo, send without end, or
// swallow. Prints its ports as one JSON line, then serves until it is killed or its parent is gone.
// Runs beside the load client on one core, so it does no more per connection than a backend must.

import { createSlotPool, freeSlot, takeSlot } from '../base/slot-pool.ts';
import {
  EVENT_BUFFER,
  EVENT_ENDPOINT,
  EVENT_MORE,
  EVENT_OP,
  EVENT_RESULT,
  EVENT_WORDS,
  OP_ACCEPT,
  OP_RECEIVE,
  OP_SEND,
} from '../engine/proactor.ts';
import { UringEngine } from '../engine/uring.ts';
import { ENOBUFS } from '../sys/errno.ts';
import { createEventfd } from '../sys/eventfd.ts';
import { boundAddress, openListener } from '../sys/socket.ts';
import { explainRefusal } from '../sys/uring.ts';

/** What the backend prints: the port of each kind of service, on every IPv4 address. */
export interface LoadPorts {
  readonly echo: number;
  /** Sends until the client ends. */
  readonly source: number;
  /** Reads until the client ends. */
  readonly sink: number;
}

const SERVICES = ['echo', 'source', 'sink'] as const;
const [ECHO, SOURCE] = [0, 1];
const SLOTS = 131_072;
const BUFFER_BYTES = 131_072;
const BUFFER_COUNT = 4096;
const BACKLOG = 4096;
const PARENT_CHECK_MS = 500;
const NONE = -1;

/** One connection per slot; `sending` is the buffer in flight + 1, `receiving` 1 while a receive is in flight. */
const slots = createSlotPool(SLOTS);
const sockets = new Int32Array(SLOTS);
const service = new Uint8Array(SLOTS);
const sending = new Int32Array(SLOTS);
const receiving = new Uint8Array(SLOTS);
const ended = new Uint8Array(SLOTS);

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
const ENDLESS_BUFFER = engine.bufferCount - 1;

function listen(): number {
  const socket = openListener(
    { family: 4, words: [0, 0, 0, 0], port: 0 },
    { backlog: BACKLOG, fastOpenQueue: 0, reusePort: false, v6Only: false },
  );
  if (socket < 0) throw new Error(`Cannot listen: errno ${-socket}`);
  return socket;
}

function onAccept(kind: number, result: number, more: number): void {
  if (more === 0) engine.accept(listeners[kind], kind, false);
  if (result < 0) return;
  const slot = takeSlot(slots);
  if (slot < 0) {
    engine.reset(-1, result);
    return;
  }
  sockets[slot] = result;
  service[slot] = kind;
  ended[slot] = 0;
  receiving[slot] = 1;
  engine.receive(slot * 2, 1, result);
  if (kind === SOURCE) send(slot, ENDLESS_BUFFER, BUFFER_BYTES);
}

function send(slot: number, buffer: number, bytes: number): void {
  sending[slot] = buffer + 1;
  engine.send(slot * 2, 1, sockets[slot], buffer, 0, bytes);
}

function onReceive(slot: number, result: number, buffer: number, more: number): void {
  if (more === 0) receiving[slot] = 0;
  if (result > 0 || result === -ENOBUFS) {
    // Clients wait for the echo before they send again, so one buffer is always enough.
    if (service[slot] === ECHO && sending[slot] === 0 && result > 0) send(slot, buffer, result);
    else if (buffer >= 0) engine.releaseBuffer(buffer);
    if (more === 0) {
      receiving[slot] = 1;
      engine.receive(slot * 2, 1, sockets[slot]);
    }
    return;
  }
  ended[slot] = 1;
  // A source in the middle of a send to a client that stopped reading would never hear of the end.
  if (sending[slot] !== 0) engine.cancel(slot * 2, 1, sockets[slot]);
  closeWhenQuiet(slot);
}

function onSend(slot: number, result: number): void {
  const buffer = sending[slot] - 1;
  sending[slot] = 0;
  if (buffer !== ENDLESS_BUFFER) engine.releaseBuffer(buffer);
  if (result > 0 && service[slot] === SOURCE && ended[slot] === 0) {
    send(slot, ENDLESS_BUFFER, BUFFER_BYTES);
  }
  closeWhenQuiet(slot);
}

function closeWhenQuiet(slot: number): void {
  if (ended[slot] === 0 || sending[slot] !== 0 || receiving[slot] === 1) return;
  engine.close(-1, sockets[slot]);
  sockets[slot] = NONE;
  freeSlot(slots, slot);
}

function handle(at: number): void {
  const { events } = engine;
  const operation = events[at + EVENT_OP];
  const endpoint = events[at + EVENT_ENDPOINT];
  const result = events[at + EVENT_RESULT];
  const more = events[at + EVENT_MORE];
  if (operation === OP_ACCEPT) onAccept(endpoint, result, more);
  else if (operation === OP_RECEIVE)
    onReceive(endpoint >> 1, result, events[at + EVENT_BUFFER], more);
  else if (operation === OP_SEND) onSend(endpoint >> 1, result);
}

const listeners = SERVICES.map(listen);
const ports = Object.fromEntries(
  SERVICES.map((name, kind) => [name, boundAddress(listeners[kind])?.port]),
);
process.stdout.write(`${JSON.stringify(ports)}\n`);
const parent = process.ppid;
for (let kind = 0; kind < listeners.length; kind++) engine.accept(listeners[kind], kind, false);
while (process.ppid === parent) {
  const events = engine.wait(PARENT_CHECK_MS);
  for (let event = 0; event < events; event++) handle(event * EVENT_WORDS);
}
