// What others may send: random bytes, changed and repeated messages, floods. Nothing of it throws, is answered, or changes
// what the machine believes; and what the machine does under load.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshNetwork, type MeshNode } from '../../testing/mesh-network.ts';
import { mac } from './blake2s.ts';
import { deriveRemote } from './identity.ts';
import { INITIATION, RESPONSE, TRANSPORT } from './messages.ts';
import type { DeviceState } from './port.ts';

const SEC = 1000;

interface Scene {
  readonly net: MeshNetwork;
  readonly a: MeshNode;
  readonly b: MeshNode;
  readonly strange: Uint8Array;
}

/** Two that have a session, and somebody else's endpoint. */
function scene(seed = 1): Scene {
  const net = new MeshNetwork(seed);
  const [a, b] = [net.add('a'), net.add('b')];
  net.join(a, b);
  net.say(a, 'one');
  net.run(SEC);
  return { net, a, b, strange: net.endpointOf(99) };
}

const messages = (net: MeshNetwork, from: MeshNode, type: number): Uint8Array[] =>
  net.log
    .filter((each) => each.from === from.name && each.datagram[0] === type)
    .map((each) => each.datagram);

/** All that the machine believes, its next deadline too. */
function beliefs({ plane }: MeshNode): unknown {
  const state: DeviceState = plane.machine.state();
  return structuredClone({
    ...state,
    deadline: plane.machine.nextDeadline(),
    keypairs: plane.keypairs(0),
    sent: plane.sentMessages.length,
  });
}

/** Gives each datagram to the node, from elsewhere, and sees that nothing comes of it. */
function ignores({ net, strange }: Scene, node: MeshNode, datagrams: Iterable<Uint8Array>): void {
  const [before, sent, heard] = [beliefs(node), net.log.length, node.received.length];
  for (const datagram of datagrams) net.inject(node, datagram, strange);
  assert.deepEqual(beliefs(node), before);
  assert.deepEqual([net.log.length, node.received.length], [sent, heard]);
}

function* flipped(datagram: Uint8Array, endBit: number): Generator<Uint8Array> {
  for (let bit = 0; bit < endBit; bit++) {
    const changed: Uint8Array = Uint8Array.from(datagram);
    changed[bit >> 3] ^= 1 << (bit & 7);
    yield changed;
  }
}

function* cut(datagram: Uint8Array): Generator<Uint8Array> {
  for (let length = 0; length < datagram.length; length++) yield datagram.slice(0, length);
  yield Uint8Array.from([...datagram, 0]);
}

test('random bytes are passed over', () => {
  const here = scene();
  const typed = fc
    .tuple(
      fc.integer({ min: 0, max: 5 }),
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(148, 92, 64, 32, 0),
    )
    .map(([type, tail, length]) => {
      const bytes = new Uint8Array(length || tail.length + 4);
      bytes.set(tail.subarray(0, bytes.length));
      bytes.set([type, 0, 0, 0]);
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(typed, fc.uint8Array({ maxLength: 300 })), (datagram) => {
      ignores(here, here.a, [datagram]);
    }),
    { numRuns: 500 },
  );
});

test('a fresh initiation with any bit flipped, cut or prolonged is passed over, and then taken whole', () => {
  const here = scene();
  const { net, a, b } = here;
  net.weather.loss = 1;
  net.restart(b);
  net.introduce(b, a);
  net.say(b, 'two');
  const [initiation] = messages(net, b, 1);
  assert.ok(initiation);
  // mac2 is not looked at without load.
  ignores(here, a, flipped(initiation, INITIATION.mac2 * 8));
  ignores(here, a, cut(initiation));
  const before = net.log.length;
  net.inject(a, initiation, b.endpoint);
  assert.equal(net.log.length, before + 1);
});

test('a fresh response with any bit flipped, cut or prolonged is passed over, and then taken whole', () => {
  const here = scene();
  const { net, a, b } = here;
  net.run(181 * SEC);
  const before = messages(net, b, 2).length;
  net.say(a, 'two');
  net.weather.loss = 1;
  net.run(net.now + 20);
  const response = messages(net, b, 2)[before];
  assert.ok(response);
  ignores(here, a, flipped(response, RESPONSE.mac2 * 8));
  ignores(here, a, cut(response));
  assert.ok(!a.plane.hasCurrent(0));
  net.inject(a, response, b.endpoint);
  assert.ok(a.plane.hasCurrent(0));
});

test('repeated messages of all types are refused, and do not move the endpoint', () => {
  const here = scene();
  const { net, a, b } = here;
  net.run(net.now + SEC);
  const all = net.log.map(({ datagram }) => datagram);
  assert.ok(messages(net, a, 1).length === 1 && messages(net, a, 4).length > 0);
  ignores(here, a, [...all, ...all]);
  ignores(here, b, [...all, ...all]);
  net.run(200 * SEC);
  ignores(here, b, all);
});

test('a repeated initiation is refused for good, an older one too', () => {
  const here = scene();
  const { net, a, b } = here;
  net.run(200 * SEC);
  net.say(a, 'two');
  net.run(201 * SEC);
  const initiations = messages(net, a, 1);
  assert.equal(initiations.length, 2);
  ignores(here, b, initiations);
});

