// The dashboard's files as the admin server gives them out: which, to whom, and with which headers. What they do in a
// browser is dashboard.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askAdmin } from '../src/testing/admin-client.ts';
import { startProxy } from '../src/testing/proxy-process.ts';

const TOKEN = 'correct-horse-battery-staple';

test('dashboard: its files come from a fixed list, compressed, kept, and without a token', async () => {
  await using proxy = await startProxy({
    backends: [{ id: 'a', port: 1 }],
    settings: { ADMIN_TOKEN: TOKEN },
  });
  const page = await askAdmin(proxy, '/');
  assert.equal(page.status, 200);
  assert.equal(page.headers['content-type'], 'text/html; charset=utf-8');
  assert.equal(page.headers['x-content-type-options'], 'nosniff');
  assert.match(String(page.headers['content-security-policy']), /^default-src 'self';/);
  assert.match(String(page.headers['content-security-policy']), /frame-ancestors 'none'/);
  assert.doesNotMatch(page.text, /<script>|<style|\son\w+=|style=|DIGEST/);
  const paths = [...page.text.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(
    ([, path]) => path,
  );
  assert.ok(paths.length > 8);
  for (const path of paths as string[]) {
    const headers = { 'accept-encoding': 'gzip, br' };
    const zipped = await askAdmin(proxy, path, { method: 'HEAD', headers });
    assert.equal(zipped.status, 200, path);
    assert.equal(zipped.headers['content-encoding'], 'gzip');
    assert.match(String(zipped.headers['cache-control']), /immutable/);
    assert.match(String(zipped.headers['content-type']), /javascript|css|json|svg/);
  }
  const etag = { 'if-none-match': String(page.headers.etag) };
  assert.equal((await askAdmin(proxy, '/', { headers: etag })).status, 304);
  const plain = await askAdmin(proxy, paths[0] as string);
  assert.equal(plain.headers['content-encoding'], undefined);
  const folder = (paths[0] as string).replace(/[^/]+$/, '');
  for (const path of [
    '/assets/',
    '/assets/main.js',
    `${folder}index.html`,
    `${folder}tsconfig.json`,
    `${folder}../dashboard.ts`,
    `${folder}%2e%2e/admin.ts`,
    `/assets/0000000000000000/main.js`,
  ]) {
    assert.equal((await askAdmin(proxy, path)).status, 404, path);
  }
  assert.equal((await askAdmin(proxy, '/', { method: 'POST' })).status, 405);
  assert.equal((await askAdmin(proxy, '/', { method: 'HEAD' })).text, '');
});
