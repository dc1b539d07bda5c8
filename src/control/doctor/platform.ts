// What the platform offers: io_uring, kernel version, a clock that is kept, fresh country data.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../../config.ts';
import { uringRefusal } from '../../sys/uring.ts';
import { loadGeoTable } from '../geo-load.ts';
import { advice, type Finding, ok } from './finding.ts';
import { isAtLeast, type Machine, readSysctl, readText } from './machine.ts';

const DAY_MS = 86_400_000;
const GEO_DAYS_MAX = 90;

export function checkEngine(config: Config, machine: Machine): Finding {
  if (config.engine !== 'auto' && config.engine !== 'uring') {
    return ok('engine', `EDGEPROXY_ENGINE asks for ${config.engine}`);
  }
  const refusal = uringRefusal();
  if (refusal === '') return ok('engine', 'io_uring works here');
  const disabled = readSysctl(machine, 'kernel.io_uring_disabled')?.[0] ?? 0;
  const remedy =
    disabled > 0
      ? ({ kind: 'sysctl', key: 'kernel.io_uring_disabled', value: '0' } as const)
      : advice('Allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile');
  const status = config.engine === 'uring' ? 'fail' : 'warn';
  const instead = config.engine === 'uring' ? 'the proxy will not start' : 'epoll is used instead';
  return { check: 'engine', status, text: `io_uring is refused: ${refusal}; ${instead}`, remedy };
}

export function checkKernel({ kernel }: Machine): Finding {
  if (isAtLeast(kernel, 6, 0)) return ok('kernel', `Linux ${kernel}`);
  const text = `Linux ${kernel} is older than 6.0, the first with all that the io_uring engine uses`;
  return { check: 'kernel', status: 'warn', text, remedy: advice('Use a newer kernel, or epoll') };
}

export function checkClock(machine: Machine): Finding {
  const synchronized = existsSync(join(machine.root, 'run/systemd/timesync/synchronized'));
  const keepers = ['run/chrony/chronyd.pid', 'run/ntpd.pid', 'run/chrony.pid'];
  const kept = synchronized || keepers.some((path) => existsSync(join(machine.root, path)));
  if (kept) return ok('clock', 'The wall clock is kept by NTP');
  // Sessions use the monotonic clock: only log times and country data care.
  const text = 'No NTP client is to be seen: times in the log may be wrong; sessions do not care';
  return { check: 'clock', status: 'unknown', text };
}

/** Addresses move between countries by some percent a month. */
export function checkGeoData(config: Config, nowMs: number): Finding {
  const { source, buildEpoch } = loadGeoTable(config.geoipPath);
  const days = Math.floor((nowMs - buildEpoch * 1000) / DAY_MS);
  const text = `Country data (${source}) is ${days} days old`;
  if (days <= GEO_DAYS_MAX) return ok('country_data', text);
  const remedy = advice('Set EDGEPROXY_GEOIP_PATH to a database that is kept up to date');
  return { check: 'country_data', status: 'warn', text, remedy };
}

/** Whether the proxy may use its ports. */
export function checkPrivileges(config: Config, machine: Machine, uid: number): Finding {
  const first = readSysctl(machine, 'net.ipv4.ip_unprivileged_port_start')?.[0] ?? 1024;
  const low = config.listen.filter(({ port }) => port > 0 && port < first);
  const capabilities = /^CapEff:\s+([0-9a-f]+)/m.exec(
    readText(machine, 'proc/self/status') ?? '',
  )?.[1];
  const mayBind = (BigInt(`0x${capabilities ?? '0'}`) & (1n << 10n)) !== 0n;
  if (low.length === 0 || mayBind || uid === 0)
    return ok('privileges', 'The ports may be listened on');
  const ports = low.map(({ port }) => port).join(', ');
  const text = `Port ${ports} is below ${first}, and this user lacks CAP_NET_BIND_SERVICE`;
  const remedy = advice('Use the shipped systemd unit, or setcap cap_net_bind_service=+ep');
  return { check: 'privileges', status: 'fail', text, remedy };
}
