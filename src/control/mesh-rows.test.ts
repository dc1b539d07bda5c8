// Rows of the table peers: what becomes a peer, and what is said of what does not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planAddresses } from '../mesh/addresses.ts';
import { generateKeyPair } from '../mesh/key.ts';
import { formatPrefix } from '../sys/prefix.ts';
import { compilePeers, PEER_COLUMNS, type PeerRow } from './mesh-rows.ts';

const [A, B] = [generateKeyPair().publicKey, generateKeyPair().publicKey] as const;

function row(values: Partial<Record<(typeof PEER_COLUMNS)[number], string | null>>): PeerRow {
  const all: Record<string, string | null> = { id: 'a', public_key: A, ...values };
  return PEER_COLUMNS.map((name) => all[name] ?? null);
}

/** `id column value` of each problem. */
function problems(...rows: PeerRow[]): string[] {
  return compilePeers(rows, null).problems.map(
    ({ id, column, value, table }) => `${table} ${id} ${column} ${value}`,
  );
}

test('compilePeers() takes a row with a key alone, with the addresses planned from it', () => {
  const { peers, problems: none } = compilePeers([row({})], null);
  assert.deepEqual(none, []);
  assert.deepEqual(peers, [
    {
      id: 'a',
      kind: 'backend',
      publicKey: A,
      endpoint: null,
      allowedIps: planAddresses(A).addresses,
      keepalive: 0,
      mtu: null,
      presharedKey: null,
    },
  ]);
});

test('compilePeers() reads every column', () => {
  const full = row({
    kind: 'POP',
    endpoint: 'Pop.example:51820',
    allowed_ips: '10.1.0.0/16, fd00::7',
    keepalive: '25',
    mtu: '1380',
    preshared_key: B,
    deleted: '0',
  });
  const [peer] = compilePeers([full], null).peers;
  assert.deepEqual(
    { ...peer, allowedIps: peer?.allowedIps.map(formatPrefix) },
    {
      id: 'a',
      kind: 'pop',
      publicKey: A,
      endpoint: 'pop.example:51820',
      allowedIps: ['10.1.0.0/16', 'fd00::7'],
      keepalive: 25,
      mtu: 1380,
      presharedKey: B,
    },
  );
});

test('compilePeers() skips a row with a wrong column and names it, never a secret', () => {
  const wrong = [
    [{ id: '' }, 'peers "" id ""'],
    [{ kind: 'pup' }, 'peers a kind "pup"'],
    [{ public_key: 'x' }, 'peers a public_key "x"'],
    [{ endpoint: '192.0.2.1' }, 'peers a endpoint "192.0.2.1"'],
    [{ allowed_ips: '10.0.0.1/8' }, 'peers a allowed_ips "10.0.0.1/8"'],
    [{ allowed_ips: '10.0.0.1,' }, 'peers a allowed_ips "10.0.0.1,"'],
    [{ allowed_ips: '0.0.0.0/0' }, 'peers a allowed_ips "0.0.0.0/0"'],
    [{ allowed_ips: '::/0' }, 'peers a allowed_ips "::/0"'],
    [{ keepalive: '-1' }, 'peers a keepalive "-1"'],
    [{ keepalive: '65536' }, 'peers a keepalive "65536"'],
    [{ mtu: '1279' }, 'peers a mtu "1279"'],
    [{ deleted: '2' }, 'peers a deleted "2"'],
    [{ preshared_key: 'secret' }, 'peers a preshared_key not shown'],
  ] as const;
  for (const [values, said] of wrong) {
    assert.deepEqual(problems(row(values)), [said]);
    assert.deepEqual(compilePeers([row(values)], null).peers, []);
  }
});

test('compilePeers() keeps the first of two that cannot both be', () => {
  const other = { id: 'b', public_key: B };
  const cases = [
    [row({}), row({ id: 'b' }), /public_key must be unique, it is that of peer "a"/],
    [row({}), row({ public_key: B }), /id must be unique/],
    [
      row({ allowed_ips: '10.0.0.0/8' }),
      row({ ...other, allowed_ips: '10.9.0.0/16, 10.0.0.0/8' }),
      /allowed_ips must be unique, 10\.0\.0\.0\/8 is that of peer "a"/,
    ],
  ] as const;
  for (const [first, second, said] of cases) {
    const { peers, problems: found } = compilePeers([first, second], null);
    assert.equal(peers.length, 1);
    assert.match(found.map(({ column, reason }) => `${column} ${reason}`).join(), said);
  }
  // A longer prefix within another one is what routing is made of; a removed row takes nothing.
  const within = row({ ...other, allowed_ips: '10.9.0.0/16' });
  assert.equal(compilePeers([row({ allowed_ips: '10.0.0.0/8' }), within], null).peers.length, 2);
  assert.equal(compilePeers([row({ deleted: '1' }), row({ id: 'b' })], null).peers.length, 1);
});

test('compilePeers() knows this end', () => {
  const own = { publicKey: A, addresses: planAddresses(A).addresses };
  assert.match(compilePeers([row({})], own).problems[0]?.reason ?? '', /that of this end/);
  const thief = row({ public_key: B, allowed_ips: formatPrefix(own.addresses[0] as never) });
  assert.match(compilePeers([thief], own).problems[0]?.reason ?? '', /that of this end/);
});
