// Addresses planned from keys: stable, in their ranges, and never one that is taken.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatPrefix } from '../sys/prefix.ts';
import { planAddresses } from './addresses.ts';
import { generateKeyPair } from './key.ts';

const KEY = 'xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=';
/** By the rule in addresses.ts, worked out by another program. */
const PLANNED = ['10.213.161.102', 'fd65:6467:6570:0:c388:3c85:9fed:6dc'];

test('planAddresses() is the same everywhere and for ever', () => {
  const { addresses, attempt } = planAddresses(KEY);
  assert.equal(attempt, 0);
  assert.deepEqual(addresses.map(formatPrefix), PLANNED);
});

test('planAddresses() stays within 10.213.0.0/16 and fd65:6467:6570::/64', () => {
  for (let count = 0; count < 200; count++) {
    const [v4, v6] = planAddresses(generateKeyPair().publicKey).addresses.map(formatPrefix);
    assert.match(v4 as string, /^10\.213\.\d+\.\d+$/);
    assert.notEqual(v4, '10.213.0.0');
    assert.notEqual(v4, '10.213.255.255');
    assert.match(v6 as string, /^fd65:6467:6570:/);
  }
});

test('planAddresses() takes the next attempt where an address is taken', () => {
  const first = planAddresses(KEY);
  for (const taken of first.addresses) {
    const second = planAddresses(KEY, [taken]);
    assert.equal(second.attempt, 1);
    assert.notDeepEqual(second.addresses, first.addresses);
  }
  const third = planAddresses(KEY, [
    ...first.addresses,
    ...planAddresses(KEY, first.addresses).addresses,
  ]);
  assert.equal(third.attempt, 2);
});
