// The main thread of the userspace device: runs the protocol machine, gives it what the data threads noted and gives them
// keys, endpoints and commands. Sleeps as long as nothing is due and nothing was noted.

import { randomFillSync } from 'node:crypto';
import type { Worker } from 'node:worker_threads';
import { type Arena, openArena, type SharedMemory } from '../../sys/arena.ts';
import { monotonicMs } from '../../sys/clock.ts';
import {
  addSource,
  beginMessage,
  openDatagramSocket,
  replaceDescriptor,
  SEND_AREA_BYTES,
  sendMessage,
  setMark,
  setVector,
} from '../../sys/datagram.ts';
import { DeviceMachine } from '../protocol/device-machine.ts';
import {
  type DeviceChange,
  type DevicePort,
  type DeviceState,
  ENDPOINT_BYTES,
  type KeyPair,
  type PeerActivity,
} from '../protocol/port.ts';
import type { ProtocolTimes } from '../protocol/times.ts';
import { Keypairs } from './keypairs.ts';
import type { SendCommand } from './sender.ts';
import {
  activityWord,
  BELL,
  COMMANDS,
  COUNTERS,
  countFloat,
  ENDPOINT_FLAGS,
  ENDPOINT_LOCAL,
  ENDPOINT_REMOTE,
  ENDPOINT_SCOPE,
  endpointAt,
  HAS_LOCAL,
  HAS_REMOTE,
  KEYS_USED,
  keysUsedWord,
  MAIN_AREA,
  NEEDS_HANDSHAKE,
  openAllowedIps,
  PEERS_MAX,
  PREFIXES_MAX,
  RECEIVED_ANY,
  RECEIVED_UNANSWERED,
  RING_HEAD,
  RING_MESSAGE,
  RING_SLOT_BYTES,
  RING_TAIL,
  ROAMED,
  receivedFloat,
  ringSlot,
  roamAt,
  SENT_ANY,
  SENT_UNANSWERED,
  sentFloat,
  URGENT_BELL,
} from './tables.ts';

/** How far what need not be told at once may lag behind. */
const LOOK_MS = 100;
/** Bounds what waits in the kernel: 1 MiB is a few milliseconds at the speeds of this device. */
export const SOCKET_BUFFER_BYTES = 1024 * 1024;
/** Timers of Node end at 2^31 ms. */
const DELAY_MS_MAX = 2 ** 31 - 1;
const LOCAL_BYTES = 16;

const CALL = MAIN_AREA;
const CALL_VECTOR = CALL + SEND_AREA_BYTES;
const CALL_ENDPOINT = CALL_VECTOR + 16;
const CALL_LOCAL = CALL_ENDPOINT + 32;
const CALL_MESSAGE = CALL_LOCAL + 32;

/** Where a message came from: kept while it is handled, because answers leave from the address it was sent to. */
interface Origin {
  readonly endpoint: Uint8Array;
  readonly local: Uint8Array | null;
  readonly scope: number;
}

export interface DeviceSocket {
  readonly fd: number;
  readonly family: number;
}

export class Device implements DevicePort {
  readonly machine: DeviceMachine;
  readonly #arena: Arena;
  readonly #keypairs: Keypairs;
  readonly #socket: DeviceSocket;
  /** Ends the waiting of both threads. */
  readonly #wakeThreads: () => void;
  #sender: Worker | null = null;
  readonly #rows = new Set<number>();
  #origin: Origin | null = null;
  #timer: NodeJS.Timeout | null = null;
  #lookTimer: NodeJS.Timeout | null = null;
  listenPort: number;
  mark = 0;

  constructor(
    memory: SharedMemory,
    socket: DeviceSocket & { readonly port: number },
    wakeThreads: () => void,
    times?: ProtocolTimes,
  ) {
    this.#arena = openArena(memory);
    this.#keypairs = new Keypairs(this.#arena);
    this.#socket = socket;
    this.#wakeThreads = wakeThreads;
    this.listenPort = socket.port;
    this.machine = new DeviceMachine({
      port: this,
      world: { random: (bytes) => randomFillSync(bytes), unixMs: () => Date.now() },
      peersMax: PEERS_MAX,
      prefixesMax: PREFIXES_MAX,
      allowedIps: openAllowedIps(this.#arena),
      ...(times === undefined ? {} : { times }),
    });
  }

  /** The thread that commands go to. */
  useSender(sender: Worker): void {
    this.#sender = sender;
  }

  // What the machine asks for.

  sendMessage(endpoint: Uint8Array, message: Uint8Array): void {
    const a = this.#arena;
    const { fd, family } = this.#socket;
    const origin = this.#originOf(endpoint);
    a.bytes.set(endpoint, CALL_ENDPOINT);
    a.bytes.set(message, CALL_MESSAGE);
    setVector(a, CALL_VECTOR, CALL_MESSAGE, message.length);
    const send = (local: Uint8Array | null): number => {
      beginMessage(a, CALL, family, CALL_ENDPOINT, origin?.scope ?? 0);
      if (local !== null) {
        a.bytes.set(local, CALL_LOCAL);
        addSource(a, CALL, family, CALL_LOCAL, origin?.scope ?? 0);
      }
      return sendMessage(a, BigInt(fd), CALL, CALL_VECTOR, 1);
    };
    // A failure is often what ICMP said about an earlier datagram, or a source address that is gone.
    if (send(origin?.local ?? null) < 0) send(null);
  }

  #originOf(endpoint: Uint8Array): Origin | null {
    const origin = this.#origin;
    if (origin === null) return null;
    return Buffer.compare(origin.endpoint, endpoint) === 0 ? origin : null;
  }

