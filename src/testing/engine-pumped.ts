// Sessions with a pump, for the conformance cases about pumps.

import assert from 'node:assert/strict';
import { OP_PUMP } from '../engine/proactor.ts';
import type { EngineDriver, EngineEvent, Link } from './engine-driver.ts';
import { streamBytes } from './engine-flow.ts';

export const BULK_BYTES = 12_000_000;
export const SMALL_RECEIVE_BYTES = 4096;
/** Endpoints of one session: a pump's target is known as the other endpoint of its source. */
export const CLIENT = 6;
export const BACKEND = 7;

/** One pump's events, summed. */
export class Pumped {
  readonly source: Link;
  bytes = 0;
  last: EngineEvent | null = null;

  constructor(driver: EngineDriver, source: Link, target: Link) {
    this.source = source;
    driver.takers.add((event) => {
      const own =
        event.operation === OP_PUMP &&
        event.endpoint === source.endpoint &&
        event.generation === source.generation &&
        this.last === null;
      if (!own) return false;
      if (event.more === 1) assert(event.result > 0, `A pump moved ${event.result}`);
      if (event.more === 1) this.bytes += event.result;
      else this.last = event;
      return true;
    });
    driver.pump(source, target);
  }
}

export async function session(driver: EngineDriver, generation = 1): Promise<[Link, Link]> {
  const client = await driver.link(CLIENT, { generation });
  return [client, await driver.link(BACKEND, { generation })];
}

/** A session whose backend never reads, with a pump towards it that is blocked with bytes in its pipe. */
export async function blockedPump(
  driver: EngineDriver,
  generation = 1,
): Promise<[Link, Link, Pumped]> {
  const client = await driver.link(CLIENT, { generation });
  const backend = await driver.link(BACKEND, { generation, receiveBytes: SMALL_RECEIVE_BYTES });
  backend.peer.reading = false;
  const pumped = new Pumped(driver, client, backend);
  client.peer.write(streamBytes(BULK_BYTES));
  let before = -1;
  let still = 0;
  await driver.until('the pump to block', () => {
    still = before === pumped.bytes && pumped.bytes > 0 ? still + 1 : 0;
    before = pumped.bytes;
    return still > 20;
  });
  assert(pumped.bytes < BULK_BYTES, 'The pump moved everything');
  return [client, backend, pumped];
}

export async function lastOf(driver: EngineDriver, pumped: Pumped): Promise<EngineEvent> {
  await driver.until('the last event of the pump', () => pumped.last !== null);
  return pumped.last as EngineEvent;
}
