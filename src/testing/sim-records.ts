// What the session log must hold, in a simulation: one record for every session that ends and, within the allowance, one
// for every connection turned away, with what happened in it. Records are read the moment they must be there.

import {
  firstRecord,
  openRecordRing,
  type RecordRing,
  recordsDropped,
  recordsWaiting,
  releaseRecord,
} from '../base/record-ring.ts';
import * as record from '../proxy/session-records.ts';
import { STAT_RECORDS_LIMITED } from '../proxy/stats.ts';
import type { PeerAddress } from '../sys/socket.ts';
import { CLIENT_PORT, fillAddress } from './sim-clients.ts';
import { fail } from './sim-trace.ts';
import type { SimWorld } from './sim-world.ts';

const MAPPED_WORD = 0xffff;

export class SimRecords {
  readonly #world: SimWorld;
  /** By worker. */
  readonly #rings: readonly RecordRing[];
  readonly #limited: Float64Array;
  readonly #peer: PeerAddress = { family: 4, w0: 0, w1: 0, w2: 0, w3: 0, port: 0 };
  constructor(world: SimWorld) {
    this.#world = world;
    this.#rings = world.workers.flatMap(({ memory: { records } }) =>
      records === null ? [] : [openRecordRing(records, record.RECORD_WORDS)],
    );
    this.#limited = new Float64Array(world.workers.length);
  }

  /** The session in `slot`, whose client is at `end`, ends now. */
  ended(index: number, slot: number, end: number): void {
    if (this.#rings.length === 0) return;
    const ring = this.#ring(index);
    const { sessions } = this.#state(index);
    const at = this.#first(index);
    const word = (offset: number): number => ring.words[at + offset] as number;
    const time = (offset: number): number =>
      ring.doubles[(at + record.RECORD_TIMES) / 2 + offset] as number;
    if (at < 0 || word(record.RECORD_KIND) !== record.RECORD_END) {
      fail('A session ended without a record', index, slot);
    }
    const wrong = (what: string): never => fail(`A record has the wrong ${what}`, index, slot);
    if (word(record.RECORD_SLOT) !== slot) wrong('slot');
    if (word(record.RECORD_REASON) !== sessions.reason[slot]) wrong('reason');
    if (word(record.RECORD_GENERATION) !== sessions.generation[slot]) wrong('generation');
    if (word(record.RECORD_TIER) > 3) wrong('tier');
    if (time(record.TIME_NOW) !== this.#world.network.clock[0]) wrong('time');
    if (time(record.TIME_OPEN) < 0) wrong('duration');
    if (time(record.TIME_CONNECT) > time(record.TIME_OPEN)) wrong('connect time');
    if (time(record.TIME_BYTES_UP) !== sessions.bytes[slot * 2]) wrong('bytes up');
    if (time(record.TIME_BYTES_DOWN) !== sessions.bytes[slot * 2 + 1]) wrong('bytes down');
    const connected = time(record.TIME_CONNECT) >= 0;
    if (!connected && time(record.TIME_BYTES_UP) > 0) wrong('bytes of no connection');
    if (connected && word(record.RECORD_BACKEND) === 0) wrong('backend');
    if (end >= 0 && !this.#isClient(index, at, end)) wrong('client');
    releaseRecord(ring);
  }

  /** A connection is turned away now; the client is at `end`. */
  rejected(index: number, end: number): void {
    if (this.#rings.length === 0) return;
    const at = this.#first(index);
    const limited = this.#state(index).stats.totals[STAT_RECORDS_LIMITED] as number;
    if (at < 0) {
      if (limited === this.#limited[index]) fail('A rejection has no record', index);
      this.#limited[index] = limited;
      return;
    }
    const ring = this.#ring(index);
    if (ring.words[at + record.RECORD_KIND] !== record.RECORD_REJECTION) {
      fail('The record of a rejection is of another kind', index);
    }
    const isKnown = ring.words[at + record.RECORD_CLIENT + 3] !== 0;
    if (isKnown && end >= 0 && !this.#isClient(index, at, end)) {
      fail('The record of a rejection has another client', index);
    }
    releaseRecord(ring);
  }

  atEnd(): void {
    for (const [index, ring] of this.#rings.entries()) {
      if (this.#first(index) >= 0) fail('Records are left that nothing happened for', index);
      if (recordsDropped(ring) > 0) fail('Records were dropped', index);
    }
  }

  #ring(index: number): RecordRing {
    return this.#rings[index] as RecordRing;
  }

  #state(index: number): SimWorld['workers'][number]['state'] {
    return (this.#world.workers[index] as SimWorld['workers'][number]).state;
  }

  /** Offset of the first record that is not of a session that goes on; -1 = none waits. */
  #first(index: number): number {
    const ring = this.#ring(index);
    while (recordsWaiting(ring) > 0) {
      const at = firstRecord(ring);
      if (ring.words[at + record.RECORD_KIND] !== record.RECORD_LASTING) return at;
      const openMs = ring.doubles[(at + record.RECORD_TIMES) / 2 + record.TIME_OPEN] as number;
      const { options } = this.#state(index);
      if (openMs < (options.records?.intervalMs ?? 0)) fail('A record of a young session', index);
      releaseRecord(ring);
    }
    return -1;
  }

  #isClient(index: number, at: number, end: number): boolean {
    const { words } = this.#ring(index);
    const peer = this.#peer;
    fillAddress(this.#world.clientOf[end ^ 1] as number, this.#world.options.clients, peer);
    peer.port = CLIENT_PORT;
    const w2 = peer.family === 4 ? MAPPED_WORD : peer.w2;
    return (
      words[at + record.RECORD_LISTENER] === this.#world.listenerOf[end ^ 1] &&
      words[at + record.RECORD_CLIENT] === (peer.w0 | 0) &&
      words[at + record.RECORD_CLIENT + 2] === w2 &&
      words[at + record.RECORD_CLIENT + 3] === (peer.w3 | 0) &&
      words[at + record.RECORD_CLIENT_PORT] === peer.port
    );
  }
}
