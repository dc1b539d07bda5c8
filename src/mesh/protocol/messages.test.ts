import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  COOKIE_REPLY,
  field,
  handshakeType,
  INITIATION,
  RESPONSE,
  readIndex,
  writeIndex,
} from './messages.ts';
import { isLater, nextTai64n } from './tai64n.ts';

test('handshakeType() knows a message by type, reserved bytes and exact length alone', () => {
  for (const { type, bytes } of [INITIATION, RESPONSE, COOKIE_REPLY]) {
    for (let length = 0; length < 200; length++) {
      const message = new Uint8Array(length);
      if (length > 0) message[0] = type;
      assert.equal(handshakeType(message), length === bytes ? type : 0);
    }
    for (const at of [1, 2, 3]) {
      const message = new Uint8Array(bytes);
      message[0] = type;
      message[at] = 1;
      assert.equal(handshakeType(message), 0);
    }
  }
  assert.equal(handshakeType(Uint8Array.of(4, 0, 0, 0)), 0);
});

test('handshakeType() passes over random bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (message) => {
      const type = handshakeType(message);
      assert.ok(type === 0 || (message[0] === type && message.length >= COOKIE_REPLY.bytes));
    }),
  );
});

test('readIndex() reads what writeIndex() wrote, unsigned', () => {
  const message = new Uint8Array(12).fill(7);
  for (const index of [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x12345678]) {
    writeIndex(message, 5, index);
    assert.equal(readIndex(message, 5), index);
    assert.equal(new DataView(message.buffer).getUint32(5, true), index);
  }
  assert.deepEqual([message[4], message[9]], [7, 7]);
});

test('field() copies', () => {
  const message = Uint8Array.of(1, 2, 3);
  const copy = field(message, 1, 2);
  message[1] = 9;
  assert.deepEqual([...copy], [2, 3]);
});

const NEVER: Uint8Array = new Uint8Array(12);

test('nextTai64n() gives the label of a known time, its nanoseconds rounded down', () => {
  const label = nextTai64n(Date.UTC(1992, 5, 2, 8, 7, 9) + 500, NEVER);

  const view = new DataView(label.buffer);
  assert.equal(
    view.getBigUint64(0),
    (1n << 62n) + BigInt(Date.UTC(1992, 5, 2, 8, 7, 9) / 1000 + 10),
  );
  assert.equal(view.getUint32(8), 500_000_000 - (500_000_000 % 2 ** 24));
});

test('nextTai64n() rises whatever the clock does', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: -1e3, max: 1e13, noNaN: true })), (clock) => {
      let last: Uint8Array = NEVER;
      for (const unixMs of clock.flatMap((ms) => [ms, ms])) {
        const label = nextTai64n(unixMs, last);
        assert.ok(isLater(label, last));
        assert.ok(!isLater(last, label));
        assert.ok(new DataView(label.buffer).getUint32(8) < 1e9);
        last = label;
      }
    }),
  );
});

test('nextTai64n() carries into the seconds', () => {
  let last = nextTai64n(999, NEVER);
  for (let count = 0; count < 200; count++) {
    const label = nextTai64n(0, last);
    assert.ok(isLater(label, last));
    last = label;
  }
  assert.equal(new DataView(last.buffer).getUint32(4), 10 + 4);
});
