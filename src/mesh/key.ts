// Keys of WireGuard: made and derived by OpenSSL (X25519), kept in a file that nobody but its owner may open.

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync, writeSync } from 'node:fs';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { isKey } from './peer.ts';

const KEY_BYTES = 32;
/** What comes before the 32 bytes in PKCS #8 (RFC 8410). */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const OTHERS_BITS = 0o077;
const OWNER_ONLY = 0o600;

export interface KeyPair {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** Clamped as wg(8) does it, so that both programs show the same text for one key. */
function clamped(bytes: Buffer): string {
  bytes[0] = (bytes[0] as number) & 248;
  bytes[31] = ((bytes[31] as number) & 127) | 64;
  return bytes.toString('base64');
}

/** The public key of a private one. */
export function publicKeyOf(privateKey: string): string {
  const der = Buffer.concat([PRIVATE_PREFIX, Buffer.from(privateKey, 'base64')]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  return key.export({ format: 'der', type: 'spki' }).subarray(-KEY_BYTES).toString('base64');
}

export function generateKeyPair(): KeyPair {
  const { privateKey } = generateKeyPairSync('x25519');
  const der = privateKey.export({ format: 'der', type: 'pkcs8' });
  const text = clamped(Buffer.from(der.subarray(-KEY_BYTES)));
  return { privateKey: text, publicKey: publicKeyOf(text) };
}

export function generatePresharedKey(): string {
  return randomBytes(KEY_BYTES).toString('base64');
}

function keyError(code: string, action: string, path: string, reason: string): ProxyError {
  return new ProxyError(code, `Cannot ${action} key file "${path}": ${reason}`, {
    source: 'usage',
  });
}

/** Writes a private key to a new file. Throws when there is one already: it is never overwritten. */
export function writeKeyFile(path: string, privateKey: string): void {
  let fd: number;
  try {
    fd = openSync(path, 'wx', OWNER_ONLY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') {
      throw keyError('ERR_MESH_KEY', 'make', path, code ?? errorMessage(error));
    }
    const reason = 'it exists; move it away first if peers are to know this end by another key';
    throw keyError('ERR_MESH_KEY_EXISTS', 'make', path, reason);
  }
  try {
    writeSync(fd, `${privateKey}\n`);
  } finally {
    closeSync(fd);
  }
}

/** A private or preshared key from a file that group and others may not open. Throws ProxyError. */
export function readKeyFile(path: string): string {
  let text: string;
  let mode: number;
  try {
    const fd = openSync(path, 'r');
    try {
      ({ mode } = fstatSync(fd));
      text = readFileSync(fd, 'utf8').trim();
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const fix = code === 'ENOENT' ? 'no such file, make it with: edgeproxy mesh init' : code;
    throw keyError('ERR_MESH_KEY', 'read', path, fix ?? errorMessage(error));
  }
  if ((mode & OTHERS_BITS) !== 0) {
    const shown = (mode & 0o777).toString(8).padStart(4, '0');
    const reason = `its mode is ${shown}, allowed: 0600; close it with: chmod 600 ${path}`;
    throw keyError('ERR_MESH_KEY_MODE', 'use', path, reason);
  }
  if (isKey(text)) return text;
  throw keyError('ERR_MESH_KEY', 'use', path, 'it must hold one key, 44 characters of base64');
}
