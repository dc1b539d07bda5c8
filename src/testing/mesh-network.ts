// WireGuard machines on a simulated network with virtual time: datagrams are lost, doubled, delayed and reordered as one
// seeded source of chance says. Whatever happens replays from the seed.

import { PROTOCOL_TIMES, type ProtocolTimes } from '../mesh/protocol/times.ts';
import { importPrivateKey } from '../mesh/protocol/x25519.ts';
import { MeshDataPlane } from './mesh-data-plane.ts';
import { SimRandom } from './sim-random.ts';

const EPOCH_MS = Date.UTC(2026, 0, 1);

/** What happens to datagrams; all 0: each arrives once, after `delayMs`. */
export interface Weather {
  loss: number;
  doubling: number;
  /** Each datagram takes this long, and up to `spreadMs` more. */
  delayMs: number;
  spreadMs: number;
}

interface Flight {
  readonly timeMs: number;
  readonly from: Uint8Array;
  readonly to: string;
  readonly datagram: Uint8Array;
}

export interface MeshNode {
  readonly name: string;
  readonly publicKey: Uint8Array;
  readonly privateKey: Uint8Array;
  plane: MeshDataPlane;
  endpoint: Uint8Array;
  /** What the wall clock is off. */
  clockOffsetMs: number;
  /** Inner packets that came, as text, and when. */
  readonly received: { readonly text: string; readonly now: number }[];
}

export class MeshNetwork {
  readonly random: SimRandom;
  readonly weather: Weather = { loss: 0, doubling: 0, delayMs: 20, spreadMs: 0 };
  readonly nodes: MeshNode[] = [];
  /** All datagrams that were sent, for tests that repeat or change them. */
  readonly log: { readonly from: string; readonly datagram: Uint8Array; readonly now: number }[] =
    [];
  #flights: Flight[] = [];
  readonly #times: ProtocolTimes;
  /** How late the data planes of machines that are started from now on report. */
  reportLagMs = 0;
  now = 0;

  constructor(seed: number, times: ProtocolTimes = PROTOCOL_TIMES) {
    this.random = new SimRandom(seed);
    this.#times = times;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.random.next() & 255);
  }

  add(name: string): MeshNode {
    const privateKey = this.bytes(32);
    const node: MeshNode = {
      name,
      privateKey,
      publicKey: importPrivateKey(privateKey).publicKey,
      plane: undefined as unknown as MeshDataPlane,
      endpoint: this.endpointOf(this.nodes.length + 1),
      clockOffsetMs: 0,
      received: [],
    };
    this.nodes.push(node);
    this.restart(node);
    return node;
  }

  endpointOf(host: number): Uint8Array {
    return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, host, 0xca, 0x6c);
  }

  /** A new process with the same key and no memory. */
  restart(node: MeshNode): void {
    node.plane = new MeshDataPlane({
      now: () => this.now,
      times: this.#times,
      reportLagMs: this.reportLagMs,
      world: {
        random: (bytes) => bytes.set(this.bytes(bytes.length)),
        unixMs: () => EPOCH_MS + this.now + node.clockOffsetMs,
      },
      transmit: (endpoint, datagram) => this.#transmit(node, endpoint, datagram),
      deliver: (_peer, packet) => {
        node.received.push({ text: Buffer.from(packet).toString().trimEnd(), now: this.now });
      },
    });
    node.plane.machine.configure(this.now, { privateKey: node.privateKey });
  }

  /** Each is the peer of the other, in row 0 of machines without others. */
  join(a: MeshNode, b: MeshNode, presharedKey?: Uint8Array): void {
    this.introduce(a, b, presharedKey);
    this.introduce(b, a, presharedKey);
  }

  introduce(to: MeshNode, who: MeshNode, presharedKey?: Uint8Array): void {
    const { publicKey, endpoint } = who;
    const peer = { publicKey, endpoint, ...(presharedKey && { presharedKey }) };
    to.plane.machine.configure(this.now, { peers: [peer] });
  }

  say(from: MeshNode, text: string, peer = 0): void {
    from.plane.send(peer, Buffer.from(text.padEnd(Math.ceil(text.length / 16) * 16)));
  }

  #transmit(from: MeshNode, endpoint: Uint8Array, datagram: Uint8Array): void {
    const { random, weather } = this;
    this.log.push({ from: from.name, datagram, now: this.now });
    const copies = random.chance(weather.doubling) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (random.chance(weather.loss)) continue;
      const timeMs = this.now + weather.delayMs + random.between(0, weather.spreadMs);
      const to = Buffer.from(endpoint).toString('hex');
      this.#flights.push({ timeMs, from: from.endpoint, to, datagram });
    }
  }

  /** Puts a datagram on the wire as if it came from this endpoint. */
  inject(to: MeshNode, datagram: Uint8Array, from: Uint8Array): void {
    to.plane.receive(Uint8Array.from(datagram), from);
  }

  /** Lets all that is due happen until then. */
  run(untilMs: number): void {
    for (;;) {
      let timeMs = untilMs;
      for (const flight of this.#flights) timeMs = Math.min(timeMs, flight.timeMs);
      for (const { plane } of this.nodes) {
        timeMs = Math.min(timeMs, plane.machine.nextDeadline(), plane.nextReportMs());
      }
      this.now = Math.max(this.now, timeMs);
      this.#land();
      for (const { plane } of this.nodes) {
        plane.report();
        if (plane.machine.nextDeadline() <= this.now) plane.tick();
      }
      if (timeMs >= untilMs) return;
    }
  }

  #land(): void {
    const due = this.#flights.filter(({ timeMs }) => timeMs <= this.now);
    this.#flights = this.#flights.filter(({ timeMs }) => timeMs > this.now);
    for (const flight of due.sort((a, b) => a.timeMs - b.timeMs)) {
      const to = this.nodes.find(
        ({ endpoint }) => Buffer.from(endpoint).toString('hex') === flight.to,
      );
      to?.plane.receive(flight.datagram, flight.from);
    }
  }
}