test('initiations of a key that is no peer, or of a peer whose clock went back, are passed over', () => {
  const here = scene();
  const { net, b } = here;
  const c = net.add('c');
  net.introduce(c, b);
  net.say(c, 'three');
  net.run(net.now + 10);
  ignores(here, b, messages(net, c, 1));
  const { a } = here;
  net.restart(a);
  net.introduce(a, b);
  a.clockOffsetMs = -3600 * SEC;
  net.weather.loss = 1;
  net.say(a, 'from the past');
  ignores(here, b, messages(net, a, 1));
});

test('initiations of a peer less than 20 ms apart are not all answered', () => {
  const { net, a, b } = scene();
  net.weather.loss = 1;
  const fresh = (): Uint8Array => {
    net.restart(b);
    net.introduce(b, a);
    b.clockOffsetMs += SEC;
    net.say(b, 'again');
    return messages(net, b, 1).at(-1) as Uint8Array;
  };
  const answered = (): number => {
    const before = messages(net, a, 2).length;
    net.inject(a, fresh(), b.endpoint);
    return messages(net, a, 2).length - before;
  };
  assert.deepEqual([answered(), answered()], [1, 0]);
  net.run(net.now + 20);
  assert.equal(answered(), 1);
});

test('the endpoint follows authenticated packets of every kind', () => {
  for (const kind of ['data', 'initiation', 'response']) {
    const { net, a, b } = scene();
    if (kind !== 'data') net.run(200 * SEC);
    if (kind === 'response') {
      net.say(b, 'who is there');
      a.endpoint = net.endpointOf(77);
      net.inject(a, messages(net, b, 1).at(-1) as Uint8Array, b.endpoint);
    } else {
      a.endpoint = net.endpointOf(77);
      net.say(a, 'I moved');
    }
    net.run(net.now + SEC);
    assert.deepEqual(b.plane.endpoint(0), a.endpoint, kind);
    assert.deepEqual(b.plane.machine.state().peers[0]?.endpoint, a.endpoint, kind);
    net.say(b, `found by ${kind}`);
    net.run(net.now + SEC);
    assert.equal(a.received.at(-1)?.text, `found by ${kind}`);
  }
});

/** An initiation with a right mac1 and nothing else. */
function junk(net: MeshNetwork, target: MeshNode): Uint8Array {
  const message = net.bytes(INITIATION.bytes);
  message.set([INITIATION.type, 0, 0, 0]);
  const { mac1Key } = deriveRemote(null, target.publicKey, new Uint8Array(32));
  message.set(mac(mac1Key, message.subarray(0, INITIATION.mac1)), INITIATION.mac1);
  return message;
}

test('under load only who shows a cookie is answered, and who gets one comes through', () => {
  const { net, a, b, strange } = scene();
  net.restart(b);
  net.introduce(b, a);
  const flood = junk(net, a);
  const pour = (): void => {
    for (let message = 0; message < 600; message++) net.inject(a, flood, strange);
  };
  pour();
  assert.ok(messages(net, a, 3).length >= 90, 'cookies for the flood');
  net.say(b, 'through the flood');
  // The flood goes on all the time.
  for (const untilMs = net.now + 8 * SEC; net.now < untilMs; ) {
    net.run(net.now + 100);
    pour();
  }
  assert.equal(a.received.at(-1)?.text, 'through the flood');
  const initiations = messages(net, b, 1);
  assert.equal(initiations.length, 2);
  const [first, second] = initiations as [Uint8Array, Uint8Array];
  assert.ok(first.subarray(INITIATION.mac2).every((byte) => byte === 0));
  assert.ok(second.subarray(INITIATION.mac2).some((byte) => byte !== 0));
});

test('the load is over a second after the flood', () => {
  const { net, a, b, strange } = scene();
  for (let message = 0; message < 600; message++) net.inject(a, junk(net, a), strange);
  net.restart(b);
  net.introduce(b, a);
  net.run(net.now + 1_100);
  const before = messages(net, a, 3).length;
  net.say(b, 'after the flood');
  net.run(net.now + SEC);
  assert.equal(messages(net, a, 3).length, before);
  assert.equal(a.received.at(-1)?.text, 'after the flood');
});

test('messages without mac1 cause no load and no answer', () => {
  const here = scene();
  const wrong = junk(here.net, here.b);
  ignores(
    here,
    here.a,
    Array.from({ length: 2000 }, () => wrong),
  );
});

test('transport packets with any bit flipped are refused', () => {
  const here = scene();
  const { net, a, b } = here;
  net.weather.loss = 1;
  net.say(a, 'never came');
  const packet = messages(net, a, TRANSPORT.type).at(-1) as Uint8Array;
  ignores(here, b, flipped(packet, packet.length * 8));
  ignores(here, b, cut(packet));
  net.inject(b, packet, a.endpoint);
  assert.equal(b.received.at(-1)?.text, 'never came');
});
