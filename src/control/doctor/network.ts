// Is the kernel's network set for many short and many long connections? Queues, socket buffers, Fast Open, TIME_WAIT, MTU,
// and the chain of timeouts: which link of the path ends an idle session first.

import type { Config } from '../../config.ts';
import { advice, type Finding, ok, sysctl } from './finding.ts';
import { interfacesOf, type Machine, readSysctl } from './machine.ts';

const QUEUE_WANTED = 4096;
/** Enough for 100 Mbit/s to one client at 300 ms. */
const SOCKET_BUFFER_WANTED = 4_194_304;
const FAST_OPEN_SERVER = 2;
/** tcp(7): for connections to others; 2 is the default since Linux 4.19 and covers loopback only. */
const TW_REUSE_GLOBAL = 1;
const ETHERNET_MTU = 1500;
/** Room for WireGuard over IPv6 within ETHERNET_MTU. */
const WIREGUARD_MTU = 1420;

export function checkQueues(machine: Machine): Finding[] {
  return (['net.core.somaxconn', 'net.ipv4.tcp_max_syn_backlog'] as const).map((key) => {
    const check = key === 'net.core.somaxconn' ? 'somaxconn' : 'syn_backlog';
    const value = readSysctl(machine, key)?.[0];
    if (value === undefined) return { check, status: 'unknown', text: `${key} cannot be read` };
    if (value >= QUEUE_WANTED) return ok(check, `${key} is ${value}`);
    const text = `${key} is ${value}: a burst of more connections than that is dropped or delayed`;
    return { check, status: 'warn', text, remedy: sysctl(key, QUEUE_WANTED) };
  });
}

export function checkSocketBuffers(machine: Machine): Finding[] {
  return (['tcp_rmem', 'tcp_wmem'] as const).map((name) => {
    const key = `net.ipv4.${name}`;
    const values = readSysctl(machine, key);
    const most = values?.[2];
    if (values === null || most === undefined) {
      return { check: name, status: 'unknown', text: `${key} cannot be read` };
    }
    if (most >= SOCKET_BUFFER_WANTED) return ok(name, `${key} grows to ${most} bytes`);
    const text = `${key} grows to ${most} bytes only: far clients get less than the line has`;
    const wanted = `${values[0]} ${values[1]} ${SOCKET_BUFFER_WANTED}`;
    return { check: name, status: 'warn', text, remedy: sysctl(key, wanted) };
  });
}

export function checkFastOpen(config: Config, machine: Machine): Finding {
  const value = readSysctl(machine, 'net.ipv4.tcp_fastopen')?.[0];
  if (!config.tcpFastOpen) return ok('fast_open', 'TCP Fast Open is switched off by its setting');
  if (value === undefined) return ok('fast_open', 'This kernel has no TCP Fast Open');
  if ((value & FAST_OPEN_SERVER) !== 0) return ok('fast_open', 'TCP Fast Open is on for listeners');
  const text = `net.ipv4.tcp_fastopen is ${value}: EDGEPROXY_TCP_FAST_OPEN has no effect on listeners`;
  return {
    check: 'fast_open',
    status: 'warn',
    text,
    remedy: sysctl('net.ipv4.tcp_fastopen', value | 3),
  };
}

export function checkTimeWait(machine: Machine): Finding {
  const value = readSysctl(machine, 'net.ipv4.tcp_tw_reuse')?.[0];
  if (value === undefined) {
    return { check: 'time_wait', status: 'unknown', text: 'net.ipv4.tcp_tw_reuse cannot be read' };
  }
  if (value === TW_REUSE_GLOBAL) return ok('time_wait', 'Ports in TIME_WAIT are used again');
  const text = `net.ipv4.tcp_tw_reuse is ${value}: after a burst of short sessions local ports are out for a minute`;
  return { check: 'time_wait', status: 'warn', text, remedy: sysctl('net.ipv4.tcp_tw_reuse', 1) };
}

export function checkSynCookies(machine: Machine): Finding {
  const value = readSysctl(machine, 'net.ipv4.tcp_syncookies')?.[0];
  if (value !== 0) return ok('syn_cookies', 'SYN cookies stand against floods');
  const text = 'net.ipv4.tcp_syncookies is 0: a flood of half-open connections keeps others out';
  return {
    check: 'syn_cookies',
    status: 'warn',
    text,
    remedy: sysctl('net.ipv4.tcp_syncookies', 1),
  };
}

/** `tunnel`: the interface of the mesh, which is meant to be smaller. */
export function checkMtu(machine: Machine, tunnel = ''): Finding {
  const interfaces = interfacesOf(machine);
  if (interfaces.length === 0) {
    return { check: 'mtu', status: 'unknown', text: 'No network interface is to be seen' };
  }
  const said = interfaces.map(({ name, mtu }) => `${name} ${mtu}`).join(', ');
  const isTunnel = (name: string): boolean => /^wg/.test(name) || name === tunnel;
  const tunnels = interfaces.filter(({ name, mtu }) => isTunnel(name) && mtu > WIREGUARD_MTU);
  if (tunnels.length > 0) {
    const text = `A tunnel's MTU is above ${WIREGUARD_MTU} (${said}): large packets may vanish`;
    return { check: 'mtu', status: 'warn', text, remedy: advice(`Set it to ${WIREGUARD_MTU}`) };
  }
  const small = interfaces.some(({ name, mtu }) => mtu < ETHERNET_MTU && !isTunnel(name));
  const probing = readSysctl(machine, 'net.ipv4.tcp_mtu_probing')?.[0];
  if (!small || probing !== 0) return ok('mtu', `MTU: ${said}`);
  const text = `MTU: ${said}; with less than ${ETHERNET_MTU} on the way a lost ICMP message stalls a session`;
  return { check: 'mtu', status: 'warn', text, remedy: sysctl('net.ipv4.tcp_mtu_probing', 1) };
}

/** Which link ends a session without bytes first, and whether that is the one that is meant to. */
export function checkIdleChain(config: Config, machine: Machine): Finding {
  const links: { name: string; seconds: number }[] = [];
  if (config.idleTimeoutSecs > 0) {
    links.push({ name: 'EDGEPROXY_IDLE_TIMEOUT_SECS', seconds: config.idleTimeoutSecs });
  }
  const key = 'net.netfilter.nf_conntrack_tcp_timeout_established';
  const tracked = readSysctl(machine, key)?.[0];
  // Keepalive packets count as traffic there.
  const keptAlive = config.keepaliveSecs > 0 && config.keepaliveSecs < (tracked ?? 0);
  if (tracked !== undefined && !keptAlive) links.push({ name: key, seconds: tracked });
  links.sort((one, other) => one.seconds - other.seconds);
  const [first] = links;
  if (first === undefined) {
    return ok('idle_chain', 'Nothing on this machine ends an idle session');
  }
  const text = `An idle session is ended first by ${first.name}, after ${first.seconds} s`;
  if (first.name !== key) return ok('idle_chain', text);
  const wanted = config.idleTimeoutSecs > 0 ? config.idleTimeoutSecs + 60 : 432_000;
  return {
    check: 'idle_chain',
    status: 'warn',
    text: `${text}: without a word to either side`,
    remedy: sysctl(key, wanted),
  };
}
