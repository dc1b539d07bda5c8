import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshNetwork, type MeshNode } from '../../testing/mesh-network.ts';

const SEC = 1000;

interface Pair {
  readonly net: MeshNetwork;
  readonly a: MeshNode;
  readonly b: MeshNode;
}

/** Two machines that know each other, 20 ms apart. */
function pair(presharedKey?: Uint8Array): Pair {
  const net = new MeshNetwork(1);
  const [a, b] = [net.add('a'), net.add('b')];
  net.join(a, b, presharedKey);
  return { net, a, b };
}

const texts = (node: MeshNode): string[] => node.received.map(({ text }) => text);
const types = (node: MeshNode): number[] => node.plane.sentMessages.map(({ type }) => type);
const deadline = (node: MeshNode): number => node.plane.machine.nextDeadline();

test('a packet that waits makes one handshake and arrives, as does the answer', () => {
  const { net, a, b } = pair(new Uint8Array(32).fill(9));
  assert.deepEqual([deadline(a), deadline(b)], [Infinity, Infinity]);
  net.say(a, 'one');
  net.say(a, 'two');
  net.run(100);
  net.say(b, 'three');
  net.run(200);
  assert.deepEqual([texts(a), texts(b)], [['three'], ['one', 'two']]);
  assert.deepEqual([types(a), types(b)], [[1], [2]]);
  const [peer] = a.plane.machine.state().peers;
  assert.equal(peer?.lastHandshakeUnixMs, Date.UTC(2026, 0, 1) + 40);
});

test('different preshared keys make no session', () => {
  const { net, a, b } = pair(new Uint8Array(32).fill(9));
  net.introduce(a, b, new Uint8Array(32).fill(8));
  net.say(a, 'one');
  net.run(4 * SEC);
  assert.deepEqual(texts(b), []);
  net.introduce(b, a, new Uint8Array(32).fill(8));
  net.run(6 * SEC);
  assert.deepEqual(texts(b), ['one']);
});

test('a machine that has nothing to do has no deadline, and its keys are gone after 180 s', () => {
  const { net, a, b } = pair();
  net.say(a, 'one');
  net.run(30 * SEC);
  // The keepalive that answers the packet has been sent: only the keys still end.
  assert.deepEqual([deadline(a), deadline(b)], [180 * SEC + 40, 180 * SEC + 20]);
  net.run(181 * SEC);
  assert.deepEqual([a.plane.keypairs(0), b.plane.keypairs(0)], [0, 0]);
  assert.deepEqual([deadline(a), deadline(b)], [Infinity, Infinity]);
});

test('data without an answer is answered by one keepalive after 10 s', () => {
  const { net, a, b } = pair();
  net.say(a, 'one');
  net.run(9 * SEC);
  const before = net.log.length;
  net.run(12 * SEC);
  assert.deepEqual(
    net.log.slice(before).map(({ from, datagram }) => [from, datagram.length]),
    [['b', 32]],
  );
  net.run(60 * SEC);
  assert.equal(net.log.length, before + 1);
  assert.deepEqual(types(b), [2]);
});

/** Both say something each second; `from` to `to` in seconds. */
function talk(net: MeshNetwork, speakers: readonly MeshNode[], from: number, to: number): string[] {
  const said: string[] = [];
  for (let second = from; second < to; second++) {
    net.run(second * SEC);
    for (const node of speakers) net.say(node, `${node.name}${second}`);
    said.push(`${second}`);
  }
  net.run(to * SEC);
  return said;
}

for (const speakers of ['a', 'b', 'ab']) {
  test(`the initiator renews the keys each 120 s while ${speakers} sends, and no packet is lost`, () => {
    const { net, a, b } = pair();
    net.say(a, 'first');
    net.run(SEC);
    const nodes = [a, b].filter(({ name }) => speakers.includes(name));
    const said = talk(net, nodes, 1, 600);
    for (const node of nodes) {
      const other = node === a ? b : a;
      const expected = said.map((second) => `${node.name}${second}`);
      assert.deepEqual(
        texts(other).filter((text) => text !== 'first'),
        expected,
      );
    }
    const times = a.plane.sentMessages.filter(({ type }) => type === 1).map(({ now }) => now);
    assert.ok(times.length >= 4 && times.length <= 6, `${times}`);
    for (let at = 1; at < times.length; at++) {
      const gap = (times[at] as number) - (times[at - 1] as number);
      // An initiator that only receives sends keepalives, 10 s apart.
      assert.ok(gap >= 119 * SEC && gap <= 132 * SEC, `${gap}`);
    }
    assert.ok(!types(b).includes(1), 'the responder does not');
  });
}

test('an initiator that only receives empty packets renews the keys once they are 165 s old', () => {
  const { net, a, b } = pair();
  net.say(a, 'one');
  net.run(SEC);
  const { publicKey } = a;
  b.plane.machine.configure(SEC, { peers: [{ publicKey, persistentKeepaliveSecs: 12 }] });
  net.run(400 * SEC);
  const times = a.plane.sentMessages.filter(({ type }) => type === 1).map(({ now }) => now);
  assert.equal(times.length, 3);
  const gap = (times[1] as number) - (times[0] as number);
  assert.ok(gap >= 165 * SEC && gap < 178 * SEC, `${gap}`);
  assert.ok(!types(b).includes(1));
});