  addPeer(peer: number): void {
    this.#rows.add(peer);
    const { floats, words } = this.#arena;
    floats[sentFloat(peer)] = 0;
    floats[receivedFloat(peer)] = 0;
    Atomics.store(words, activityWord(peer), 0);
    this.dropQueue(peer);
    this.#writeEndpoint(peer, null);
  }

  removePeer(peer: number): void {
    this.#rows.delete(peer);
    this.dropQueue(peer);
    this.#writeEndpoint(peer, null);
  }

  setEndpoint(peer: number, endpoint: Uint8Array): void {
    this.#writeEndpoint(peer, endpoint);
  }

  #writeEndpoint(peer: number, endpoint: Uint8Array | null): void {
    const { words, bytes } = this.#arena;
    const at = endpointAt(peer);
    const origin = endpoint === null ? null : this.#originOf(endpoint);
    // Odd while it is being written: the sender reads it again then.
    Atomics.add(words, at >> 2, 1);
    let flags = 0;
    if (endpoint !== null) {
      flags |= HAS_REMOTE;
      bytes.set(endpoint.subarray(0, ENDPOINT_BYTES), at + ENDPOINT_REMOTE);
    }
    if (origin?.local) {
      flags |= HAS_LOCAL;
      bytes.set(origin.local, at + ENDPOINT_LOCAL);
    }
    words[(at + ENDPOINT_SCOPE) >> 2] = origin?.scope ?? 0;
    words[(at + ENDPOINT_FLAGS) >> 2] = flags;
    Atomics.add(words, at >> 2, 1);
  }

  installKeys(peer: number, keypair: KeyPair): void {
    this.#keypairs.install(peer, keypair);
    keypair.sendKey.fill(0);
    keypair.receiveKey.fill(0);
  }

  promoteKeys(peer: number, localIndex: number): void {
    this.#keypairs.promote(peer, localIndex);
  }

  removeKeys(peer: number, localIndex: number): void {
    this.#keypairs.remove(peer, localIndex);
  }

  flushQueue(peer: number): void {
    this.#command({ kind: 'flush', peer });
  }

  dropQueue(peer: number): void {
    this.#command({ kind: 'drop', peer });
  }

  sendKeepalive(peer: number): void {
    this.#command({ kind: 'keepalive', peer });
  }

  #command(command: SendCommand): void {
    if (this.#sender === null) return;
    this.#sender.postMessage(command);
    // After the message has been posted: who sees the count finds it.
    Atomics.add(this.#arena.words, COMMANDS, 1);
    this.#wakeThreads();
  }

  // What the data threads tell.

  /** Looks at all that was noted; a thread rang. */
  look(): void {
    const { words } = this.#arena;
    // Before the tables are read: what is noted from now on rings again.
    Atomics.store(words, URGENT_BELL, 0);
    if (this.#lookTimer === null) Atomics.store(words, BELL, 0);
    const hadActivity = this.#readAll();
    if (hadActivity && this.#lookTimer === null) {
      Atomics.store(words, BELL, 1);
      this.#lookTimer = setTimeout(() => this.#lookAgain(), LOOK_MS);
    }
    this.#schedule();
  }

  /** While there is traffic, main looks by itself and the threads do not ring for what can wait. */
  #lookAgain(): void {
    this.#lookTimer = null;
    const { words } = this.#arena;
    Atomics.store(words, BELL, 0);
    if (this.#readAll()) {
      Atomics.store(words, BELL, 1);
      this.#lookTimer = setTimeout(() => this.#lookAgain(), LOOK_MS);
    }
    this.#schedule();
  }

  #readAll(): boolean {
    this.#readMessages();
    let hadActivity = false;
    for (const row of [...this.#rows]) hadActivity = this.#readActivity(row) || hadActivity;
    return hadActivity;
  }

  #readOrigin(at: number): Origin {
    const { words, bytes } = this.#arena;
    const hasLocal = ((words[(at + ENDPOINT_FLAGS) >> 2] as number) & HAS_LOCAL) !== 0;
    const remote = at + ENDPOINT_REMOTE;
    const local = at + ENDPOINT_LOCAL;
    const endpoint = bytes.slice(remote, remote + ENDPOINT_BYTES);
    const isLinkLocal = endpoint[0] === 0xfe && ((endpoint[1] as number) & 0xc0) === 0x80;
    return {
      endpoint,
      local: hasLocal ? bytes.slice(local, local + LOCAL_BYTES) : null,
      scope: isLinkLocal ? (words[(at + ENDPOINT_SCOPE) >> 2] as number) : 0,
    };
  }

  #readMessages(): void {
    const { words, bytes } = this.#arena;
    for (;;) {
      const tail = words[RING_TAIL] as number;
      // The receiver raises the head when a slot is whole.
      if (Atomics.load(words, RING_HEAD) === tail) return;
      const slot = ringSlot(tail);
      const length = Math.min(words[slot >> 2] as number, RING_SLOT_BYTES - RING_MESSAGE);
      const message = bytes.slice(slot + RING_MESSAGE, slot + RING_MESSAGE + length);
      this.#origin = this.#readOrigin(slot);
      // The slot is the receiver's again.
      Atomics.store(words, RING_TAIL, (tail + 1) | 0);
      this.machine.handleMessage(monotonicMs(), message, this.#origin.endpoint);
      this.#origin = null;
    }
  }

  #readActivity(peer: number): boolean {
    const { words } = this.#arena;
    if (words[activityWord(peer)] === 0) return false;
    if (((words[activityWord(peer)] as number) & ROAMED) !== 0) {
      this.#origin = this.#readOrigin(roamAt(peer));
    }
    const isRoamed = this.#origin !== null;
    // Taken and cleared at once: nothing is lost between.
    const bits = Atomics.exchange(words, activityWord(peer), 0);
    const has = (bit: number): boolean => (bits & bit) !== 0;
    const activity: PeerActivity = {
      sentAny: has(SENT_ANY),
      receivedAny: has(RECEIVED_ANY),
      sentUnanswered: has(SENT_UNANSWERED),
      receivedUnanswered: has(RECEIVED_UNANSWERED),
      keysUsed: has(KEYS_USED)
        ? this.#keypairs.localIndex(Atomics.load(words, keysUsedWord(peer)))
        : -1,
      needsHandshake: has(NEEDS_HANDSHAKE),
      endpoint: isRoamed ? (this.#origin?.endpoint ?? null) : null,
    };
    this.machine.noteActivity(monotonicMs(), peer, activity);
    this.#origin = null;
    return true;
  }

  #schedule(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const deadline = this.machine.nextDeadline();
    if (deadline === Number.POSITIVE_INFINITY) return;
    const delay = Math.min(Math.max(0, Math.ceil(deadline - monotonicMs())), DELAY_MS_MAX);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#readAll();
      this.machine.tick(monotonicMs());
      this.#schedule();
    }, delay);
  }

  // Configuration, see uapi.ts.

  /** Throws a RangeError for what does not fit. */
  configure(change: DeviceChange): void {
    this.machine.configure(monotonicMs(), change);
    this.#schedule();
  }

  state(): DeviceState {
    return this.machine.state();
  }

  /** Bytes of transport packets of a peer. */
  traffic(peer: number): { readonly sent: number; readonly received: number } {
    const { floats } = this.#arena;
    return {
      sent: floats[sentFloat(peer)] as number,
      received: floats[receivedFloat(peer)] as number,
    };
  }

  /** Counters of the data threads that are not 0. */
  counts(): Record<string, number> {
    const { floats } = this.#arena;
    const all = COUNTERS.map((name) => [name, floats[countFloat(name)] as number] as const);
    return Object.fromEntries(all.filter(([, value]) => value !== 0));
  }

  /** 0 or -errno. The socket's number stays: the threads come to the new one by themselves. */
  listen(port: number): number {
    if (port === this.listenPort) return 0;
    const socket = openDatagramSocket(port, SOCKET_BUFFER_BYTES);
    if (typeof socket === 'number') return socket;
    if (this.mark !== 0) setMark(socket.fd, this.mark);
    this.listenPort = socket.port;
    const result = replaceDescriptor(socket.fd, this.#socket.fd);
    this.#wakeThreads();
    return Math.min(result, 0);
  }

  setMark(mark: number): number {
    const result = setMark(this.#socket.fd, mark);
    if (result >= 0) this.mark = mark;
    return result;
  }
}
