// Runs inside a network namespace: a WireGuard machine of ours on a UDP socket of loopback against a wireguard-go there.
// Inner packets are UDP between 10.77.0.1, the interface of wireguard-go, and 10.77.0.2, which is us. The first argument
// says who begins: `ours` or `theirs`. The second is what is tried: `none` and `psk` (a preshared key), `renew` (keys that
// we make anew every 300 ms), `load` (the responder is flooded and asks for a cookie). Says OK, or fails.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes, randomFillSync } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { mac } from '../mesh/protocol/blake2s.ts';
import { deriveRemote } from '../mesh/protocol/identity.ts';
import { INITIATION, TRANSPORT } from '../mesh/protocol/messages.ts';
import { PROTOCOL_TIMES, type ProtocolTimes } from '../mesh/protocol/times.ts';
import { importPrivateKey } from '../mesh/protocol/x25519.ts';
import { MeshDataPlane } from './mesh-data-plane.ts';
import { attempt } from './netns.ts';
import { until } from './wait.ts';
import { accepts } from './wireguard-net.ts';

const [begins = 'ours', scene = '', directory = '', name = ''] = process.argv.slice(2);
const PACKETS = 20;
const PORT = 7777;
const FLOOD_PAUSE_MS = 20;
/** More than the machine takes at once without asking for cookies, and than wireguard-go has in its queue. */
const FLOOD_MESSAGES = 700;
const TIMES: ProtocolTimes = {
  ...PROTOCOL_TIMES,
  ...(scene === 'renew' && { rekeyAfterMs: 300, rekeyTimeoutMs: 100, rekeyJitterMs: 10 }),
  ...(scene === 'load' && { rekeyTimeoutMs: 300 }),
};

function run(program: string, line: string): void {
  const problem = attempt(program, line.split(' '));
  if (problem !== '') throw new Error(`Cannot "${program} ${line}": ${problem}`);
}

async function bound(address: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(port, address);
  await once(socket, 'listening');
  return socket;
}

/** 18 bytes of an IPv4 address and port. */
function endpointOf(address: string, port: number): Uint8Array {
  const bytes = new Uint8Array(18).fill(255, 10, 12);
  bytes.set(address.split('.').map(Number), 12);
  bytes.set([port >> 8, port & 255], 16);
  return bytes;
}

/** UDP in IPv4 from us to them, padded to 16 bytes; UDP needs no checksum there. */
function innerPacket(text: string): Uint8Array {
  const length = 28 + text.length;
  const packet = Buffer.alloc(Math.ceil(length / 16) * 16);
  packet.set([0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1]);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += packet.readUInt16BE(at);
  packet.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10);
  packet.writeUInt16BE(PORT, 20);
  packet.writeUInt16BE(PORT, 22);
  packet.writeUInt16BE(8 + text.length, 24);
  packet.write(text, 28);
  return packet;
}

function innerText(packet: Uint8Array): string {
  const bytes = Buffer.from(packet);
  return bytes[9] === 17 ? bytes.toString('latin1', 28, bytes.readUInt16BE(2)) : '';
}

interface Ours {
  readonly plane: MeshDataPlane;
  readonly received: string[];
  /** Types of the handshake and cookie messages that came. */
  readonly cameTypes: number[];
  readonly port: number;
}

async function openOurs(privateKey: Uint8Array): Promise<Ours> {
  const socket = await bound('127.0.0.1', 0);
  const received: string[] = [];
  const cameTypes: number[] = [];
  const plane = new MeshDataPlane({
    times: TIMES,
    now: () => performance.now(),
    world: { random: (bytes) => randomFillSync(bytes), unixMs: () => Date.now() },
    transmit: (endpoint, datagram) => {
      const port = ((endpoint[16] as number) << 8) | (endpoint[17] as number);
      socket.send(datagram, port, '127.0.0.1');
    },
    deliver: (_peer, packet) => received.push(innerText(packet)),
  });
  plane.machine.configure(performance.now(), { privateKey });
  socket.on('message', (datagram, from) => {
    if (datagram[0] !== TRANSPORT.type) cameTypes.push(datagram[0] as number);
    plane.receive(datagram, endpointOf(from.address, from.port));
  });
  const timer = setInterval(() => {
    if (plane.machine.nextDeadline() <= performance.now()) plane.tick();
  }, 20);
  timer.unref();
  return { plane, received, cameTypes, port: socket.address().port };
}

interface Theirs {
  readonly publicKey: Uint8Array;
  readonly port: number;
  readonly kill: () => void;
}