test('packets under way while the keys change are still taken', () => {
  for (const speaker of ['a', 'b']) {
    const { net, a, b } = pair();
    net.say(a, 'one');
    net.run(125 * SEC);
    const [from, to] = speaker === 'a' ? [a, b] : [b, a];
    net.weather.loss = 1;
    net.say(from, 'late');
    const late = net.log.findLast(({ datagram }) => datagram[0] === 4)?.datagram;
    assert.ok(late);
    net.weather.loss = 0;
    const before = a.plane.sentMessages.length;
    talk(net, [a, b], 130, 140);
    assert.equal(a.plane.sentMessages.length, before + 1, 'keys were renewed');
    net.inject(to, late, from.endpoint);
    assert.equal(texts(to).at(-1), 'late');
  }
});

test('a clock that is set back does not lock a living process out', () => {
  const { net, a, b } = pair();
  net.say(a, 'one');
  net.run(200 * SEC);
  a.clockOffsetMs = -3600 * SEC;
  net.say(a, 'two');
  net.run(201 * SEC);
  assert.deepEqual(texts(b), ['one', 'two']);
});

test('two initiations that cross give a session within a round trip', () => {
  for (let seed = 0; seed < 10; seed++) {
    const net = new MeshNetwork(seed);
    const [a, b] = [net.add('a'), net.add('b')];
    net.join(a, b);
    net.weather.spreadMs = 20;
    net.say(a, 'from a');
    net.say(b, 'from b');
    net.run(300);
    net.say(a, 'more');
    net.say(b, 'more');
    net.run(400);
    assert.deepEqual(
      [texts(a), texts(b)],
      [
        ['from b', 'more'],
        ['from a', 'more'],
      ],
      `${seed}`,
    );
    talk(net, [a, b], 1, 400);
    assert.equal(texts(a).length + texts(b).length, 4 + 2 * 399);
    // They go on with one initiator.
    assert.ok(
      types(a)
        .concat(types(b))
        .filter((type) => type === 1).length <=
        2 + 4,
    );
  }
});

test('initiations to a dead peer are 5 s apart, and end after 90 s', () => {
  const { net, a, b } = pair();
  net.weather.loss = 1;
  net.say(a, 'one');
  net.run(300 * SEC);
  const times = a.plane.sentMessages.map(({ now }) => now);
  assert.ok(times.length >= 17 && times.length <= 19, `${times.length}`);
  for (let at = 1; at < times.length; at++) {
    const gap = (times[at] as number) - (times[at - 1] as number);
    assert.ok(gap >= 5 * SEC && gap <= 5 * SEC + 333, `${gap}`);
  }
  assert.ok((times.at(-1) as number) <= 91 * SEC);
  assert.ok((times.at(-1) as number) > (times.length - 1) * 5 * SEC + 333, 'no jitter');
  assert.equal(a.plane.dropped(0), 1);
  assert.equal(deadline(a), Infinity);
  net.weather.loss = 0;
  net.say(a, 'two');
  net.run(301 * SEC);
  assert.deepEqual(texts(b), ['two']);
});

test('a packet that waits later lengthens the attempt', () => {
  const { net, a } = pair();
  net.weather.loss = 1;
  talk(net, [a], 0, 150);
  assert.ok((a.plane.sentMessages.at(-1)?.now as number) > 140 * SEC);
});

test('a response that was lost is made up for after 5 s', () => {
  const { net, a, b } = pair();
  net.say(a, 'one');
  net.weather.loss = 1;
  net.run(20);
  net.weather.loss = 0;
  assert.deepEqual(types(b), [2]);
  net.run(4 * SEC);
  assert.deepEqual(texts(b), []);
  net.run(6 * SEC);
  assert.deepEqual(texts(b), ['one']);
});

test('a peer that vanished and came back without memory is found again within 21 s', () => {
  for (const speakers of ['a', 'b', 'ab']) {
    const { net, a, b } = pair();
    talk(net, [a, b], 1, 10);
    net.restart(b);
    net.introduce(b, a);
    b.received.length = 0;
    a.received.length = 0;
    talk(
      net,
      [a, b].filter(({ name }) => speakers.includes(name)),
      10,
      40,
    );
    const [to, from] = speakers === 'b' ? [a, b] : [b, a];
    const last = texts(to).slice(-9);
    assert.deepEqual(
      last,
      Array.from({ length: 9 }, (_, at) => `${from.name}${31 + at}`),
    );
  }
});

test('persistent keepalive sends at once, then each interval, and keeps keys fresh', () => {
  const { net, a, b } = pair();
  const { publicKey } = b;
  a.plane.machine.configure(0, { peers: [{ publicKey, persistentKeepaliveSecs: 25 }] });
  assert.deepEqual(types(a), [1]);
  net.run(240 * SEC);
  const keepalives = net.log.filter(({ from, datagram }) => from === 'a' && datagram.length === 32);
  assert.ok(keepalives.length >= 9 && keepalives.length <= 12, `${keepalives.length}`);
  assert.deepEqual(types(a), [1, 1]);
  a.plane.machine.configure(net.now, { peers: [{ publicKey, persistentKeepaliveSecs: 0 }] });
  net.run(600 * SEC);
  assert.equal(deadline(a), Infinity);
});
