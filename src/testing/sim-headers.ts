// PROXY headers in a simulation: which clients come through a trusted proxy and what it sends first, whole, in pieces,
// broken or never finished; who sends one that must not be believed; what a backend must get first; and what must hold.
//
// Elsewhere bytes are named, not stored. Here the first ones of such a client are stored too, because the proxy looks at
// them and moves them: what it passes on is compared byte by byte.

import {
  PROXY_ACCEPT_ANY,
  PROXY_ACCEPT_V1,
  PROXY_ACCEPT_V2,
  parseProxyHeader,
} from '../proxy/proxy-protocol.ts';
import { PROXY_WRITE_BYTES_MAX, writeProxyHeader } from '../proxy/proxy-protocol-write.ts';
import type { ProxyInOptions } from '../proxy/worker-state.ts';
import { encodePrefixes } from '../route/prefix-list.ts';
import { parsePrefix } from '../sys/prefix.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { CLIENT_PORT, fillAddress, PROXIES, showAddress } from './sim-clients.ts';
import type { SimEngineOptions } from './sim-engine-host.ts';
import type { SimNetwork } from './sim-network.ts';
import { SimRandom } from './sim-random.ts';
import { fail } from './sim-trace.ts';

/** What a client's stream begins with. */
export const HEAD_NONE = 0;
/** A header of someone who is not trusted: bytes like any. */
const HEAD_SPOOFED = 1;
/** From here on: of a trusted proxy. */
const HEAD_PROXIED = 2;
/** Nobody is named: the proxy itself is the client. */
const HEAD_LOCAL = 3;
export const HEAD_BROKEN = 4;
/** Nothing comes behind its part. */
export const HEAD_PARTIAL = 5;

export interface HeaderOptions {
  readonly proxyIn: ProxyInOptions;
  readonly proxiedShare: number;
  readonly brokenShare: number;
  readonly spoofedShare: number;
  /** Pauses between the pieces of a header. */
  readonly paceMsMax: number;
  readonly writeBuffers: number;
  /** Version of the header for backends whose row says nothing. */
  readonly out: number;
}

/** Own chance for all of this: runs without headers are what they were. */
const SEED_MIX = 0x50_52_4f_58;
/** Large enough for a header, as the real ones are. */
export const HEADER_BUFFER_BYTES_MIN = 256;
const NO_EXTRAS = { country: '', pop: new Uint8Array(0), checksum: false };
const NO_MEMORY = new Uint8Array(0);

export function drawHeaders(seed: number): HeaderOptions | null {
  const random = new SimRandom(seed ^ SEED_MIX);
  if (random.chance(0.6)) return null;
  const trusted = ['198.51.100.0/24', '2001:db8:ffff::/48'].flatMap((text) => {
    const prefix = parsePrefix(text);
    return typeof prefix === 'string' ? [] : [prefix];
  });
  const accept = random.pick([0, PROXY_ACCEPT_V1, PROXY_ACCEPT_V2, PROXY_ACCEPT_ANY]);
  const timeoutMs = random.spread(100, 2000);
  return {
    proxyIn: { accept, trusted: encodePrefixes(trusted), timeoutMs },
    proxiedShare: random.pick([0.1, 0.5, 1]),
    brokenShare: random.pick([0, 0.05, 0.3]),
    spoofedShare: random.pick([0, 0.2]),
    paceMsMax: random.pick([0.5, 5, timeoutMs]),
    writeBuffers: random.pick([1, 2, 8, 256]),
    out: random.below(3),
  };
}

export function emptyAddress(): PeerAddress {
  return { family: 0, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 };
}

function copyOf(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(bytes);
}