async function startTheirs(): Promise<Theirs> {
  const child = spawn('wireguard-go', [name], {
    env: { ...process.env, WG_PROCESS_FOREGROUND: '1' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await until('the interface', () => accepts(`/var/run/wireguard/${name}.sock`));
  const privateKey = randomBytes(32);
  const file = `${directory}/key`;
  writeFileSync(file, privateKey.toString('base64'), { mode: 0o600 });
  const probe = await bound('127.0.0.1', 0);
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  run('wg', `set ${name} private-key ${file} listen-port ${port}`);
  run('ip', `addr add 10.77.0.1/30 dev ${name}`);
  run('ip', `link set ${name} up mtu 1420`);
  return { publicKey: importPrivateKey(privateKey).publicKey, port, kill: () => child.kill() };
}

async function introduce(ours: Ours, theirs: Theirs, ownKey: Uint8Array): Promise<void> {
  const psk = scene === 'psk' ? randomBytes(32) : new Uint8Array(32);
  writeFileSync(`${directory}/psk`, Buffer.from(psk).toString('base64'), { mode: 0o600 });
  const own = Buffer.from(importPrivateKey(ownKey).publicKey).toString('base64');
  const key = scene === 'psk' ? ` preshared-key ${directory}/psk` : '';
  // Who answers learns the endpoint from the first message: roaming.
  const where = begins === 'theirs' ? ` endpoint 127.0.0.1:${ours.port}` : '';
  run('wg', `set ${name} peer ${own}${key}${where} allowed-ips 10.77.0.2/32`);
  const endpoint = endpointOf('127.0.0.1', theirs.port);
  ours.plane.machine.configure(performance.now(), {
    peers: [
      {
        publicKey: theirs.publicKey,
        presharedKey: psk,
        ...(begins === 'ours' && { endpoint }),
      },
    ],
  });
}

/** Initiations whose mac1 alone is right, over and over: to us by hand, to them on the wire. */
async function flood(ours: Ours, theirs: Theirs, ownKey: Uint8Array): Promise<() => void> {
  const target = begins === 'ours' ? theirs.publicKey : importPrivateKey(ownKey).publicKey;
  const remote = deriveRemote(null, target, new Uint8Array(32));
  const junk = randomBytes(INITIATION.bytes);
  junk.set([INITIATION.type, 0, 0, 0]);
  junk.set(mac(remote.mac1Key, junk.subarray(0, INITIATION.mac1)), INITIATION.mac1);
  const socket = await bound('127.0.0.1', 0);
  const nowhere = endpointOf('127.0.0.1', 9);
  const pour = (): void => {
    for (let message = 0; message < FLOOD_MESSAGES; message++) {
      if (begins === 'ours') socket.send(junk, theirs.port, '127.0.0.1');
      else ours.plane.machine.handleMessage(performance.now(), junk, nowhere);
    }
  };
  pour();
  const timer = setInterval(pour, FLOOD_PAUSE_MS * (begins === 'ours' ? 1 : 10));
  return () => {
    clearInterval(timer);
    socket.close();
  };
}

/** That the messages were those of the scene. */
function check({ plane, cameTypes }: Ours): void {
  const types = plane.sentMessages.map(({ type }) => type);
  const count = (list: readonly number[], type: number): number =>
    list.filter((each) => each === type).length;
  if (scene === 'renew') {
    assert.ok(count(types, 1) >= 4 && count(types, 1) === count(cameTypes, 2), `${types}`);
  } else if (scene === 'load') {
    // Who is flooded asked for a cookie at least once, and answered at last.
    const [asked, answered] = begins === 'ours' ? [cameTypes, cameTypes] : [types, types];
    assert.ok(count(asked, 3) > 0, 'no cookie');
    assert.ok(count(answered, 2) > 0, 'no response');
  } else {
    assert.deepEqual(types, [begins === 'ours' ? 1 : 2]);
  }
}

async function exchange(): Promise<void> {
  run('ip', 'link set lo up');
  const ownKey = randomBytes(32);
  const ours = await openOurs(ownKey);
  const theirs = await startTheirs();
  try {
    await introduce(ours, theirs, ownKey);
    const socket = await bound('10.77.0.1', PORT);
    const received: string[] = [];
    socket.on('message', (text) => received.push(text.toString()));
    const say = {
      ours: (text: string) => ours.plane.send(0, innerPacket(text)),
      theirs: (text: string) => socket.send(text, PORT, '10.77.0.2'),
    };
    const heard = { ours: received, theirs: ours.received };
    const order = begins === 'ours' ? (['ours', 'theirs'] as const) : (['theirs', 'ours'] as const);
    if (scene === 'load') {
      // Until there is a session: after it the flood would only cost packets at the socket.
      const stop = await flood(ours, theirs, ownKey);
      say[order[0]]('warm');
      await until('a session', () => ours.plane.hasCurrent(0));
      stop();
    }
    const packets = scene === 'renew' ? PACKETS * 5 : PACKETS;
    for (let packet = 0; packet < packets; packet++) {
      if (scene === 'renew') await delay(10);
      for (const who of order) {
        const text = `${who} ${'x'.repeat(packet % 20)} ${packet}`;
        say[who](text);
        await until(text, () => heard[who].includes(text));
      }
    }
    check(ours);
    const all = [...received, ...ours.received].filter((text) => text !== 'warm');
    assert.equal(all.length, packets * 2);
  } finally {
    theirs.kill();
  }
}

await exchange();
process.stdout.write('OK\n');
process.exit(0);
