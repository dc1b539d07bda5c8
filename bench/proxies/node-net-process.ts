// The process of the plain node:net proxy: takes its listeners as JSON, serves until it is killed.

import { connect, createServer, type Socket } from 'node:net';

export interface NodeNetListener {
  readonly port: number;
  readonly backends: readonly (readonly [host: string, port: number])[];
}

const BACKLOG = 4096;

function relay(client: Socket, [host, port]: readonly [string, number]): void {
  const backend = connect({ host, port, noDelay: true, allowHalfOpen: true });
  client.pipe(backend);
  backend.pipe(client);
  client.on('error', () => backend.resetAndDestroy());
  backend.on('error', () => client.resetAndDestroy());
}

for (const { port, backends } of JSON.parse(process.argv[2] as string) as NodeNetListener[]) {
  let turn = 0;
  createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    relay(client, backends[turn++ % backends.length]);
  }).listen({ host: '127.0.0.1', port, backlog: BACKLOG });
}
