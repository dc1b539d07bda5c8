// Who may use the admin server, and what it refuses before a path sees it: tokens and how they are set, what web pages of
// other sites can send, bodies, methods, slow and too many clients. Through the real process.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type AdminAnswer, type AdminRequest, askAdmin } from '../src/testing/admin-client.ts';
import { holdToProblem } from '../src/testing/admin-reads.ts';
import { type HostPort, ProxyProcess, startProxy } from '../src/testing/proxy-process.ts';
import { until, within } from '../src/testing/wait.ts';

const TOKEN = 'correct-horse-battery-staple';
const BACKENDS = [{ id: 'a', port: 1 }];

const EDGEPROXY = fileURLToPath(new URL('../bin/edgeproxy', import.meta.url));

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-test-'));
after(() => rmSync(directory, { recursive: true }));

function tokenFile(name: string, text: string, mode: number): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

/** Starts with these settings; the lines it says before it ends with exit code 2. */
async function refusedStart(settings: Record<string, string>): Promise<string> {
  await using proxy = new ProxyProcess({ backends: BACKENDS, settings });
  const { code } = await within('the end', proxy.exited);
  assert.equal(code, 2, proxy.stderrText);
  assert.equal(proxy.stderrText.trimEnd().split('\n').length, 1, proxy.stderrText);
  assert.ok(!proxy.stderrText.includes(TOKEN), 'the token is repeated');
  return proxy.stderrText;
}

test('admin access: off loopback the proxy does not start without a token', async () => {
  for (const address of ['0.0.0.0:0', '[::]:0', '10.1.2.3:0']) {
    const said = await refusedStart({ METRICS_LISTEN_ADDR: address, METRICS_PUBLIC: 'true' });
    assert.match(said, /^EDGEPROXY_METRICS_LISTEN_ADDR is ".*", which is not loopback/);
    assert.match(said, /set EDGEPROXY_ADMIN_TOKEN or EDGEPROXY_ADMIN_TOKEN_FILE/);
  }
  await using proxy = await startProxy({
    backends: BACKENDS,
    settings: { METRICS_LISTEN_ADDR: '0.0.0.0:0', ADMIN_TOKEN: TOKEN },
  });
  assert.equal((await askAdmin(proxy, '/api/status')).status, 401);
});

test('admin access: a token or token file that cannot be used ends the start with exit code 2', async () => {
  const good = tokenFile('good', `${TOKEN}\n`, 0o600);
  const open = tokenFile('open', TOKEN, 0o644);
  const writable = tokenFile('writable', TOKEN, 0o660);
  const short = tokenFile('short', 'short\n', 0o600);
  const cases: [Record<string, string>, RegExp][] = [
    [{ ADMIN_TOKEN: 'too-short' }, /^EDGEPROXY_ADMIN_TOKEN is not usable, allowed: 16 to 512/],
    [{ ADMIN_TOKEN: TOKEN, ADMIN_TOKEN_FILE: good }, /are both set, allowed: one of them/],
    [{ ADMIN_TOKEN_FILE: join(directory, 'none') }, /it cannot be read: ENOENT/],
    [{ ADMIN_TOKEN_FILE: directory }, /it is not a regular file/],
    [{ ADMIN_TOKEN_FILE: open }, /its mode is 0644, allowed: .*run: chmod 600/],
    [{ ADMIN_TOKEN_FILE: writable }, /its mode is 0660/],
    [{ ADMIN_TOKEN_FILE: short }, /what it holds is not usable, allowed: 16 to 512/],
  ];
  for (const [settings, said] of cases) assert.match(await refusedStart(settings), said);
});

test('admin access: with a token everything but the health pages needs it', async () => {
  const path = tokenFile('token', `${TOKEN}\n`, 0o440);
  await using proxy = await startProxy({
    backends: BACKENDS,
    settings: { ADMIN_TOKEN_FILE: path },
  });
  const ask = (where: string, authorization?: string): Promise<AdminAnswer> =>
    askAdmin(proxy, where, authorization === undefined ? {} : { headers: { authorization } });
  for (const where of ['/healthz', '/readyz']) assert.equal((await ask(where)).status, 200);
  for (const where of ['/metrics', '/api/status', '/api/events', '/api/none', '/api']) {
    const missing = await ask(where);
    holdToProblem(missing, 401, 'unauthorized');
    assert.equal(missing.headers['www-authenticate'], 'Bearer realm="edgeproxy"');
    for (const wrong of [`Bearer ${TOKEN}x`, `Bearer ${TOKEN.slice(1)}`, `Basic ${TOKEN}`, TOKEN]) {
      const refused = await ask(where, wrong);
      assert.equal(refused.status, 401, wrong);
      assert.match(String(refused.headers['www-authenticate']), /error="invalid_token"/);
    }
  }
  assert.equal((await ask('/metrics', `Bearer ${TOKEN}`)).status, 200);
  assert.equal((await ask('/api/status', `bearer ${TOKEN}`)).status, 200);
  assert.equal((await ask(`/api/status?token=${TOKEN}`)).status, 401);
  // What a page of another site sends is no danger with a token that it does not have.
  const headers = { authorization: `Bearer ${TOKEN}`, host: 'proxy.example', origin: 'http://x' };
  assert.equal((await askAdmin(proxy, '/api/status', { headers })).status, 200);
});

