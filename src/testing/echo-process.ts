// A backend as a process of its own, for tests that kill one: prints its port, says its name to every connection, then
// sends back what it gets.
//   echo-process.ts NAME

import { type AddressInfo, createServer } from 'node:net';

const [name = ''] = process.argv.slice(2);

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.write(`${name}\n`);
  socket.pipe(socket);
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
// Ends with the test, however that ends.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
