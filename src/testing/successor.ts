// Processes that follow each other at one address, for tests of takeover and restart.

import { type HostPort, type ProxyOptions, ProxyProcess, startProxy } from './proxy-process.ts';
import type { BackendRow } from './routing-file.ts';
import { within } from './wait.ts';

/** How a process ends that did as it was told. */
export const DONE = { code: 0, signal: null };

export function addressText({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

type Settings = Readonly<Record<string, string | number>>;

function optionsAfter(
  old: ProxyProcess,
  backends: readonly BackendRow[],
  settings: Settings,
): ProxyOptions {
  // A busy machine must not run into the deadline of a drain.
  const common = { LISTEN_ADDR: addressText(old.address), SHUTDOWN_TIMEOUT_SECS: 600 };
  return { backends, settings: { ...common, ...settings } };
}

/** A process for the same address as `old`, not awaited. */
export function openSuccessor(
  old: ProxyProcess,
  backends: readonly BackendRow[],
  settings: Settings = {},
): ProxyProcess {
  return new ProxyProcess(optionsAfter(old, backends, settings));
}

/** The same once it listens. */
export function startSuccessor(
  old: ProxyProcess,
  backends: readonly BackendRow[],
  settings: Settings = {},
): Promise<ProxyProcess> {
  return startProxy(optionsAfter(old, backends, settings));
}

/** Waits for the end of a process that cannot start: its exit code and all it said. */
export async function failureOf(
  proxy: ProxyProcess,
): Promise<{ code: number | null; said: string }> {
  const { code } = await within('the process to end', proxy.exited);
  return { code, said: JSON.stringify(proxy.logs) + proxy.stderrText };
}