test('admin access: EDGEPROXY_METRICS_PUBLIC leaves the metrics open, and only them', async () => {
  await using proxy = await startProxy({
    backends: BACKENDS,
    settings: { ADMIN_TOKEN: TOKEN, METRICS_PUBLIC: 'true' },
  });
  assert.equal((await askAdmin(proxy, '/metrics')).status, 200);
  assert.equal((await askAdmin(proxy, '/api/status')).status, 401);
});

/** A command beside the running proxy: exit code and standard error. */
async function command(words: readonly string[], env: Record<string, string>) {
  const child = spawn(EDGEPROXY, words, { env: { PATH: process.env.PATH, ...env } });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  child.stdout.resume();
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.once('close', resolve);
  return { code: await within('the end of the command', promise), stderr };
}

test('admin access: backend drain asks with the token, and says when it has none', async () => {
  const path = tokenFile('drain', TOKEN, 0o600);
  await using proxy = await startProxy({ backends: BACKENDS, settings: { ADMIN_TOKEN: TOKEN } });
  const { host, port } = proxy.admin as HostPort;
  const env = {
    EDGEPROXY_DB_PATH: proxy.dbPath,
    EDGEPROXY_METRICS_LISTEN_ADDR: `${host}:${port}`,
  };
  const refused = await command(['backend', 'drain', 'a'], env);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /it wants the token of EDGEPROXY_ADMIN_TOKEN/);
  const withFile = { ...env, EDGEPROXY_ADMIN_TOKEN_FILE: path };
  assert.equal((await command(['backend', 'drain', 'a'], withFile)).code, 0);
});

test('admin access: on loopback, pages of other sites are refused and everything else is not', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const { port } = proxy.admin as HostPort;
  const patch = { method: 'PATCH', body: { weight: 3 } };
  const ask = (headers: Record<string, string>, options: AdminRequest = {}) =>
    askAdmin(proxy, options.method ? '/api/backends/a' : '/api/status', { ...options, headers });
  for (const host of [
    `localhost:${port}`,
    `127.0.0.1:${port}`,
    '[::1]:9090',
    '10.0.0.9',
    'LOCALHOST',
  ]) {
    assert.equal((await ask({ host })).status, 200, host);
    assert.equal((await ask({ host, origin: `http://${host}` }, patch)).status, 200, host);
  }
  const evil: Record<string, string>[] = [
    { host: `evil.example:${port}` },
    { host: 'localhost.evil.example' },
    { host: '127.0.0.1.evil.example' },
    { origin: 'http://evil.example' },
    { origin: 'null' },
    { origin: `https://127.0.0.1:${port}` },
    { origin: `http://127.0.0.1:${port + 1}` },
  ];
  for (const headers of evil) {
    for (const options of [{}, patch, { method: 'DELETE' }]) {
      const answer = await ask(headers, options);
      holdToProblem(answer, 403, 'forbidden');
    }
  }
  for (const site of ['cross-site', 'same-site']) {
    assert.equal((await ask({ 'sec-fetch-site': site }, patch)).status, 403);
    assert.equal((await ask({ 'sec-fetch-site': site })).status, 200, 'a link from elsewhere');
  }
  for (const site of ['same-origin', 'none']) {
    assert.equal((await ask({ 'sec-fetch-site': site }, patch)).status, 200);
  }
  // The forms of a page can send only these without asking first.
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
    const answer = await ask({ 'content-type': type }, { ...patch, body: '{"weight":4}' });
    holdToProblem(answer, 415, 'unsupported-media-type');
  }
  assert.equal(Number((await askAdmin(proxy, '/api/backends/a')).json.weight), 3);
  assert.equal(
    (await askAdmin(proxy, '/api/status')).headers['access-control-allow-origin'],
    undefined,
  );
});

