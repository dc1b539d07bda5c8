// The thread that reads the TUN interface and sends datagrams: waits, works off what is there in bounded bursts, obeys the
// main thread's commands, and ends when told so or when the interface is gone.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { openArena, pointerTo, type SharedMemory } from '../../sys/arena.ts';
import { startCipher } from '../../sys/cipher.ts';
import { POLLFD_BYTES, pollEvents, waitForInput, watchInput } from '../../sys/datagram.ts';
import { drainEventfd } from '../../sys/epoll.ts';
import { isPause, readPacket } from '../../sys/tun.ts';
import { makeSum } from './checksum.ts';
import {
  flushBatch,
  handleOutbound,
  newSender,
  obey,
  POLLFDS,
  READ_BYTES_MAX,
  readTarget,
  SEND_SCRATCH,
  type SendCommand,
} from './sender.ts';
import { COMMANDS, openAllowedIps, SEND_SEQUENCE, STOP } from './tables.ts';
import { warmSender } from './warm-up.ts';

/** What both data threads are started with. */
export interface ThreadData {
  readonly memory: SharedMemory;
  readonly tun: number;
  readonly udp: number;
  readonly family: number;
  /** Written to end the thread's waiting. */
  readonly eventfd: number;
  /** Readable when an interface changed; the sender's. */
  readonly links: number;
}

/** What they tell the main thread: look at the tables, the interfaces changed, or the thread is at its end. */
export type ThreadMessage = 'look' | 'links' | 'gone' | 'ready';

/** Packets between two looks at the commands. */
const BURST = 64;

const data = workerData as ThreadData;
const port = parentPort as NonNullable<typeof parentPort>;
const tell = (message: ThreadMessage): void => port.postMessage(message);
const arena = openArena(data.memory);
const { words } = arena;

if (startCipher(arena, SEND_SCRATCH) === null) throw new Error('No cipher gives known answers');
const sender = newSender({
  arena,
  sum: makeSum(arena),
  tun: BigInt(data.tun),
  udp: BigInt(data.udp),
  family: data.family,
  allowedIps: openAllowedIps(arena),
});

const target = readTarget(sender);
const pollfds = pointerTo(arena, POLLFDS);
const TUN = POLLFDS;
const WAKE = POLLFDS + POLLFD_BYTES;
const LINKS = POLLFDS + 2 * POLLFD_BYTES;
watchInput(arena, TUN, data.tun);
watchInput(arena, WAKE, data.eventfd);
watchInput(arena, LINKS, data.links);
let commandsSeen = 0;

function obeyAll(): void {
  // The command was posted before the count was raised.
  const commands = Atomics.load(words, COMMANDS);
  if (commands === commandsSeen) return;
  commandsSeen = commands;
  for (;;) {
    const received = receiveMessageOnPort(port) as { message: SendCommand } | undefined;
    if (received === undefined) return;
    obey(sender, received.message);
  }
}

/** Works off what is there; the last result of reading. */
function workOff(): number {
  let result = 0;
  // Odd: from here on main zeroes no keypair that is found. Even: it may.
  Atomics.add(words, SEND_SEQUENCE, 1);
  obeyAll();
  for (let packets = 0; packets < BURST; packets++) {
    result = readPacket(sender.tun, target, READ_BYTES_MAX);
    if (result < 0) break;
    handleOutbound(sender, result);
  }
  flushBatch(sender);
  Atomics.add(words, SEND_SEQUENCE, 1);
  if (sender.isRinging) {
    sender.isRinging = false;
    tell('look');
  }
  return result;
}

function wait(): void {
  waitForInput(pollfds, 3n);
  if (pollEvents(arena, WAKE) !== 0) drainEventfd(data.eventfd);
  if (pollEvents(arena, LINKS) === 0) return;
  while (readPacket(BigInt(data.links), target, READ_BYTES_MAX) > 0);
  tell('links');
}

function run(): void {
  while (Atomics.load(words, STOP) === 0) {
    const result = workOff();
    if (result >= 0) continue;
    if (!isPause(result)) break;
    wait();
  }
  tell('gone');
}

warmSender();
tell('ready');
run();
// Nothing is waited for any more: the port would keep the thread.
port.unref();
