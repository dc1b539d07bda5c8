// The machine against wireguard-go, over UDP sockets in a network namespace: as initiator and as responder, with and
// without a preshared key, with keys renewed on the way, and with a flooded responder that asks for a cookie.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attempt, skipReason } from '../../testing/netns.ts';

const HELPER = fileURLToPath(new URL('../../testing/wireguard-exchange.ts', import.meta.url));

/** Why the exchange cannot be, or ''. `wireguard-go --version` starts nothing. */
function problemWith(namespace: string): string {
  for (const [program, arg] of [
    ['wireguard-go', '--version'],
    ['wg', '--version'],
  ] as const) {
    const problem = attempt(program, [arg]);
    if (problem !== '') return `Cannot run ${program}: ${problem}`;
  }
  return attempt('ip', ['netns', 'add', namespace]);
}

for (const begins of ['ours', 'theirs']) {
  for (const scene of begins === 'ours'
    ? ['none', 'psk', 'renew', 'load']
    : ['none', 'psk', 'load']) {
    test(`an exchange with wireguard-go: initiator ${begins}, ${scene}`, (t) => {
      const name = `ep${process.pid}${begins[0]}${scene[0]}`;
      const problem = problemWith(name);
      if (problem !== '') {
        t.skip(skipReason(problem));
        return;
      }
      const directory = mkdtempSync(join(tmpdir(), 'edgeproxy-exchange-'));
      try {
        const node = [process.execPath, '--disable-warning=ExperimentalWarning', HELPER];
        const args = ['netns', 'exec', name, ...node, begins, scene, directory, name];
        const result = spawnSync('ip', args, { encoding: 'utf8', timeout: 60_000 });
        assert.equal(result.stdout, 'OK\n', result.stderr);
      } finally {
        rmSync(directory, { recursive: true });
        attempt('ip', ['netns', 'del', name]);
      }
    });
  }
}
