// Processes that follow each other at one address, for tests of takeover and restart.

import { type HostPort, ProxyProcess } from './proxy-process.ts';
import type { BackendRow } from './routing-file.ts';
import { within } from './wait.ts';

/** How a process ends that did as it was told. */
export const DONE = { code: 0, signal: null };

export function addressText({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A process for the same address as `old`, not awaited. */
export function startSuccessor(
  old: ProxyProcess,
  backends: readonly BackendRow[],
  settings: Readonly<Record<string, string | number>> = {},
): ProxyProcess {
  const LISTEN_ADDR = addressText(old.address);
  return new ProxyProcess({ backends, settings: { LISTEN_ADDR, ...settings } });
}

/** Waits for the end of a process that cannot start: its exit code and all it said. */
export async function failureOf(
  proxy: ProxyProcess,
): Promise<{ code: number | null; said: string }> {
  const { code } = await within('the process to end', proxy.exited);
  return { code, said: JSON.stringify(proxy.logs) + proxy.stderrText };
}
