// The text forms of keys, endpoints and allowed IPs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePrefix } from '../sys/prefix.ts';
import { allowedIpText, formatEndpoint, isKey, isPeerKind, parseEndpoint } from './peer.ts';

test('isKey() takes 32 bytes in base64 and nothing else', () => {
  const key = Buffer.alloc(32, 0xab).toString('base64');
  assert.ok(isKey(key));
  const wrong = [
    '',
    key.slice(1),
    `${key}=`,
    Buffer.alloc(31, 1).toString('base64'),
    Buffer.alloc(32).toString('base64'),
    `${key.slice(0, 42)}B=`,
    `${key.slice(0, 42)}\n=`,
  ];
  for (const text of wrong) assert.ok(!isKey(text), text);
});

test('isPeerKind() knows both kinds', () => {
  assert.deepEqual(['pop', 'backend', 'Pop', ''].map(isPeerKind), [true, true, false, false]);
});

test('parseEndpoint() reads what formatEndpoint() writes', () => {
  const known = [
    ['192.0.2.1:51820', '192.0.2.1:51820'],
    ['[2001:DB8::0:1]:1', '[2001:db8::1]:1'],
    ['POP.Example.net:65535', 'pop.example.net:65535'],
  ] as const;
  for (const [text, shown] of known) {
    const endpoint = parseEndpoint(text);
    assert.ok(typeof endpoint !== 'string', text);
    assert.equal(formatEndpoint(endpoint), shown);
  }
});

test('parseEndpoint() says what is wrong', () => {
  const wrong = [
    ['192.0.2.1', /must be host:port/],
    ['192.0.2.1:0', /port from 1/],
    ['192.0.2.1:65536', /port from 1/],
    ['2001:db8::1:51820', /must be host:port/],
    ['[192.0.2.1]:1', /IPv6 in the brackets/],
    ['192.0.2.256:1', /address or a host name/],
    ['-x.example:1', /address or a host name/],
    ['0.0.0.0:1', /unspecified/],
    ['a b:1', /address or a host name/],
  ] as const;
  for (const [text, reason] of wrong) assert.match(String(parseEndpoint(text)), reason, text);
});

test('allowedIpText() always has the length', () => {
  for (const text of ['10.0.0.1/32', '10.0.0.0/8', 'fd00::1/128', 'fd00::/64']) {
    const prefix = parsePrefix(text);
    assert.ok(typeof prefix !== 'string');
    assert.equal(allowedIpText(prefix), text);
  }
});
