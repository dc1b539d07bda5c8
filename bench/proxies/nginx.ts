// nginx: the stream module, one process that is master and worker in one, no affinity.

import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LoadRun, type PreparedProxy, SERVICES } from '../../src/testing/load-run.ts';
import { hostsOf, type ProxyKind, type ProxyNeeds } from './prepare.ts';

const MODULE = 'ngx_stream_module.so';

/** What `nginx -V` says: its version and build options. */
function about(): string {
  return spawnSync('nginx', ['-V'], { encoding: 'utf8' }).stderr ?? '';
}

/** The line that loads the stream module, '' when it is built in, null when there is none. */
function loadLine(build: string): string | null {
  if (/--with-stream(?!=dynamic|_)/.test(build)) return '';
  const path = join(/--modules-path=(\S+)/.exec(build)?.[1] ?? '', MODULE);
  return existsSync(path) ? `load_module ${path};` : null;
}

/** `1.22.1`, or '' where nginx or its stream module is not installed. */
export function nginxVersion(): string {
  const build = about();
  return loadLine(build) === null ? '' : (/nginx\/(\S+)/.exec(build)?.[1] ?? '');
}

async function prepare(run: LoadRun, needs: ProxyNeeds): Promise<PreparedProxy> {
  const ports = await run.choosePorts();
  const sections = SERVICES.map((service) => {
    const servers = hostsOf(service, needs).map(
      (host) => `    server ${host}:${run.backendPorts[service]};`,
    );
    return `  upstream ${service} {
${servers.join('\n')}
  }
  server {
    listen 127.0.0.1:${ports[service]} backlog=4096;
    proxy_pass ${service};
    proxy_connect_timeout 3s;
    proxy_timeout 1h;
  }`;
  });
  const config = `${loadLine(about())}
daemon off;
master_process off;
worker_rlimit_nofile ${needs.descriptors};
pid ${run.filePath(`nginx-${ports.echo}.pid`)};
error_log stderr crit;
events {
  worker_connections ${needs.descriptors - 100};
}
stream {
${sections.join('\n')}
}
`;
  const path = run.filePath(`nginx-${ports.echo}.conf`);
  writeFileSync(path, config);
  return { command: 'nginx', args: ['-e', 'stderr', '-c', path], ports };
}

export const NGINX: ProxyKind = { name: 'nginx stream', prepare };
