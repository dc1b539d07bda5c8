// Echo messages there and back, and that no other bytes are taken for an answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ECHO_BYTES_MIN, type Echo, ipv4HeaderBytes, readEcho, writeEcho } from './path-echo.ts';

const NONCE = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const family = fc.constantFrom(4 as const, 6 as const);
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const echo = fc.record({ slot: uint32, probe: uint32 }, { noNullPrototype: true });
const length = fc.integer({ min: ECHO_BYTES_MIN, max: 1500 });

/** What a host makes of a request: another type, and a checksum that allows for it. */
function replyTo(of: 4 | 6, { slot, probe }: Echo, bytes: number): Uint8Array {
  const message = new Uint8Array(bytes);
  writeEcho(message, of, NONCE, { slot, probe }, bytes);
  assert.equal(message[0], of === 4 ? 8 : 128);
  message[0] = of === 4 ? 0 : 129;
  if (of === 6) return message;
  // RFC 1624: the sum less 0x0800.
  const sum = ((message[2] << 8) | message[3]) + 0x0800;
  const folded = (sum & 0xffff) + (sum >> 16);
  message[2] = folded >> 8;
  message[3] = folded & 0xff;
  return message;
}

test('readEcho() gives back what writeEcho() wrote, as a host answers it', () => {
  fc.assert(
    fc.property(family, echo, length, fc.boolean(), (of, sent, bytes, own) => {
      assert.deepEqual(readEcho(replyTo(of, sent, bytes), of, NONCE, own), sent);
    }),
  );
});

test('readEcho() takes no request, no other nonce, and nothing that is cut short', () => {
  fc.assert(
    fc.property(family, echo, length, fc.nat(7), (of, sent, bytes, at) => {
      const request = new Uint8Array(bytes);
      writeEcho(request, of, NONCE, sent, bytes);
      assert.equal(readEcho(request, of, NONCE, true), null);
      const reply = replyTo(of, sent, bytes);
      const other = NONCE.slice();
      other[at] ^= 1;
      assert.equal(readEcho(reply, of, other, false), null);
      for (let end = 0; end < ECHO_BYTES_MIN; end++) {
        assert.equal(readEcho(reply.subarray(0, end), of, NONCE, true), null);
      }
    }),
  );
});

test('readEcho() notices any changed bit of an IPv4 answer', () => {
  fc.assert(
    fc.property(echo, length, fc.nat(), (sent, bytes, bit) => {
      const reply = replyTo(4, sent, bytes);
      const at = (bit >> 3) % bytes;
      reply[at] ^= 1 << (bit & 7);
      assert.equal(readEcho(reply, 4, NONCE, true), null);
    }),
  );
});

test('readEcho() and ipv4HeaderBytes() take any bytes', () => {
  fc.assert(
    fc.property(family, fc.uint8Array({ maxLength: 200 }), fc.boolean(), (of, bytes, own) => {
      assert.equal(readEcho(bytes, of, NONCE, own), null);
      const header = ipv4HeaderBytes(bytes);
      assert.ok(header === -1 || (header >= 20 && header <= bytes.length && header <= 60));
    }),
    { numRuns: 2000 },
  );
});
