import assert from 'node:assert/strict';
import { isIP, SocketAddress as NodeAddress } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  AF_INET,
  AF_INET6,
  decodeSockaddr,
  encodeSockaddr,
  encodeSockaddrWords,
  formatAddress,
  formatSocketAddress,
  isMapped,
  parseAddress,
  SOCKADDR_BYTES,
  SOCKADDR_STRIDE,
  type SocketAddress,
} from './sockaddr.ts';

const word = fc.integer({ min: 0, max: 0xffff_ffff });
const port = fc.integer({ min: 0, max: 65_535 });
const ipv4 = fc
  .record({ family: fc.constant(4 as const), w: word, port })
  .map(
    ({ family, w, port: number }): SocketAddress => ({ family, words: [0, 0, 0, w], port: number }),
  );
const ipv6 = fc
  .record({ words: fc.tuple(word, word, word, word), port })
  .map(({ words, port: number }): SocketAddress => ({ family: 6, words, port: number }));
const address = fc.oneof(ipv4, ipv6);

function encoded(value: SocketAddress): { view: DataView; length: number } {
  const view = new DataView(new ArrayBuffer(64));
  return { view, length: encodeSockaddr(view, 8, value) };
}

test('encodeSockaddr() writes struct sockaddr_in and sockaddr_in6 as the kernel has them', () => {
  const four = encoded({ family: 4, words: [0, 0, 0, 0x7f00_0001], port: 8080 });
  assert.deepEqual(
    [...new Uint8Array(four.view.buffer, 8, four.length)],
    [AF_INET, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  );
  const six = encoded({ family: 6, words: [0x2001_0db8, 0, 0, 1], port: 443 });
  const expected = [AF_INET6, 0, 1, 0xbb, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8];
  assert.deepEqual([...new Uint8Array(six.view.buffer, 8, 12)], expected);
  assert.equal(six.length, SOCKADDR_BYTES);
});

test('decodeSockaddr() gives back what encodeSockaddr() wrote', () => {
  fc.assert(
    fc.property(address, (value) => {
      const { view, length } = encoded(value);
      assert.deepEqual(decodeSockaddr(view, 8, length), value);
    }),
  );
});

test('decodeSockaddr() refuses every truncation that loses a byte of port or address', () => {
  for (const value of [
    { family: 4, words: [0, 0, 0, 0x0102_0304], port: 1 } as SocketAddress,
    { family: 6, words: [1, 2, 3, 4], port: 1 } as SocketAddress,
  ]) {
    const { view, length } = encoded(value);
    const needed = value.family === 4 ? 8 : 24;
    for (let bytes = 0; bytes <= length; bytes++) {
      const decoded = decodeSockaddr(view, 8, bytes);
      assert.deepEqual(decoded, bytes < needed ? null : value, `${bytes} bytes`);
    }
  }
});

test('decodeSockaddr() never reads beyond its view, whatever the bytes and the length', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 40 }),
      fc.integer({ min: -4, max: 64 }),
      fc.integer({ min: -4, max: 64 }),
      (bytes, offset, length) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const decoded = decodeSockaddr(view, offset, length);
        if (decoded === null) return;
        assert.ok(decoded.port >= 0 && decoded.port <= 65_535);
        assert.ok(decoded.words.every((part) => part >= 0 && part <= 0xffff_ffff));
      },
    ),
  );
});

test('encodeSockaddrWords() writes the same bytes as encodeSockaddr()', () => {
  fc.assert(
    fc.property(address, (value) => {
      const { view, length } = encoded(value);
      const target = new Int32Array(SOCKADDR_STRIDE / 2).fill(-1);
      const words = Uint32Array.of(9, 9, ...value.words);
      const at = 4;
      assert.equal(encodeSockaddrWords(target, at, value.family, words, 2, value.port), length);
      assert.deepEqual(
        new Uint8Array(target.buffer, at * 4, length),
        new Uint8Array(view.buffer, 8, length),
      );
    }),
  );
});

test('parseAddress() and formatAddress() are inverse, and agree with node:net', () => {
  fc.assert(
    fc.property(address, ({ family, words }) => {
      const text = formatAddress(family, words);
      assert.equal(isIP(text), family);
      assert.deepEqual(parseAddress(text), { family, words });
      const known = new NodeAddress({ address: text, family: family === 4 ? 'ipv4' : 'ipv6' });
      assert.deepEqual(parseAddress(known.address), { family, words });
    }),
  );
});

test('formatAddress() writes IPv6 as RFC 5952 wants it', () => {
  const shown = (text: string): string => {
    const parsed = parseAddress(text);
    assert.ok(parsed, text);
    return formatAddress(parsed.family, parsed.words);
  };
  assert.equal(shown('2001:DB8:0:0:0:0:0:1'), '2001:db8::1');
  assert.equal(shown('2001:db8:0:1:1:1:1:1'), '2001:db8:0:1:1:1:1:1');
  assert.equal(shown('2001:0:0:1:0:0:0:1'), '2001:0:0:1::1');
  assert.equal(shown('2001:db8:0:0:1:0:0:1'), '2001:db8::1:0:0:1');
  assert.equal(shown('::'), '::');
  assert.equal(shown('1::'), '1::');
  assert.equal(shown('::ffff:192.0.2.1'), '::ffff:192.0.2.1');
});

test('parseAddress() refuses what is no plain address, and never throws', () => {
  for (const text of ['', '1.2.3', '1.2.3.4.5', '256.1.1.1', '::1%lo', '[::1]', 'localhost', ':']) {
    assert.equal(parseAddress(text), null, text);
  }
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'0123456789abcdef:.%[]') }), (text) => {
      const parsed = parseAddress(text);
      assert.equal(parsed === null, isIP(text) === 0 || text.includes('%'));
    }),
  );
});

test('isMapped() knows ::ffff:0:0/96 only; formatSocketAddress() puts IPv6 into brackets', () => {
  assert.equal(isMapped(0, 0, 0xffff), true);
  assert.equal(isMapped(0, 1, 0xffff), false);
  assert.equal(isMapped(0, 0, 0), false);
  const four: SocketAddress = { family: 4, words: [0, 0, 0, 0x0102_0304], port: 80 };
  assert.equal(formatSocketAddress(four), '1.2.3.4:80');
  assert.equal(formatSocketAddress({ family: 6, words: [0, 0, 0, 1], port: 80 }), '[::1]:80');
});