/** Who sends which header, and who gets one. sim-header-checks.ts compares the proxy with it. */
export class SimHeaders {
  readonly options: HeaderOptions | null;
  readonly network: SimNetwork;
  readonly #random: SimRandom;
  readonly #clients: number;
  /** By end of a client: HEAD_…, who connected, and the bytes of the header. */
  readonly head: Uint8Array;
  readonly #peerOf: Int32Array;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #destination: (PeerAddress | undefined)[] = [];
  /** By worker. */
  readonly memory: Uint8Array[] = [];
  /** Called when the proxy wrote bytes of a header to `end`: those at `offset` of what is at `at` of its memory. */
  onWritten: (
    worker: number,
    endpoint: number,
    end: number,
    at: number,
    offset: number,
    bytes: number,
  ) => void = () => {};
  /** Positions below are stored: whatever the proxy can have moved. */
  storedBytes = 0;

  constructor(seed: number, network: SimNetwork, options: HeaderOptions | null, clients: number) {
    this.options = options;
    this.network = network;
    this.#random = new SimRandom(seed ^ SEED_MIX);
    this.#clients = clients;
    const ends = network.owner.length;
    this.head = new Uint8Array(ends);
    this.#peerOf = new Int32Array(ends);
  }

  // ---- clients -----------------------------------------------------------------------------------------------------

  /** A client connects at `end`; the number of who counts as the client there. */
  begin(end: number, client: number): number {
    const { options } = this;
    const random = this.#random;
    this.#peerOf[end] = client;
    if (options === null) return client;
    const header = this.#headerOf(end, client);
    if (options.proxyIn.accept === 0 || !random.chance(options.proxiedShare)) {
      if (random.chance(options.spoofedShare)) this.#give(end, HEAD_SPOOFED, header);
      return client;
    }
    const proxy = this.#clients + random.below(PROXIES);
    this.#peerOf[end] = proxy;
    if (random.chance(options.brokenShare)) {
      const broken = random.chance(0.5);
      if (broken) this.#give(end, HEAD_BROKEN, this.#broken(header));
      else this.#give(end, HEAD_PARTIAL, header.slice(0, random.below(header.length)));
      return proxy;
    }
    this.network.skip[end] = header.length;
    const isLocal = this.#destination[end] === undefined;
    this.#give(end, isLocal ? HEAD_LOCAL : HEAD_PROXIED, header);
    return isLocal ? proxy : client;
  }

