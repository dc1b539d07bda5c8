// Frees the rows of clients whose binding has expired, regularly, while the proxy runs.

import type { Config } from '../config.ts';
import { type ClientTable, sweepClients } from '../route/client-table.ts';
import { monotonicMs } from '../sys/clock.ts';

/** Rows swept per turn of the event loop: about 2 ms, 30 when all of them have expired. */
const SWEEP_ROWS = 65_536;
const MS = 1000;

/** A slice at a time, so that the event loop stays free; the result ends it. `epochMs`: time 0 of the table. */
export function sweepRegularly(
  config: Pick<Config, 'bindingTtlSecs' | 'bindingGcIntervalSecs'>,
  clients: ClientTable,
  epochMs: number,
): () => void {
  const ttlMs = config.bindingTtlSecs * MS;
  const sweep = (from: number): void => {
    const now = Math.floor(monotonicMs() - epochMs);
    sweepClients(clients, now, ttlMs, from, Math.min(SWEEP_ROWS, clients.rows - from));
    if (from + SWEEP_ROWS < clients.rows) setImmediate(sweep, from + SWEEP_ROWS);
  };
  const timer = setInterval(sweep, config.bindingGcIntervalSecs * MS, 0);
  return () => clearInterval(timer);
}
