// A small program for tests that need another network namespace: run there, it serves names or asks for one.
//   name-tool.ts serve HOST:PORT=NAME...   backends that say their name; prints "ready"
//   name-tool.ts stay HOST:PORT=NAME...    the same, but they leave the connection open
//   name-tool.ts ask FROM HOST PORT        prints what a client from that address reads
//   name-tool.ts hold HOST PORT FROM=COUNT...   so many clients from each address that stay; prints "ready"

import { connect, createServer } from 'node:net';

const [mode, ...words] = process.argv.slice(2);

function serve(specs: readonly string[], isEnded: boolean): void {
  let waiting = specs.length;
  for (const spec of specs) {
    const match = /^(.+):(\d+)=(.+)$/.exec(spec);
    if (match === null) throw new Error(`Cannot serve "${spec}": write HOST:PORT=NAME`);
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.resume();
      socket.write(match[3] as string);
      if (isEnded) socket.end();
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

function hold(host: string, port: number, specs: readonly string[]): void {
  const clients = specs.flatMap((spec) => {
    const [from = '', count] = spec.split('=');
    return Array<string>(Number(count)).fill(from);
  });
  let waiting = clients.length;
  for (const from of clients) {
    const socket = connect({ host, port, localAddress: from });
    socket.once('data', () => {
      if (--waiting === 0) process.stdout.write('ready\n');
    });
  }
}

if (mode === 'serve' || mode === 'stay') serve(words, mode === 'serve');
else if (mode === 'hold') hold(words[0] as string, Number(words[1]), words.slice(2));
else if (mode === 'ask') ask(words[0] as string, words[1] as string, Number(words[2]));
else throw new Error('Write serve, stay, ask or hold');