  #give(end: number, head: number, bytes: Uint8Array): void {
    this.head[end] = head;
    this.#bytes[end] = bytes;
  }

  #headerOf(end: number, client: number): Uint8Array {
    const random = this.#random;
    const accept = this.options?.proxyIn.accept ?? 0;
    const both = accept === PROXY_ACCEPT_ANY || accept === 0;
    const version = both ? random.whole(1, 2) : accept === PROXY_ACCEPT_V1 ? 1 : 2;
    const source = emptyAddress();
    const destination = emptyAddress();
    if (!random.chance(0.1)) {
      fillAddress(client, this.#clients, source);
      source.port = CLIENT_PORT;
      fillAddress(random.below(50), this.#clients, destination);
      destination.port = random.pick([443, 65_535]);
      this.#destination[end] = destination;
    }
    const target = new Uint8Array(PROXY_WRITE_BYTES_MAX);
    const checksum = random.chance(0.5);
    // Some are longer than the parts of headers that the proxy copies out of its buffers.
    const pop = new Uint8Array(random.chance(0.5) ? random.below(129) : 0);
    const extras = { ...NO_EXTRAS, checksum, pop };
    return target.slice(0, writeProxyHeader(target, 0, version, source, destination, extras));
  }

  #broken(header: Uint8Array): Uint8Array {
    const bytes = copyOf(header);
    // In every version these are part of what must be there: the line's first words, the signature.
    bytes[this.#random.below(6)] ^= 1 << this.#random.below(7);
    return bytes;
  }

  headBytes(end: number): number {
    return this.#bytes[end]?.length ?? 0;
  }

  headPaceMs(): number {
    return this.options?.paceMsMax ?? 0;
  }

  #byteAt(end: number, position: number): number {
    const header = this.#bytes[end];
    if (header !== undefined && position < header.length) return header[position] as number;
    return (Math.imul(end + 1, 0x9e37_79b1) + Math.imul(position, 0x85eb_ca6b)) >>> 24;
  }

  // ---- addresses ---------------------------------------------------------------------------------------------------

  /** The address that connected at `end`. */
  readPeer(end: number, peer: PeerAddress): void {
    fillAddress(this.#peerOf[end] as number, this.#clients, peer);
    peer.port = CLIENT_PORT;
  }

  /** What it connected to; `own` is the proxy's end. */
  readLocal(own: number, local: PeerAddress): void {
    fillAddress(this.#peerOf[own ^ 1] as number, this.#clients, local);
    local.w3 = (local.w3 & ~0xff) | 1;
    local.port = 8080;
  }

  /** Client and destination that a backend must be told for the client at `end`. */
  expected(end: number, client: number): string {
    const address = emptyAddress();
    fillAddress(client, this.#clients, address);
    address.port = CLIENT_PORT;
    const source = showAddress(address);
    if (this.head[end] === HEAD_PROXIED) Object.assign(address, this.#destination[end]);
    else this.readLocal(end ^ 1, address);
    return `${source} to ${showAddress(address)}`;
  }

  // ---- bytes -------------------------------------------------------------------------------------------------------

  openMemory({ worker, bufferCount, writeBuffers, bufferBytes }: SimEngineOptions): Uint8Array {
    this.storedBytes = bufferBytes * 2;
    const bytes = this.options === null ? 0 : (bufferCount + writeBuffers) * bufferBytes;
    this.memory[worker] = bytes === 0 ? NO_MEMORY : new Uint8Array(bytes);
    return this.memory[worker];
  }

  /** Bytes of a peer's stream were received to `at` of a worker's memory. True: the proxy may move them. */
  fill(worker: number, at: number, origin: number, start: number, bytes: number): boolean {
    if (this.head[origin] === HEAD_NONE || start >= this.storedBytes) return false;
    const memory = this.memory[worker] as Uint8Array;
    const stored = Math.min(bytes, this.storedBytes - start);
    for (let byte = 0; byte < stored; byte++) {
      memory[at + byte] = this.#byteAt(origin, start + byte);
    }
    return true;
  }

  /** Whether the last `bytes` written to `end` are to be compared byte by byte. */
  isStored(origin: number, end: number, bytes: number): boolean {
    if (origin < 0 || this.head[origin] === HEAD_NONE) return false;
    if (origin !== ((this.network.pair[end] as number) ^ 1)) return false;
    const written = this.network.wrote[end] as number;
    return this.network.positionOf(end, written - bytes) < this.storedBytes;
  }

  /** The last `bytes` written to `end` came from `at` of the worker's memory. */
  checkContent(worker: number, endpoint: number, end: number, at: number, bytes: number): void {
    const { network } = this;
    const slot = endpoint >> 1;
    if (network.owed[end] === 1) fail('Bytes before the PROXY header', worker, slot);
    const origin = (network.pair[end] as number) ^ 1;
    const start = network.positionOf(end, (network.wrote[end] as number) - bytes);
    const memory = this.memory[worker] as Uint8Array;
    for (let byte = 0; byte < bytes && start + byte < this.storedBytes; byte++) {
      if (memory[at + byte] === this.#byteAt(origin, start + byte)) continue;
      fail(`Byte ${start + byte} of the client is not what was sent`, worker, slot);
    }
  }

  /** The header that is at `at` of the worker's memory, as text; its length. */
  parseWritten(worker: number, at: number, version: number): [text: string, bytes: number] {
    const [source, destination] = [emptyAddress(), emptyAddress()];
    const accept = version === 1 ? PROXY_ACCEPT_V1 : PROXY_ACCEPT_V2;
    const memory = this.memory[worker] as Uint8Array;
    const most = PROXY_WRITE_BYTES_MAX;
    const bytes = parseProxyHeader(memory, at, most, accept, source, destination);
    return [`${showAddress(source)} to ${showAddress(destination)}`, bytes];
  }
}
