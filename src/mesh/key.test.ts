// Keys against an independent vector, and the file that holds one.

import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  generateKeyPair,
  generatePresharedKey,
  publicKeyOf,
  readKeyFile,
  writeKeyFile,
} from './key.ts';
import { isKey } from './peer.ts';

const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-key-'));
after(() => rmSync(directory, { recursive: true }));

function fromHex(hex: string): string {
  return Buffer.from(hex, 'hex').toString('base64');
}

test('publicKeyOf() agrees with RFC 7748, section 6.1', () => {
  const bob = '5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb';
  const bobPublic = 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f';
  assert.equal(publicKeyOf(fromHex(bob)), fromHex(bobPublic));
});

test('generateKeyPair() makes clamped keys, each another one', () => {
  const one = generateKeyPair();
  const bytes = Buffer.from(one.privateKey, 'base64');
  assert.equal((bytes[0] as number) & 7, 0);
  assert.equal((bytes[31] as number) & 0xc0, 0x40);
  assert.equal(one.publicKey, publicKeyOf(one.privateKey));
  assert.notEqual(one.privateKey, generateKeyPair().privateKey);
  assert.ok(isKey(generatePresharedKey()));
});

test('writeKeyFile() makes a file for its owner alone and overwrites none', () => {
  const path = join(directory, 'new.key');
  const { privateKey } = generateKeyPair();
  writeKeyFile(path, privateKey);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(readKeyFile(path), privateKey);
  assert.throws(() => writeKeyFile(path, generateKeyPair().privateKey), /it exists/);
  assert.equal(readFileSync(path, 'utf8').trim(), privateKey);
});

test('readKeyFile() refuses a file that others may open, and what is no key', () => {
  const path = join(directory, 'bad.key');
  assert.throws(() => readKeyFile(path), /no such file, make it with: edgeproxy mesh init/);
  writeFileSync(path, 'not a key\n', { mode: 0o600 });
  assert.throws(() => readKeyFile(path), /must hold one key/);
  writeFileSync(path, `${generateKeyPair().privateKey}\n`);
  for (const mode of [0o640, 0o604, 0o601]) {
    chmodSync(path, mode);
    assert.throws(() => readKeyFile(path), /allowed: 0600; close it with: chmod 600/);
  }
  chmodSync(path, 0o400);
  assert.ok(isKey(readKeyFile(path)));
});
