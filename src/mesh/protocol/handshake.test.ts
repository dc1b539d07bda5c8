import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { mac } from './blake2s.ts';
import { CookieHolder, CookieJar } from './cookies.ts';
import {
  createInitiation,
  createResponse,
  type OpenedInitiation,
  openInitiation,
  openResponse,
  openTimestamp,
  type SentInitiation,
} from './handshake.ts';
import { deriveIdentity, deriveRemote, type Remote } from './identity.ts';
import { handshakeType, INITIATION, RESPONSE } from './messages.ts';
import type { DeviceWorld } from './port.ts';
import { PROTOCOL_TIMES } from './times.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));
const filled = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);
const SOURCE = Uint8Array.from({ length: 18 }, (_, at) => at);

/**
 * Made with another implementation, in Python over hashlib and the package cryptography, straight from the formulas of
 * the paper. Static keys 01.. and 02.., ephemeral 03.. and 04.., cookie 00 01 02.. in the initiation.
 */
const EXPECTED = [
  {
    initiation:
      '01000000443322115dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220a26599f' +
      'b2188bb723276fc173af67616c817fc32fd04d686d87ec152fac10eed2bda3bb3b6f1eded6977684082284d8' +
      '17fb46b393968ae3ba273ed694a07bfcde4a2c7bcc8d8c6657abb0f86517ef37ca4a8668bc9396f3397df880' +
      '47e33e65f07b106bb1b5140428bee9ff',
    response:
      '02000000efbeadde44332211ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b' +
      '677333418b72a17850590e62f3efcf3c83c63a1a62c5de6305ca9f1529c50133000000000000000000000000' +
      '00000000',
    sendKey: 'a18cc809fd05b6b5f99644cf506f89dce368c2f54a9dbeb9a384f36c274317ef',
    receiveKey: 'b1aa1b797d3a45da97552b8084ade493aa767f15af95854bc86557f6dacd851d',
    presharedKey: '0505050505050505050505050505050505050505050505050505050505050505',
  },
  {
    initiation:
      '01000000443322115dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220a26599f' +
      'b2188bb723276fc173af67616c817fc32fd04d686d87ec152fac10eed2bda3bb3b6f1eded6977684082284d8' +
      '17fb46b393968ae3ba273ed694a07bfcde4a2c7bcc8d8c6657abb0f86517ef37ca4a8668bc9396f3397df880' +
      '47e33e65f07b106bb1b5140428bee9ff',
    response:
      '02000000efbeadde44332211ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b' +
      '6f5a71a114f23aafab9262849e62b394012ee0dc9a6d596e300fadaf226d8bb9000000000000000000000000' +
      '00000000',
    sendKey: 'b30c71d520eb54edcf0ad32b6c2e5bdff747e6e2bf8a126ae52eb1c7140b4398',
    receiveKey: 'bc8d9cb5d3c1654d26eef4fab1426ff05fff238c2ddac280941197772e21c21c',
    presharedKey: '0000000000000000000000000000000000000000000000000000000000000000',
  },
];
const TIMESTAMP = bytes('400000005f5e100a07000000');

const own = deriveIdentity(filled(1));
const peer = deriveIdentity(filled(2));

function remotes(presharedKey: Uint8Array): { peerOfOwn: Remote; ownOfPeer: Remote } {
  return {
    peerOfOwn: deriveRemote(own, peer.publicKey, presharedKey),
    ownOfPeer: deriveRemote(peer, own.publicKey, presharedKey),
  };
}

const initiate = (presharedKey: Uint8Array): SentInitiation =>
  createInitiation(
    own,
    remotes(presharedKey).peerOfOwn,
    0x11223344,
    TIMESTAMP,
    filled(3),
  ) as SentInitiation;

