// PROXY headers for tests, written and read apart from the code under test: straight from the specification, with plain
// strings and Buffers, and a CRC32C that goes bit by bit.

import type { Socket } from 'node:net';
import { isIPv6 } from 'node:net';
import { type ClientOptions, openClient } from './clients.ts';
import type { HostPort } from './proxy-process.ts';

export interface HeaderEnd {
  readonly host: string;
  readonly port: number;
}

const SIGNATURE = Buffer.from([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]);
const TYPE_CRC32C = 0x03;

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f6_3b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffff_ffffn);
}

/** `host` and `port` of a client, as most tests name one. */
export function end(host: string, port = 4711): HeaderEnd {
  return { host, port };
}

const SERVER_4 = end('192.0.2.80', 443);
const SERVER_6 = end('2001:db8:80::1', 443);

function serverFor(client: HeaderEnd): HeaderEnd {
  return isIPv6(client.host) ? SERVER_6 : SERVER_4;
}

export function headerV1(client: HeaderEnd, server = serverFor(client)): Buffer {
  const family = isIPv6(client.host) ? 'TCP6' : 'TCP4';
  const line = `PROXY ${family} ${client.host} ${server.host} ${client.port} ${server.port}\r\n`;
  return Buffer.from(line, 'latin1');
}

function addressBytes(host: string): Buffer {
  if (!isIPv6(host)) return Buffer.from(host.split('.').map(Number));
  const [head = '', tail] = host.split('::');
  const groups = (text = ''): number[] =>
    text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
  const [left, right] = [groups(head), groups(tail)];
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 255]));
}

function u16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 255);
}

function tlv(type: number, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(type), u16(value.length), value]);
}

/** A version 2 header of any command, family and content. */
export function headerV2Raw(command: number, family: number, body: Uint8Array): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.of(command, family), u16(body.length), body]);
}

export const LOCAL_V2 = headerV2Raw(0x20, 0, Buffer.alloc(0));
export const UNKNOWN_V1 = Buffer.from('PROXY UNKNOWN\r\n');

/** With TLVs of these types and values, and a checksum at the end when `checksum`. */
export function headerV2(
  client: HeaderEnd,
  tlvs: readonly (readonly [type: number, value: string])[] = [],
  checksum = false,
  server = serverFor(client),
): Buffer {
  const body = Buffer.concat([
    addressBytes(client.host),
    addressBytes(server.host),
    u16(client.port),
    u16(server.port),
    ...tlvs.map(([type, value]) => tlv(type, Buffer.from(value))),
    ...(checksum ? [tlv(TYPE_CRC32C, Buffer.alloc(4))] : []),
  ]);
  const header = headerV2Raw(0x21, isIPv6(client.host) ? 0x21 : 0x11, body);
  if (checksum) header.writeUInt32BE(crc32c(header), header.length - 4);
  return header;
}

export interface ReadHeader {
  readonly version: number;
  /** `PROXY`, `LOCAL` or `UNKNOWN`. */
  readonly command: string;
  readonly client: string;
  readonly server: string;
  readonly tlvs: ReadonlyMap<number, string>;
  /** null: there is none. */
  readonly checksumRight: boolean | null;
  readonly bytes: number;
}

const NOBODY = { client: '', server: '', tlvs: new Map(), checksumRight: null };

function hostText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(at * 2).toString(16));
  // A URL's host is the shortest form.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

function readV1(bytes: Buffer): ReadHeader | null {
  const match = /^PROXY (UNKNOWN|TCP4|TCP6)(?: (\S+) (\S+) (\d+) (\d+))?\r\n/.exec(
    bytes.toString('latin1', 0, 107),
  );
  if (match === null) return null;
  const [line, kind, from, to, fromPort, toPort] = match;
  const found = { version: 1, bytes: line.length };
  if (kind === 'UNKNOWN') return { ...NOBODY, ...found, command: 'UNKNOWN' };
  const [client, server] = [`${from} ${fromPort}`, `${to} ${toPort}`];
  return { ...NOBODY, ...found, command: 'PROXY', client, server };
}

function readV2(bytes: Buffer): ReadHeader | null {
  if (bytes.length < 16) return null;
  const total = 16 + bytes.readUInt16BE(14);
  if (bytes.length < total) return null;
  const found = { version: 2, bytes: total };
  if (bytes[12] === 0x20) return { ...NOBODY, ...found, command: 'LOCAL' };
  if (bytes[12] !== 0x21) throw new Error(`A command of ${bytes[12]}`);
  const size = bytes[13] === 0x11 ? 4 : bytes[13] === 0x21 ? 16 : 0;
  if (size === 0) throw new Error(`A family of ${bytes[13]}`);
  const ports = 16 + size * 2;
  const client = `${hostText(bytes.subarray(16, 16 + size))} ${bytes.readUInt16BE(ports)}`;
  const server = `${hostText(bytes.subarray(16 + size, ports))} ${bytes.readUInt16BE(ports + 2)}`;
  const tlvs = new Map<number, string>();
  let checksumRight: boolean | null = null;
  for (let at = ports + 4; at < total; ) {
    const length = bytes.readUInt16BE(at + 1);
    const value = bytes.subarray(at + 3, at + 3 + length);
    if (at + 3 + length > total) throw new Error('A TLV that does not fit');
    tlvs.set(bytes[at] as number, value.toString('latin1'));
    if (bytes[at] === TYPE_CRC32C) {
      const copy = Buffer.from(bytes.subarray(0, total)).fill(0, at + 3, at + 7);
      checksumRight = crc32c(copy) === value.readUInt32BE(0);
    }
    at += 3 + length;
  }
  return { ...found, command: 'PROXY', client, server, tlvs, checksumRight };
}

/** The header that `bytes` begin with; null when more are needed. Throws when there can be none. */
export function readHeader(bytes: Buffer): ReadHeader | null {
  const head = bytes.subarray(0, 12);
  if (SIGNATURE.subarray(0, head.length).equals(head)) return readV2(bytes);
  if ('PROXY '.startsWith(bytes.toString('latin1', 0, 6))) return readV1(bytes);
  throw new Error(`No PROXY header: ${bytes.toString('latin1', 0, 40)}`);
}

/** Opens a connection and sends a header first. */
export async function openProxied(
  at: HostPort,
  header: Uint8Array,
  options: ClientOptions = {},
): Promise<Socket> {
  const socket = await openClient(at, options);
  socket.write(header);
  return socket;
}
