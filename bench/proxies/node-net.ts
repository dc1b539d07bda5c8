// Plain node:net: what a TCP proxy in Node.js is when written in the usual way, `client.pipe(backend).pipe(client)`.

import { fileURLToPath } from 'node:url';
import { type LoadRun, type PreparedProxy, SERVICES } from '../../src/testing/load-run.ts';
import type { NodeNetListener } from './node-net-process.ts';
import { hostsOf, type ProxyKind, type ProxyNeeds } from './prepare.ts';

const PROGRAM = fileURLToPath(new URL('node-net-process.ts', import.meta.url));

async function prepare(run: LoadRun, needs: ProxyNeeds): Promise<PreparedProxy> {
  const ports = await run.choosePorts();
  const listeners = SERVICES.map((service): NodeNetListener => {
    const port = run.backendPorts[service];
    return { port: ports[service], backends: hostsOf(service, needs).map((host) => [host, port]) };
  });
  return { command: process.execPath, args: [PROGRAM, JSON.stringify(listeners)], ports };
}

export const NODE_NET: ProxyKind = { name: 'node:net', prepare };
