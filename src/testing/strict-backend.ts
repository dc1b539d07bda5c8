// A backend that counts as strictly as the kernel can: at each accept it asks how many of its connections are established
// at that moment. A backend of the event loop would hear of ends late, and see one connection too many where there is none.
// It runs in a thread of its own, greets each connection with one byte and reads nothing.

import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import {
  acceptNonblocking,
  addWatch,
  EPOLL_EVENT_WORDS,
  EPOLLIN,
  openEpoll,
  waitEpoll,
} from '../sys/epoll.ts';
import { mapMemory } from '../sys/memory.ts';
import { native, num } from '../sys/native.ts';
import {
  LENGTH_POINTER,
  SCRATCH_LENGTH,
  SCRATCH_VALUE,
  scratchView,
  scratchWords,
  VALUE_POINTER,
} from '../sys/scratch.ts';
import { boundAddress, closeDescriptor, openListener, setNonblocking } from '../sys/socket.ts';

const IPPROTO_TCP = 6n;
const TCP_INFO = 11n;
const TCP_ESTABLISHED = 1;
const MSG_NOSIGNAL = 0x4000n;
const WAIT_MS = 20;
const LOOPBACK = 0x7f00_0001;

/** Words of the shared block. */
const STOP = 0;
const ACCEPTED = 1;
const PEAK = 2;

export interface StrictBackend extends AsyncDisposable {
  readonly row: { readonly address: string; readonly port: number };
  readonly accepted: number;
  /** The most connections established at once, as seen at an accept. */
  readonly peak: number;
}

/** tcpi_state, the first byte of TCP_INFO (tcp(7)): an RST or FIN that has arrived shows at once. */
function isEstablished(fd: number): boolean {
  scratchWords[SCRATCH_LENGTH / 4] = 4;
  native.getsockopt(num(fd), IPPROTO_TCP, TCP_INFO, VALUE_POINTER, LENGTH_POINTER);
  return scratchView.getUint8(SCRATCH_VALUE) === TCP_ESTABLISHED;
}

function serve(listener: number, words: Int32Array): void {
  const memory = mapMemory(EPOLL_EVENT_WORDS * 4, 'a strict backend');
  const epoll = openEpoll();
  addWatch(BigInt(epoll), listener, EPOLLIN, 0, 0);
  let open: number[] = [];
  while (Atomics.load(words, STOP) === 0) {
    waitEpoll(BigInt(epoll), memory.address, 1, WAIT_MS);
    for (let fd = acceptNonblocking(listener); fd >= 0; fd = acceptNonblocking(listener)) {
      open.push(fd);
      const established = open.filter(isEstablished);
      Atomics.store(words, PEAK, Math.max(Atomics.load(words, PEAK), established.length));
      Atomics.add(words, ACCEPTED, 1);
      for (const gone of open) if (!established.includes(gone)) closeDescriptor(gone);
      open = established;
      native.send(num(fd), memory.address, 1n, MSG_NOSIGNAL);
    }
  }
  for (const fd of [...open, listener, epoll]) closeDescriptor(fd);
}

function run(words: Int32Array): void {
  const options = { backlog: 1024, fastOpenQueue: 0, reusePort: false, v6Only: false };
  const listener = openListener({ family: 4, words: [0, 0, 0, LOOPBACK], port: 0 }, options);
  if (listener < 0) throw new Error(`Cannot listen: errno ${-listener}`);
  setNonblocking(listener, true);
  parentPort?.postMessage(boundAddress(listener)?.port);
  serve(listener, words);
}

export async function startStrictBackend(): Promise<StrictBackend> {
  const words = new Int32Array(new SharedArrayBuffer(12));
  const thread = new Worker(new URL(import.meta.url), { workerData: words });
  const [port] = (await once(thread, 'message')) as [number];
  return {
    row: { address: '127.0.0.1', port },
    get accepted() {
      return Atomics.load(words, ACCEPTED);
    },
    get peak() {
      return Atomics.load(words, PEAK);
    },
    [Symbol.asyncDispose]: async () => {
      const exited = once(thread, 'exit');
      Atomics.store(words, STOP, 1);
      await exited;
    },
  };
}

if (!isMainThread) run(workerData as Int32Array);
