// What the doctor reads of the machine: sysctls, limits, memory, interfaces. Everything is under a root directory, so
// that tests can show it any machine.

import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { join } from 'node:path';

export interface Machine {
  readonly root: string;
  /** Of the kernel: `6.1.0-18-amd64`. */
  readonly kernel: string;
  readonly cores: number;
}

export function thisMachine(root = '/'): Machine {
  return { root, kernel: release(), cores: availableParallelism() };
}

/** A small file, trimmed; null when it cannot be read. */
export function readText(machine: Machine, path: string): string | null {
  try {
    return readFileSync(join(machine.root, path), 'utf8').trim();
  } catch {
    return null;
  }
}

/** The numbers of a sysctl (`net.ipv4.tcp_rmem` has three); null when the kernel has it not. */
export function readSysctl(machine: Machine, key: string): readonly number[] | null {
  const text = readText(machine, join('proc/sys', key.replaceAll('.', '/')));
  if (text === null || !/^[\d\s-]+$/.test(text)) return null;
  return text.split(/\s+/).map(Number);
}

/** Bytes of memory that programs could still take (proc(5), MemAvailable). */
export function availableMemory(machine: Machine): number | null {
  const kilobytes = /^MemAvailable:\s+(\d+) kB/m.exec(readText(machine, 'proc/meminfo') ?? '')?.[1];
  return kilobytes === undefined ? null : Number(kilobytes) * 1024;
}

export interface Interface {
  readonly name: string;
  readonly mtu: number;
}

/** Network interfaces that are up, the loopback left out. */
export function interfacesOf(machine: Machine): readonly Interface[] {
  let names: string[];
  try {
    names = readdirSync(join(machine.root, 'sys/class/net'));
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const mtu = Number(readText(machine, `sys/class/net/${name}/mtu`));
    const state = readText(machine, `sys/class/net/${name}/operstate`);
    return name === 'lo' || state === 'down' || !(mtu > 0) ? [] : [{ name, mtu }];
  });
}

/** Whether a kernel module is loaded or built in. */
export function hasModule(machine: Machine, name: string): boolean {
  return (
    readText(machine, `sys/module/${name}/refcnt`) !== null ||
    readText(machine, `sys/module/${name}/version`) !== null ||
    readText(machine, `sys/module/${name}/uevent`) !== null
  );
}

/** Whether kernel `release` is at least `major.minor`. */
export function isAtLeast(release: string, major: number, minor: number): boolean {
  const [, first = '0', second = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  return Number(first) > major || (Number(first) === major && Number(second) >= minor);
}
