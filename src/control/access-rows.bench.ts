// Milliseconds to compile an access list, and nanoseconds per decision, for a short list and for 100,000 prefixes, with a hash
// of the answers: `node src/control/access-rows.bench.ts`. Clients come from everywhere: the worst case for the caches.

import { type AccessList, decideAccess, isDenied, openAccessList } from '../route/access-list.ts';
import { formatPrefix } from '../sys/prefix.ts';
import { type AccessRow, compileAccess } from './access-rows.ts';

const TURNS = 1_000_000;
const KEYS = 1 << 16;
const ROUNDS = 5;

function mix(value: number): number {
  let x = Math.imul(value ^ (value >>> 15), 0x85eb_ca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
  return x ^ (x >>> 16);
}

/** The address of a number: IPv4, or in 2000::/3. */
function addressOf(v4: boolean, key: number): [number, number, number, number] {
  return v4 ? [0, 0, 0xffff, key] : [0x2000_0000 | (key >>> 3), mix(key), 0, key];
}

function measure(name: string, v4: boolean, prefixes: number): void {
  const length = v4 ? 120 : 48;
  const rows = Array.from({ length: prefixes }, (_, index): AccessRow => {
    const [w0, w1, w2, w3] = addressOf(v4, mix(index));
    const words = v4 ? [w0, w1, w2, w3 & ~0xff] : [w0, w1 & ~0xffff, 0, 0];
    return ['*', index % 3 === 0 ? 'allow' : 'deny', formatPrefix({ words, length }), null];
  });
  const started = performance.now();
  const { buffer } = compileAccess(rows, new Map());
  const compileMs = performance.now() - started;
  const list = openAccessList(buffer) as AccessList;
  const clients = new Int32Array(KEYS * 4);
  // Every second one is in a prefix.
  for (let key = 0; key < KEYS; key++) {
    clients.set(addressOf(v4, mix(key % 2 === 0 ? key % prefixes : key + 777_777)), key * 4);
  }
  const results: number[] = [];
  let hash = 0;
  for (let round = 0; round <= ROUNDS; round++) {
    const start = process.hrtime.bigint();
    for (let turn = 0; turn < TURNS; turn++) {
      const at = (turn & (KEYS - 1)) * 4;
      const [w0, w1] = [clients[at], clients[at + 1]];
      const decision = decideAccess(list, 0, w0, w1, clients[at + 2], clients[at + 3], 0);
      hash = (Math.imul(hash, 31) + Number(isDenied(decision))) | 0;
    }
    if (round > 0) results.push(Number(process.hrtime.bigint() - start) / TURNS);
  }
  results.sort((one, two) => one - two);
  const [least, middle, most] = [0, ROUNDS >> 1, ROUNDS - 1].map((at) => results[at]?.toFixed(0));
  const size = (buffer.byteLength / 2 ** 20).toFixed(1);
  const answers = (hash >>> 0).toString(16).padStart(8, '0');
  process.stdout.write(
    `${name.padEnd(24)} compile ${compileMs.toFixed(0).padStart(4)} ms, ${size} MiB;` +
      ` decide ${middle} ns (${least}..${most})  ${answers}\n`,
  );
}

measure('IPv4, 20 x /24', true, 20);
measure('IPv6, 20 x /48', false, 20);
measure('IPv4, 100,000 x /24', true, 100_000);
measure('IPv6, 100,000 x /48', false, 100_000);