for (const expected of EXPECTED) {
  const presharedKey = bytes(expected.presharedKey);
  test(`a handshake with the preshared key ${expected.presharedKey.slice(0, 2)}.. gives the messages and keys of another implementation`, () => {
    const { peerOfOwn, ownOfPeer } = remotes(presharedKey);
    const sent = initiate(presharedKey);
    assert.equal(hex(sent.message.subarray(0, 116)), expected.initiation.slice(0, 232));
    const opened = openInitiation(peer, bytes(expected.initiation)) as OpenedInitiation;
    assert.equal(hex(opened.publicKey), hex(own.publicKey));
    const timestamp = openTimestamp(opened, ownOfPeer, bytes(expected.initiation));
    assert.equal(hex(timestamp as Uint8Array), hex(TIMESTAMP));
    const answer = createResponse(opened, ownOfPeer, 0xdeadbeef, filled(4));
    assert.ok(answer);
    new CookieHolder(PROTOCOL_TIMES).writeMacs(0, ownOfPeer, answer.message);
    assert.equal(hex(answer.message), expected.response);
    assert.equal(hex(answer.receiveKey), expected.sendKey);
    assert.equal(hex(answer.sendKey), expected.receiveKey);
    const keys = openResponse(own, peerOfOwn, sent, bytes(expected.response));
    assert.ok(keys);
    assert.equal(hex(keys.sendKey), expected.sendKey);
    assert.equal(hex(keys.receiveKey), expected.receiveKey);
    assert.equal(keys.remoteIndex, 0xdeadbeef);
  });
}

test('mac1 and mac2 are those of another implementation', () => {
  const expected = bytes(EXPECTED[0]!.initiation);
  const jar = new CookieJar(peer, WORLD, PROTOCOL_TIMES);
  assert.ok(jar.hasMac1(expected));
  const { message } = initiate(filled(5));
  const { peerOfOwn } = remotes(filled(5));
  const holder = new CookieHolder(PROTOCOL_TIMES);
  holder.writeMacs(0, peerOfOwn, message);
  assert.equal(hex(message.subarray(0, 132)), hex(expected.subarray(0, 132)));
  assert.equal(hex(message.subarray(132)), '00'.repeat(16));
  const cookie = Uint8Array.from({ length: 16 }, (_, at) => at);
  assert.equal(hex(mac(cookie, expected.subarray(0, 132))), hex(expected.subarray(132)));
});

const WORLD: DeviceWorld = {
  random: (target) => void target.set(randomBytes(target.length)),
  unixMs: () => 0,
};

test('an initiation with a flipped bit or for somebody else is refused', () => {
  const { ownOfPeer } = remotes(filled(5));
  const { message } = initiate(filled(5));
  for (let bit = INITIATION.ephemeral * 8; bit < INITIATION.mac1 * 8; bit += 3) {
    const changed: Uint8Array = Uint8Array.from(message);
    changed[bit >> 3] ^= 1 << (bit & 7);
    // The highest bit of a public key does not count (RFC 7748 §5), but the transcript has it.
    const opened = openInitiation(peer, changed);
    if (opened !== null) assert.equal(openTimestamp(opened, ownOfPeer, changed), null);
  }
  assert.equal(openInitiation(own, message), null);
});

