// `edgeproxy mesh init`, `mesh peer …` and `mesh export` through the real executable: no privileges, no network.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { publicKeyOf } from '../../src/mesh/key.ts';

const EDGEPROXY = fileURLToPath(new URL('../../bin/edgeproxy', import.meta.url));
const KEY = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=';

function setUp() {
  const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-mesh-cli-'));
  const call = (line: string) => {
    const { status, stdout, stderr } = spawnSync(EDGEPROXY, line.split(' '), {
      cwd: directory,
      env: { PATH: process.env.PATH },
      encoding: 'utf8',
      timeout: 30_000,
    });
    return { status, stdout, stderr };
  };
  const ok = (line: string): string => {
    const { status, stdout, stderr } = call(line);
    assert.equal(status, 0, `${line}: ${stderr}`);
    return stdout;
  };
  const fails = (line: string, status: number, said: RegExp): void => {
    const result = call(line);
    assert.equal(result.status, status, `${line}: ${result.stdout}${result.stderr}`);
    assert.match(result.stderr, said);
    assert.equal(result.stdout, '');
  };
  const dispose = (): void => rmSync(directory, { recursive: true });
  return { directory, call, ok, fails, [Symbol.dispose]: dispose };
}

test('mesh init makes a key once, and says how others reach this end', () => {
  using scene = setUp();
  const said = scene.ok('mesh init --mesh-endpoint pop.example:51820');
  const path = join(scene.directory, 'mesh.key');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const key = readFileSync(path, 'utf8').trim();
  assert.ok(said.includes(`--public-key ${publicKeyOf(key)} --endpoint pop.example:51820`));
  assert.match(scene.ok('mesh init'), /is there already, it stays/);
  assert.equal(readFileSync(path, 'utf8').trim(), key);
  chmodSync(path, 0o644);
  scene.fails('mesh init', 1, /mode is 0644, allowed: 0600; close it with: chmod 600/);
});

test('mesh peer add with --generate-key prints a whole file once, export one without the secret', () => {
  using scene = setUp();
  scene.ok('mesh init');
  scene.fails('mesh peer add b --generate-key', 2, /Neither end could call the other/);
  const options = '--generate-preshared-key --mesh-endpoint pop.example:51820 --mtu 1380';
  const file = scene.ok(`mesh peer add b --generate-key ${options}`);
  const secret = /^PrivateKey = (.*)$/m.exec(file)?.[1] ?? '';
  const [peer] = JSON.parse(scene.ok('mesh peer list --json'));
  assert.equal(publicKeyOf(secret), peer.public_key);
  assert.equal(peer.preshared, true);
  assert.equal(/^Address = (.*)$/m.exec(file)?.[1], peer.allowed_ips.join(', '));
  const later = scene.ok('mesh export b --mesh-endpoint pop.example:51820');
  const place = `# PrivateKey = the private key of ${peer.public_key}`;
  assert.equal(later, file.replace(`PrivateKey = ${secret}`, place));
  assert.ok(!readFileSync(join(scene.directory, 'routing.db')).includes(secret));
});

test('mesh peer add refuses with the option, the value and what is allowed', () => {
  using scene = setUp();
  scene.ok('mesh init');
  const add = `mesh peer add a --public-key ${KEY}`;
  scene.fails('mesh peer add a', 2, /One of --public-key and --generate-key is needed/);
  scene.fails('mesh peer add a --public-key x', 2, /--public-key is "x", allowed: a WireGuard key/);
  scene.fails(`${add} --kind x`, 2, /kind is "x", must be one of pop, backend/);
  scene.fails(`${add} --endpoint 192.0.2.1`, 2, /endpoint is "192\.0\.2\.1", must be host:port/);
  scene.fails(`${add} --allowed-ips ::/0`, 2, /must not hold every address/);
  scene.fails(`${add} --preshared-key-file none`, 1, /Cannot read key file "none"/);
  assert.match(scene.ok(add), /Added peer a with 10\.213\.161\.102\/32, fd65:/);
  scene.fails(add, 1, /the id is taken/);
  scene.fails(`mesh peer add b --public-key ${KEY}`, 2, /must be unique, it is that of peer "a"/);
  scene.fails('mesh peer remove aa', 1, /Unknown peer "aa": similar ids are a/);
  scene.fails('mesh export aa --mesh-endpoint h:1', 1, /Unknown peer "aa"/);
  assert.match(scene.ok('mesh peer list'), /^a +backend +xTIB/m);
  assert.match(scene.ok('mesh peer remove a'), /Removed peer a/);
  assert.match(scene.ok('mesh peer list'), /No peers/);
});

test('mesh peer add plans other addresses where the planned ones are taken, and says so', () => {
  using scene = setUp();
  scene.ok('mesh init');
  const other = publicKeyOf('YP5fyT1cdLvCbpRWHh7QZuuDm0mTQnSPwXPXkFb2cE8=');
  scene.ok(`mesh peer add x --public-key ${other} --allowed-ips 10.213.161.102`);
  const said = scene.ok(`mesh peer add a --public-key ${KEY}`);
  const address = /EDGEPROXY_MESH_ADDRESS=(10\.213\.[\d.]+,fd65:[0-9a-f:]+) there/.exec(said)?.[1];
  const { allowed_ips: ips } = JSON.parse(scene.ok('mesh peer list --json'))[0];
  assert.equal(address, ips.join(',').replaceAll(/\/\d+/g, ''));
});
