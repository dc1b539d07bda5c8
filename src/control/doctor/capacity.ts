// Does the machine hold what the settings promise? Descriptors, local ports, memory, connection tracking, cores.

import type { Config } from '../../config.ts';
import type { ResourceLimit } from '../../sys/rlimit.ts';
import type { RawBackend } from '../routing-rows.ts';
import { descriptorsFor, sessionsFor } from '../worker-options.ts';
import { advice, type Finding, ok, sysctl } from './finding.ts';
import { availableMemory, type Machine, readSysctl } from './machine.ts';

const MB = 2 ** 20;
/** An estimate of the kernel's memory for the two sockets of an idle session. */
const KERNEL_BYTES_PER_SESSION = 4096;

export interface Capacity {
  readonly config: Config;
  readonly backends: readonly RawBackend[];
  readonly descriptors: ResourceLimit;
  /** Sessions the proxy would serve at once, by setting or by descriptors. */
  readonly sessions: number;
}

export function capacityOf(
  config: Config,
  backends: readonly RawBackend[],
  descriptors: ResourceLimit,
): Capacity {
  const sessions = config.maxConnections ?? sessionsFor(config, descriptors.hard);
  return { config, backends, descriptors, sessions };
}

export function checkDescriptors({ config, descriptors, sessions }: Capacity): Finding {
  if (config.maxConnections === null) {
    return ok('descriptors', `${descriptors.hard} descriptors allow ${sessions} sessions`);
  }
  const needed = descriptorsFor(config, sessions);
  const text = `${descriptors.hard} descriptors, ${needed} are needed for ${sessions} sessions`;
  if (needed <= descriptors.hard) return ok('descriptors', text);
  const remedy = { kind: 'descriptors', count: needed } as const;
  return { check: 'descriptors', status: 'fail', text, remedy };
}

/** Each backend address can have one connection per local port. */
export function checkPorts({ backends, sessions }: Capacity, machine: Machine): Finding {
  const range = readSysctl(machine, 'net.ipv4.ip_local_port_range');
  if (range === null || range.length < 2) {
    return { check: 'ports', status: 'unknown', text: 'The range of local ports cannot be read' };
  }
  const [low = 0, high = 0] = range;
  const ports = high - low + 1;
  const remedy = sysctl('net.ipv4.ip_local_port_range', '1024 65535');
  const over = backends.filter(({ hardLimit, deleted }) => !deleted && hardLimit > ports);
  if (over.length > 0) {
    const names = over.slice(0, 3).map(({ id, hardLimit }) => `${id} (${hardLimit})`);
    const text = `${ports} local ports, but hard limits above that: ${names.join(', ')}`;
    return { check: 'ports', status: 'fail', text, remedy };
  }
  const usable = backends.filter(({ deleted, healthy }) => !deleted && healthy);
  const unlimited = usable.filter(({ hardLimit }) => hardLimit === 0).length;
  const sum = ports * Math.max(1, usable.length);
  if (usable.length > 0 && unlimited === usable.length && sessions > sum) {
    const text = `${ports} local ports for ${usable.length} backends without hard limits: ${sum} sessions at most, ${sessions} are allowed`;
    return { check: 'ports', status: 'warn', text, remedy };
  }
  return ok('ports', `${ports} local ports per backend address`);
}

export function checkMemory({ config, sessions }: Capacity, machine: Machine): Finding {
  const available = availableMemory(machine);
  const buffers = config.bufferMemoryMb * MB * config.workers;
  const needed = buffers + sessions * KERNEL_BYTES_PER_SESSION;
  const parts = `${Math.round(buffers / MB)} MB of buffers at most, ${Math.round((sessions * KERNEL_BYTES_PER_SESSION) / MB)} MB of the kernel's for ${sessions} sessions`;
  if (available === null) {
    return { check: 'memory', status: 'unknown', text: `Needs ${parts}` };
  }
  const text = `${Math.round(available / MB)} MB of memory are free; ${parts}`;
  if (needed <= available) return ok('memory', text);
  const remedy = advice('Lower EDGEPROXY_BUFFER_MEMORY_MB or EDGEPROXY_MAX_CONNECTIONS');
  return { check: 'memory', status: 'warn', text, remedy };
}

/** A full table drops packets of new connections, without a word to either side. */
export function checkConntrack({ sessions }: Capacity, machine: Machine): Finding {
  const max = readSysctl(machine, 'net.netfilter.nf_conntrack_max')?.[0];
  if (max === undefined) return ok('conntrack', 'Connections are not tracked (no nf_conntrack)');
  // A session is two connections, and closed ones stay for a while.
  const needed = sessions * 4;
  const text = `Connection tracking holds ${max} connections, ${sessions} sessions need ${needed}`;
  if (max >= needed) return ok('conntrack', text);
  const remedy = sysctl('net.netfilter.nf_conntrack_max', needed);
  return { check: 'conntrack', status: max >= sessions * 2 ? 'warn' : 'fail', text, remedy };
}

export function checkCores({ config }: Capacity, { cores }: Machine): Finding {
  const text = `${config.workers} workers on ${cores} cores`;
  if (config.workers <= cores) return ok('cores', text);
  const remedy = advice(`Set EDGEPROXY_WORKERS to ${cores}: workers that share a core only wait`);
  return { check: 'cores', status: 'warn', text, remedy };
}