test('a response with a flipped bit or another preshared key is refused, and the right one still taken', () => {
  const { peerOfOwn, ownOfPeer } = remotes(filled(5));
  const sent = initiate(filled(5));
  const opened = openInitiation(peer, sent.message) as OpenedInitiation;
  openTimestamp(opened, ownOfPeer, sent.message);
  const answer = createResponse(opened, ownOfPeer, 7, filled(4));
  assert.ok(answer);
  for (let bit = RESPONSE.ephemeral * 8; bit < RESPONSE.mac1 * 8; bit += 3) {
    const changed: Uint8Array = Uint8Array.from(answer.message);
    changed[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(openResponse(own, peerOfOwn, sent, changed), null);
  }
  const zeroPoint = Uint8Array.from(answer.message).fill(0, 12, 44);
  assert.equal(openResponse(own, peerOfOwn, sent, zeroPoint), null);
  const otherKey = deriveRemote(own, peer.publicKey, filled(6));
  assert.equal(openResponse(own, otherKey, sent, answer.message), null);
  assert.ok(openResponse(own, peerOfOwn, sent, answer.message));
});

test('no handshake with a public key of small order', () => {
  const bad = deriveRemote(own, new Uint8Array(32), filled(0));
  assert.equal(bad.staticShared, null);
  assert.equal(createInitiation(own, bad, 1, TIMESTAMP, filled(3)), null);
  const { message } = initiate(filled(0));
  message.fill(0, INITIATION.ephemeral, INITIATION.static);
  assert.equal(openInitiation(peer, message), null);
});

test('mac1 refuses every flipped bit before it', () => {
  const jar = new CookieJar(peer, WORLD, PROTOCOL_TIMES);
  const { message } = initiate(filled(5));
  new CookieHolder(PROTOCOL_TIMES).writeMacs(0, remotes(filled(5)).peerOfOwn, message);
  assert.ok(jar.hasMac1(message));
  for (let bit = 0; bit < INITIATION.mac2 * 8; bit++) {
    const changed: Uint8Array = Uint8Array.from(message);
    changed[bit >> 3] ^= 1 << (bit & 7);
    if (handshakeType(changed) === INITIATION.type) assert.ok(!jar.hasMac1(changed));
  }
});

function withCookie(jar: CookieJar, holder: CookieHolder, now: number): Uint8Array {
  const { message } = initiate(filled(5));
  const { peerOfOwn } = remotes(filled(5));
  holder.writeMacs(now, peerOfOwn, message);
  assert.ok(!jar.hasMac2(now, message, SOURCE), 'no cookie yet');
  const reply = jar.reply(now, message, SOURCE);
  assert.equal(handshakeType(reply), 3);
  assert.ok(holder.takeReply(now, peerOfOwn, reply));
  assert.ok(!holder.takeReply(now, peerOfOwn, reply), 'one reply for each message');
  holder.writeMacs(now, peerOfOwn, message);
  return message;
}

test('a cookie makes mac2 right for its source alone, until the secret changes', () => {
  const jar = new CookieJar(peer, WORLD, PROTOCOL_TIMES);
  const message = withCookie(jar, new CookieHolder(PROTOCOL_TIMES), 1_000);
  assert.ok(jar.hasMac2(1_000, message, SOURCE));
  assert.ok(jar.hasMac2(120_999, message, SOURCE));
  assert.ok(!jar.hasMac2(121_000, message, SOURCE));
  const elsewhere = Uint8Array.from(SOURCE).fill(9, 17);
  const again = withCookie(jar, new CookieHolder(PROTOCOL_TIMES), 121_000);
  assert.ok(jar.hasMac2(121_000, again, SOURCE));
  assert.ok(!jar.hasMac2(121_000, again, elsewhere));
});

test('a cookie is used for 120 s', () => {
  const jar = new CookieJar(peer, WORLD, PROTOCOL_TIMES);
  const holder = new CookieHolder(PROTOCOL_TIMES);
  const message = withCookie(jar, holder, 1_000);
  holder.writeMacs(120_999, remotes(filled(5)).peerOfOwn, message);
  assert.notEqual(hex(message.subarray(132)), '00'.repeat(16));
  message.fill(0, 132);
  holder.writeMacs(121_000, remotes(filled(5)).peerOfOwn, message);
  assert.equal(hex(message.subarray(132)), '00'.repeat(16));
});

test('a cookie reply with a flipped bit, or to another message, is refused', () => {
  const jar = new CookieJar(peer, WORLD, PROTOCOL_TIMES);
  const { message } = initiate(filled(5));
  const { peerOfOwn } = remotes(filled(5));
  const holder = new CookieHolder(PROTOCOL_TIMES);
  assert.ok(!holder.takeReply(0, peerOfOwn, jar.reply(0, message, SOURCE)), 'nothing was sent');
  holder.writeMacs(0, peerOfOwn, message);
  const reply = jar.reply(0, message, SOURCE);
  for (let bit = 64; bit < reply.length * 8; bit++) {
    const changed: Uint8Array = Uint8Array.from(reply);
    changed[bit >> 3] ^= 1 << (bit & 7);
    assert.ok(!holder.takeReply(0, peerOfOwn, changed));
  }
  assert.ok(holder.takeReply(0, peerOfOwn, reply));
});
