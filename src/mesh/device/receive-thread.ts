// The thread that receives datagrams and writes to the TUN interface: waits, works off what is there in batches, and ends
// when told so.

import { parentPort, workerData } from 'node:worker_threads';
import { openArena, pointerTo } from '../../sys/arena.ts';
import { startCipher } from '../../sys/cipher.ts';
import {
  POLLFD_BYTES,
  pollEvents,
  receiveMessages,
  waitForInput,
  watchInput,
} from '../../sys/datagram.ts';
import { drainEventfd } from '../../sys/epoll.ts';
import { writePacket } from '../../sys/tun.ts';
import { makeSum } from './checksum.ts';
import type { PacketWriter } from './coalesce.ts';
import {
  handleInbound,
  MESSAGE_COUNT,
  newReceiver,
  POLLFDS,
  RECEIVE_SCRATCH,
  receiveTarget,
} from './receiver.ts';
import type { ThreadData, ThreadMessage } from './send-thread.ts';
import { openAllowedIps, RECEIVE_SEQUENCE, STOP } from './tables.ts';
import { warmReceiver } from './warm-up.ts';

const data = workerData as ThreadData;
const port = parentPort as NonNullable<typeof parentPort>;
const tell = (message: ThreadMessage): void => port.postMessage(message);
const arena = openArena(data.memory);
const { words } = arena;
/** None, until the data path has been tried. */
let tun = 0xffff_ffffn;
const udp = BigInt(data.udp);

if (startCipher(arena, RECEIVE_SCRATCH) === null) throw new Error('No cipher gives known answers');
const write: PacketWriter = (vectors, count) => writePacket(tun, pointerTo(arena, vectors), count);
const receiver = newReceiver(
  {
    arena,
    sum: makeSum(arena),
    family: data.family,
    allowedIps: openAllowedIps(arena),
  },
  write,
);

const target = receiveTarget(receiver);
const pollfds = pointerTo(arena, POLLFDS);
const UDP = POLLFDS;
const WAKE = POLLFDS + POLLFD_BYTES;
watchInput(arena, UDP, data.udp);
watchInput(arena, WAKE, data.eventfd);

function run(): void {
  while (Atomics.load(words, STOP) === 0) {
    // Odd: from here on main zeroes no keypair that is found. Even: it may.
    Atomics.add(words, RECEIVE_SEQUENCE, 1);
    const messages = receiveMessages(udp, target, MESSAGE_COUNT);
    if (messages > 0) handleInbound(receiver, messages);
    Atomics.add(words, RECEIVE_SEQUENCE, 1);
    if (receiver.isRinging) {
      receiver.isRinging = false;
      tell('look');
    }
    // Errors are what ICMP said about something sent: gone from the socket once reported.
    if (messages > 0) continue;
    waitForInput(pollfds, 2n);
    if (pollEvents(arena, WAKE) !== 0) drainEventfd(data.eventfd);
  }
  tell('gone');
}

warmReceiver(write);
tun = BigInt(data.tun);
tell('ready');
run();
// Nothing is waited for any more: the port would keep the thread.
port.unref();
