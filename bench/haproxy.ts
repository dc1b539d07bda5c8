// HAProxy as the yardstick: mode tcp, one thread, default options, the same services and backend addresses as edgeproxy.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import {
  BACKEND_HOSTS,
  type LoadProxy,
  type LoadRun,
  type Placement,
  SERVICES,
} from '../src/testing/load-run.ts';

export interface HaproxyOptions extends Placement {
  /**
   * Everything through a pipe in the kernel. Not `option splice-auto`: HAProxy 2.6 then never spliced under this load
   * (strace), so the harder yardstick is used.
   */
  readonly splice?: boolean;
}

/** `HAProxy version 2.6.12…`, or '' where it is not installed. */
export function haproxyVersion(): string {
  const { stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8' });
  return /version (\S+)/.exec(stdout ?? '')?.[1] ?? '';
}

export async function startHaproxy(run: LoadRun, options: HaproxyOptions): Promise<LoadProxy> {
  const ports = await run.choosePorts();
  const sections = SERVICES.map((service) => {
    const servers = BACKEND_HOSTS.map(
      (host, index) => `  server b${index} ${host}:${run.backendPorts[service]}`,
    );
    return [`listen ${service}`, `  bind 127.0.0.1:${ports[service]}`, ...servers].join('\n');
  });
  const config = `global
  nbthread 1
  ${options.splice ? 'maxconn 1000' : ''}
defaults
  mode tcp
  ${options.splice ? 'option splice-request\n  option splice-response' : ''}
  timeout connect 3s
  timeout client 1h
  timeout server 1h
${sections.join('\n')}
`;
  const name = options.splice ? 'haproxy splicing' : 'haproxy';
  const path = run.filePath(`${name.replace(' ', '-')}-${ports.echo}.cfg`);
  writeFileSync(path, config);
  const child = run.spawn('haproxy', ['-db', '-f', path], options);
  await run.whenReady(child, ports);
  return { name, pid: child.pid as number, ports, heaps: async () => [], collect: async () => {} };
}
