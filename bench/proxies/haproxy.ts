// HAProxy: mode tcp, one thread, no affinity. `option splice-auto` is the operator's choice for bulk; because HAProxy 2.6
// hardly ever splices with it under this load (strace), there is a third variant that always does.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { type LoadRun, type PreparedProxy, SERVICES } from '../../src/testing/load-run.ts';
import { hostsOf, type ProxyKind, type ProxyNeeds } from './prepare.ts';

/** `2.6.12…`, or '' where it is not installed. */
export function haproxyVersion(): string {
  const { stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8' });
  return /version (\S+)/.exec(stdout ?? '')?.[1] ?? '';
}

async function prepare(
  run: LoadRun,
  needs: ProxyNeeds,
  options: readonly string[],
): Promise<PreparedProxy> {
  const ports = await run.choosePorts();
  const sections = SERVICES.map((service) => {
    const servers = hostsOf(service, needs).map(
      (host, index) => `  server b${index} ${host}:${run.backendPorts[service]}`,
    );
    const bind = `  bind 127.0.0.1:${ports[service]}`;
    return [`listen ${service}`, bind, ...servers].join('\n');
  });
  // HAProxy asks for two descriptors a connection and some more, and for two pipes of two when it may splice.
  const perConnection = options.length > 0 ? 6 : 2;
  const config = `global
  nbthread 1
  maxconn ${Math.floor((needs.descriptors - 500) / perConnection)}
defaults
  mode tcp
${options.map((option) => `  option ${option}\n`).join('')}  timeout connect 3s
  timeout client 1h
  timeout server 1h
${sections.join('\n')}
`;
  const path = run.filePath(`haproxy-${ports.echo}.cfg`);
  writeFileSync(path, config);
  return { command: 'haproxy', args: ['-db', '-f', path], ports };
}

function variant(name: string, options: readonly string[]): ProxyKind {
  return { name, prepare: (run, needs) => prepare(run, needs, options) };
}

export const HAPROXY = variant('haproxy', []);
export const HAPROXY_SPLICE_AUTO = variant('haproxy splice-auto', ['splice-auto']);
export const HAPROXY_SPLICING = variant('haproxy always splicing', [
  'splice-request',
  'splice-response',
]);
