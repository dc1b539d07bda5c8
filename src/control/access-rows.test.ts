// The access list against every row looked at one by one, what each rule of precedence says, and rows that cannot be read.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import fc from 'fast-check';
import {
  type AccessList,
  decideAccess,
  decidingRow,
  isDenied,
  openAccessList,
  restDecision,
} from '../route/access-list.ts';
import { countryCode, countryIndex } from '../route/regions.ts';
import { formatPrefix, type Prefix, parsePrefix } from '../sys/prefix.ts';
import { allowedByRows, bitsOf, isIPv4 } from '../testing/access-reference.ts';
import { type AccessRow, compileAccess, matchText } from './access-rows.ts';

const APPS = new Map([
  ['web', 1],
  ['mail', 2],
]);

interface Client {
  readonly app: number;
  readonly words: readonly number[];
  readonly country: number;
}

const row = (action: string, match: string, app = '*'): AccessRow => [app, action, match, null];

function compile(...rows: readonly AccessRow[]): AccessList | null {
  const { buffer, problems } = compileAccess(rows, APPS);
  assert.deepEqual(problems, []);
  return openAccessList(buffer);
}

function clientAt(address: string, code = '', app = 0): Client {
  const prefix = parsePrefix(address) as Prefix;
  return { app, words: prefix.words, country: countryIndex(code) };
}

function decide(list: AccessList | null, { app, words, country }: Client): number {
  if (list === null) return 0;
  const [w0, w1, w2, w3] = words.map((word) => word | 0) as [number, number, number, number];
  return decideAccess(list, app, w0, w1, w2, w3, country);
}

const allows = (list: AccessList | null, client: Client): boolean =>
  !isDenied(decide(list, client));

const wordsOf = (bits: bigint): number[] =>
  [96n, 64n, 32n, 0n].map((shift) => Number((bits >> shift) & 0xffff_ffffn));

/** Addresses that agree in long stretches, so that prefixes nest, touch and crowd. */
const byte = fc.oneof(fc.constantFrom(0, 0, 0, 1, 255, 255, 128), fc.nat(255));
const word = fc
  .tuple(byte, byte, byte, byte)
  .map(([a, b, c, d]) => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0);
const address = fc.oneof(
  word.map((w3) => [0, 0, 0xffff, w3]),
  fc.tuple(word, word, word, word),
);
const match = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.tuple(address, fc.nat(32)).map(([words, cut]) => {
      const length = isIPv4(words) ? 128 - cut : 128 - cut * 4;
      const shift = BigInt(128 - length);
      return formatPrefix({ words: wordsOf((bitsOf(words) >> shift) << shift), length });
    }),
  },
  { weight: 1, arbitrary: fc.constantFrom('BR', 'US', '*') },
);
const rowsArbitrary = fc.array(
  fc
    .tuple(fc.constantFrom('*', '*', 'web', 'mail'), fc.constantFrom('allow', 'deny'), match)
    .map(([app, action, text]) => row(action, text, app)),
  { maxLength: 40 },
);

/** The first and last address of each prefix, and those just outside. */
function edges(rows: readonly AccessRow[]): Client[] {
  return rows.flatMap(([, , text], index) => {
    const prefix = parsePrefix(text as string);
    if (typeof prefix === 'string') return [];
    const first = bitsOf(prefix.words);
    const last = first | ((1n << BigInt(128 - prefix.length)) - 1n);
    return [first - 1n, first, last, last + 1n]
      .filter((bits) => bits >= 0n && bits < 1n << 128n)
      .map((bits) => ({ app: index % 3, words: wordsOf(bits), country: 0 }));
  });
}

function check(rows: readonly AccessRow[], clients: readonly Client[]): void {
  const list = compile(...rows);
  const texts = rows.map(([app, action, text]) => ({
    app: app as string,
    action: action as string,
    match: text as string,
  }));
  for (const client of clients) {
    const name = `${formatPrefix({ words: client.words, length: 128 })} ${JSON.stringify(client)}`;
    const decision = decide(list, client);
    const app = [...APPS].find(([, index]) => index === client.app)?.[0] ?? '*';
    const allowed = allowedByRows(texts, { ...client, app, country: countryCode(client.country) });
    assert.equal(!isDenied(decision), allowed, name);
    const decider = rows[decidingRow(decision)];
    if (decider !== undefined) assert.equal(decider[1], allowed ? 'allow' : 'deny', name);
  }
}