test('admin access: wrong paths, methods and bodies are told apart', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const ask = (path: string, method: string, body?: unknown) =>
    askAdmin(proxy, path, { method, ...(body === undefined ? {} : { body }) });
  const cases: [path: string, method: string, body: unknown, status: number, name: string][] = [
    ['/api', 'GET', undefined, 404, 'not-found'],
    ['/api/', 'GET', undefined, 404, 'not-found'],
    ['/api/backends/', 'GET', undefined, 404, 'not-found'],
    ['/api/backends/a/b', 'GET', undefined, 404, 'not-found'],
    ['/api/backends/%ff', 'GET', undefined, 400, 'bad-request'],
    ['/api/backends/a', 'PATCH', '{"weight":', 400, 'bad-request'],
    ['/api/backends/a', 'PATCH', '', 415, 'unsupported-media-type'],
    ['/api/backends/a', 'PATCH', {}, 422, 'invalid-body'],
    ['/api/backends/a', 'PATCH', [], 422, 'invalid-body'],
    ['/api/backends/a', 'PATCH', null, 422, 'invalid-body'],
    ['/api/backends/a', 'PATCH', { weight: 'x'.repeat(70_000) }, 413, 'content-too-large'],
    ['/api/status?x=1', 'GET', undefined, 400, 'invalid-query'],
    ['/api/sessions?limit=1&limit=2', 'GET', undefined, 400, 'invalid-query'],
  ];
  for (const [path, method, body, status, name] of cases) {
    const answer =
      body === ''
        ? await askAdmin(proxy, path, { method, headers: { 'content-length': '0' } })
        : await ask(path, method, body);
    holdToProblem(answer, status, name);
  }
  const methods: [path: string, method: string, allow: string][] = [
    ['/api/status', 'POST', 'GET, HEAD'],
    ['/api/status', 'OPTIONS', 'GET, HEAD'],
    ['/api/backends', 'PUT', 'GET, HEAD, POST'],
    ['/api/backends/a', 'POST', 'GET, HEAD, PATCH, DELETE'],
  ];
  for (const [path, method, allow] of methods) {
    const answer = await ask(path, method);
    holdToProblem(answer, 405, 'method-not-allowed');
    assert.equal(answer.headers.allow, allow);
  }
  assert.equal((await ask('/metrics', 'POST')).status, 405);
  assert.equal((await ask('/nothing', 'GET')).status, 404);
});

test('admin access: HEAD has no body, live answers are not stored, the description has an ETag', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const head = await askAdmin(proxy, '/api/backends', { method: 'HEAD' });
  assert.deepEqual([head.status, head.text], [200, '']);
  assert.ok(Number(head.headers['content-length']) > 100);
  assert.equal(head.headers['cache-control'], 'no-store');
  assert.equal(head.headers['x-content-type-options'], 'nosniff');
  assert.equal((await askAdmin(proxy, '/api/events', { method: 'HEAD' })).text, '');
  const document = await askAdmin(proxy, '/api/openapi.json');
  const { etag } = document.headers;
  assert.match(String(etag), /^".+"$/);
  const again = { headers: { 'if-none-match': String(etag) } };
  const unchanged = await askAdmin(proxy, '/api/openapi.json', again);
  assert.deepEqual([unchanged.status, unchanged.text], [304, '']);
});

async function openSocket(at: HostPort): Promise<Socket> {
  const socket = connect(at);
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

test('admin access: a client that does not finish its request is sent away', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const socket = await openSocket(proxy.admin as HostPort);
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk.toString();
  });
  socket.write('GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ');
  await within(
    'the end of a slow request',
    new Promise((resolve) => socket.once('close', resolve)),
  );
  assert.match(answer, /^HTTP\/1\.1 408 /);
});

test('admin access: connections are bounded, and the bound gives way when they close', async () => {
  await using proxy = await startProxy({ backends: BACKENDS });
  const sockets = await Promise.all(
    Array.from({ length: 300 }, () => openSocket(proxy.admin as HostPort)),
  );
  await until('those above the bound to be closed', () => {
    return sockets.filter((socket) => socket.destroyed || socket.readableEnded).length >= 44;
  });
  assert.ok(sockets.some((socket) => !socket.destroyed));
  for (const socket of sockets) socket.destroy();
  await until('a request to be answered', async () => {
    const answer = await askAdmin(proxy, '/api/status').catch(() => null);
    return answer?.status === 200;
  });
});
