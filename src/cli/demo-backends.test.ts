import assert from 'node:assert/strict';
import { Agent, get } from 'node:http';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { ProxyError } from '../base/errors.ts';
import { createDemoBackend, listenOn } from './demo-backends.ts';

const BACKEND = { id: 'demo-x', region: 'sa', port: 0 };

/** One sample backend on any free port. */
async function start(): Promise<{ port: number; close(): void }> {
  const sockets = new Set<import('node:net').Socket>();
  const server = createDemoBackend(BACKEND, sockets);
  await listenOn(server, '127.0.0.1', 0);
  const { port } = server.address() as { port: number };
  const close = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { port, close };
}

/** Sends the parts one by one, shuts down, and gives all that came back. */
async function exchange(port: number, parts: readonly (string | Buffer)[]): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  const chunks: Buffer[] = [];
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  for (const part of parts) {
    await new Promise<void>((resolve) => socket.write(part, () => setTimeout(resolve, 10)));
  }
  socket.end();
  await closed;
  return Buffer.concat(chunks).toString('latin1');
}

test('a demo backend answers HTTP with its name, any path and host, keep-alive', async () => {
  const { port, close } = await start();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const locals = new Set<number>();
  for (const path of ['/', '/any/path?x=1']) {
    const body = await new Promise<string>((resolve, reject) => {
      const options = { port, host: '127.0.0.1', path, agent, headers: { host: 'any.example' } };
      get(options, (response) => {
        locals.add(response.socket.localPort as number);
        assert.equal(response.statusCode, 200);
        assert.equal(response.headers['x-backend'], 'demo-x');
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve(text));
      }).on('error', reject);
    });
    assert.equal(body, 'Hello from demo-x (region sa)\n');
  }
  assert.equal(locals.size, 1, 'one connection for both');
  agent.destroy();
  close();
});

test('a demo backend answers a request that comes byte by byte, with a body', async () => {
  const { port, close } = await start();
  const head = 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\n';
  const answer = await exchange(port, ['P', 'OS', `${head.slice(3)}abc`]);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(answer, /Hello from demo-x/);
  close();
});

test('a demo backend echoes lines that are not HTTP, with its name', async () => {
  const { port, close } = await start();
  assert.equal(await exchange(port, ['hel', 'lo\nyou']), 'demo-x: hello\ndemo-x: you\n');
  assert.equal(await exchange(port, ['GETTING on\n']), 'demo-x: GETTING on\n');
  // Still undecided at the end: the start of a method, but no request.
  assert.equal(await exchange(port, ['GE']), 'demo-x: GE\n');
  assert.equal(await exchange(port, []), '');
  const bytes = Buffer.from([0x00, 0xff, 0x80, 0x0a]);
  assert.equal(await exchange(port, [bytes]), 'demo-x: \u0000\u00ff\u0080\n');
  close();
});

test('a demo backend bounds the line it holds', async () => {
  const { port, close } = await start();
  const answer = await exchange(port, ['x'.repeat(100_000)]);
  assert.equal(answer.match(/x/g)?.length, 100_000 + (answer.match(/demo-x: /g)?.length ?? 0));
  assert.ok((answer.match(/demo-x: /g)?.length ?? 0) > 1);
  close();
});

test('listenOn() names a port that is in use and what to do', async () => {
  const holder = createServer();
  await listenOn(holder, '127.0.0.1', 0);
  const { port } = holder.address() as { port: number };
  await assert.rejects(listenOn(createServer(), '127.0.0.1', port), (error) => {
    assert.ok(error instanceof ProxyError);
    assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}: the port is in use`));
    assert.match(error.message, /ss -ltnp/);
    return true;
  });
  holder.close();
});