test('decideAccess() decides as the rows read one by one, at every edge and for every app', () => {
  const clients = fc.array(
    fc
      .tuple(address, fc.constantFrom('', 'BR', 'US', 'DE'), fc.nat(3))
      .map(([words, code, app]) => ({ words, country: countryIndex(code), app })),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(rowsArbitrary, clients, (rows, others) => {
      check(rows, [...edges(rows), ...others]);
    }),
    { numRuns: 1500 },
  );
});

test('decideAccess() finds its way where prefixes crowd', () => {
  const rows: AccessRow[] = [row('allow', '*')];
  for (let index = 0; index < 100; index++) {
    const action = index % 3 === 0 ? 'allow' : 'deny';
    rows.push(row(action, `10.0.${index >> 6}.${(index & 63) * 4}/${30 + (index % 3)}`));
    rows.push(row(action, `2001:db8::${(index * 4).toString(16)}/${126 + (index % 3)}`));
    rows.push(row(action, `2001:db8:${index.toString(16)}::/48`));
  }
  rows.push(row('deny', '10.0.0.0/16'), row('deny', '2001:db8::/32'));
  check(rows, edges(rows));
});

test('decideAccess() lets a prefix go before a country, both before everyone, and names the row', () => {
  const list = compile(
    row('deny', 'BR'),
    row('Allow ', ' 192.0.2.0/24'),
    row('DENY', '192.0.2.7'),
    row('allow', '*'),
  );
  const decider = (address: string, code = ''): number =>
    decidingRow(decide(list, clientAt(address, code)));
  assert.equal(decider('192.0.2.1', 'BR'), 1);
  assert.equal(decider('192.0.2.7', 'US'), 2);
  assert.equal(decider('198.51.100.1', 'BR'), 0);
  assert.equal(decider('198.51.100.1', 'US'), 3);
  assert.equal(decider('2001:db8::1'), 3);
  assert.equal(allows(list, clientAt('198.51.100.1', 'BR')), false);
  assert.equal(allows(list, clientAt('192.0.2.1', 'BR')), true);
});

test('decideAccess() takes rows for an app and for all as one list, in which the own goes first', () => {
  const list = compile(
    row('deny', '203.0.113.0/24'),
    row('deny', 'BR'),
    row('allow', '10.0.0.0/8', 'web'),
    row('allow', '203.0.113.0/24', 'web'),
    row('deny', '203.0.113.9', 'web'),
    row('allow', '*', 'mail'),
  );
  const seen = (client: string, code = ''): boolean[] =>
    [0, 1, 2, 3].map((app) => allows(list, clientAt(client, code, app)));
  // By app: all, web, mail, one without rows.
  assert.deepEqual(seen('203.0.113.1'), [false, true, false, false]);
  assert.deepEqual(seen('203.0.113.9'), [false, false, false, false]);
  assert.deepEqual(seen('10.1.1.1'), [true, true, true, true]);
  assert.deepEqual(seen('192.0.2.1'), [true, false, true, true], 'web has rows that allow');
  assert.deepEqual(seen('192.0.2.1', 'BR'), [false, false, false, false]);
  const open = compile(row('allow', '*'), row('allow', '10.0.0.0/8', 'web'));
  assert.equal(allows(open, clientAt('192.0.2.1', '', 0)), true);
  assert.equal(
    allows(open, clientAt('192.0.2.1', '', 1)),
    false,
    'which a row for all does not open',
  );
});

test('compileAccess() denies the rest as soon as a row allows, unless told otherwise', () => {
  const rest = (...rows: [string, string][]): boolean => {
    const table = rows.map(([action, text]) => row(action, text));
    const list = openAccessList(compileAccess(table, APPS).buffer);
    const allowed = allows(list, clientAt('203.0.113.1'));
    assert.equal(!isDenied(restDecision(list, 0)), allowed);
    assert.equal(!isDenied(restDecision(list, 1)), allowed);
    return allowed;
  };
  assert.equal(rest(), true);
  assert.equal(rest(['deny', '10.0.0.0/8']), true);
  assert.equal(rest(['allow', '10.0.0.0/8']), false);
  assert.equal(rest(['allow', 'BR'], ['deny', '10.0.0.0/8']), false);
  assert.equal(rest(['allow', '10.0.0.0/8'], ['allow', '*']), true);
  assert.equal(rest(['deny', '*']), false);
  assert.equal(rest(['allow', '*'], ['deny', '*']), false);
  // A slip in the only row that allows must not let everybody in.
  assert.equal(rest(['allow', '10.0.0.0/99']), false);
  assert.equal(rest(['deny', '10.0.0.0/99']), true);
});

