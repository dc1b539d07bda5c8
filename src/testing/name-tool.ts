// A small program for tests that need another network namespace: run there, it serves names or asks for one.
//   name-tool.ts serve HOST:PORT=NAME...   backends that say their name; prints "ready"
//   name-tool.ts ask FROM HOST PORT        prints what a client from that address reads

import { connect, createServer } from 'node:net';

const [mode, ...words] = process.argv.slice(2);

function serve(specs: readonly string[]): void {
  let waiting = specs.length;
  for (const spec of specs) {
    const match = /^(.+):(\d+)=(.+)$/.exec(spec);
    if (match === null) throw new Error(`Cannot serve "${spec}": write HOST:PORT=NAME`);
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.resume();
      socket.end(match[3]);
    });
    server.listen(Number(match[2]), match[1], () => {
      if (--waiting === 0) process.stdout.write('ready\n');
    });
  }
}

function ask(from: string, host: string, port: number): void {
  const socket = connect({ host, port, localAddress: from });
  socket.on('error', (error: NodeJS.ErrnoException) => process.stdout.write(error.code ?? ''));
  socket.pipe(process.stdout, { end: false });
  socket.on('end', () => socket.end());
}

if (mode === 'serve') serve(words);
else if (mode === 'ask') ask(words[0] as string, words[1] as string, Number(words[2]));
else throw new Error('Write serve or ask');