test('decideAccess() keeps IPv4 and IPv6 apart, but for IPv4-mapped prefixes', () => {
  const list = compile(
    row('deny', '::/0'),
    row('deny', '::ffff:10.0.0.0/104'),
    row('deny', '::ffff:192.0.2.1'),
  );
  assert.equal(allows(list, clientAt('2001:db8::1')), false);
  assert.equal(allows(list, clientAt('10.255.0.1')), false);
  assert.equal(allows(list, clientAt('192.0.2.1')), false);
  assert.equal(allows(list, clientAt('192.0.2.2')), true);
  const v4 = compile(row('deny', '0.0.0.0/0'));
  assert.equal(allows(v4, clientAt('255.255.255.255')), false);
  assert.equal(allows(v4, clientAt('::')), true);
});

test('compileAccess() skips and reports rows it cannot read', () => {
  const bad: [AccessRow, string, RegExp][] = [
    [row('', '10.0.0.0/8'), 'action', /^must be one of allow, deny$/],
    [['*', null, '10.0.0.0/8', null], 'action', /^must be one of allow, deny$/],
    [row('permit', '10.0.0.0/8'), 'action', /^must be one of allow, deny$/],
    [row('deny', ''), 'match', /^must be an address, .*, a country code as in BR, or \* for/],
    [['*', 'deny', null, null], 'match', /^must be an address/],
    [row('deny', `${'0'.repeat(70)}::/8`), 'match', /^must be an address/],
    [row('deny', '\u01311.0.0.0'), 'match', /^must be an address/],
    [row('deny', '10.0.0.0/33'), 'match', /^must have a prefix length/],
    [row('deny', '10.0.0.1/8'), 'match', /^must not have bits beyond/],
    [row('deny', 'QQ'), 'match', /^must be an ISO 3166-1 alpha-2 country code$/],
    [row('deny', '10.0.0.0/8', 'a b'), 'app', /^must be \* or 1 to 64 characters/],
  ];
  const good = row('deny', '192.0.2.0/24');
  const table = [...bad.map(([stored]) => stored), good];
  const { problems, rows, buffer } = compileAccess(table, APPS);
  assert.equal(rows, 1);
  assert.deepEqual(
    problems.map(({ column }) => column),
    bad.map(([, column]) => column),
  );
  problems.forEach(({ reason, table: name, value }, at) => {
    assert.match(reason, (bad[at] as (typeof bad)[number])[2]);
    assert.equal(name, 'access');
    assert.ok(value.length <= 60);
  });
  assert.equal(problems[7]?.value, '"10.0.0.0/33"');
  assert.equal(problems[1]?.value, 'NULL');
  const list = openAccessList(buffer);
  assert.equal(allows(list, clientAt('192.0.2.9')), false);
  assert.equal(allows(list, clientAt('10.0.0.1')), true);
});

test('compileAccess() takes an app that is not named as all, and counts rows of apps without a listener', () => {
  for (const app of [null, '', ' * ']) {
    const list = openAccessList(compileAccess([[app, 'deny', 'BR', null]], APPS).buffer);
    assert.equal(allows(list, clientAt('192.0.2.1', 'br', 1)), false);
  }
  const { rows, buffer } = compileAccess([row('allow', '10.0.0.0/8', 'other')], APPS);
  assert.equal(rows, 1);
  assert.equal(buffer.byteLength, 0, 'which costs connections nothing');
});

test('matchText() gives one text to all that match the same', () => {
  for (const [text, written] of [
    [' br ', 'BR'],
    ['*', '*'],
    ['192.0.2.1/32', '192.0.2.1'],
    ['2001:0DB8:0::/32', '2001:db8::/32'],
    ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
    [' nonsense ', 'nonsense'],
  ] as const) {
    assert.equal(matchText(text), written);
  }
});

test('decideAccess() allocates nothing once warm', () => {
  const list = compile(
    row('deny', '10.0.0.0/8'),
    row('deny', '2001:db8::/32', 'web'),
  ) as AccessList;
  const run = (): number => {
    let allowed = 0;
    for (let turn = 0; turn < 300_000; turn++) {
      const w3 = Math.imul(turn, 0x9e37_79b1);
      if (!isDenied(decideAccess(list, 1, 0, 0, 0xffff, w3, 0))) allowed++;
      if (!isDenied(decideAccess(list, 1, 0x2001_0db8, turn, turn, turn, 0))) allowed++;
    }
    return allowed;
  };
  run();
  const before = getHeapStatistics().total_allocated_bytes;
  assert.ok(run() > 0);
  // One boxed number would be 12 bytes or more; the measurement itself takes some kilobytes.
  assert.ok((getHeapStatistics().total_allocated_bytes - before) / 600_000 < 1);
});
