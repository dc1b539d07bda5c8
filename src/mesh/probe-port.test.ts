// Echo sockets against the kernel's own answers on the loopback interface, both families.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nativeRefusal } from '../sys/native.ts';
import { skipReason } from '../testing/netns.ts';
import { until } from '../testing/wait.ts';
import type { EchoAnswer, ProbeAddress, ProbePort } from './path-monitor.ts';
import { openEchoSockets, openProbePort } from './probe-port.ts';

const LOOPBACK: readonly ProbeAddress[] = [
  { family: 4, words: [0, 0, 0, 0x7f00_0001] },
  { family: 6, words: [0, 0, 0, 1] },
];

function problemHere(): string {
  if (nativeRefusal !== '') return nativeRefusal;
  const { sockets } = openEchoSockets();
  openProbePort({ sockets, problem: 0 }, 'lo')?.close();
  return sockets.length === 2 ? '' : 'no sockets for ICMP of both families';
}

const problem = problemHere();
const skip = problem === '' ? false : skipReason(problem);

function openOn(name: string): ProbePort {
  return openProbePort(openEchoSockets(), name) ?? assert.fail('no port');
}

async function answersOf(port: ProbePort, count: number): Promise<EchoAnswer[]> {
  const found: EchoAnswer[] = [];
  await until('the answers', () => {
    found.push(...port.receive());
    return found.length >= count;
  });
  return found;
}

for (const [at, target] of LOOPBACK.entries()) {
  test(`EchoPort: IPv${target.family} probes are answered, with the kernel's time of arrival`, {
    skip,
  }, async () => {
    const port = openOn('lo');
    const before = port.arrivalClockMs();
    assert.equal(port.send(target, 7, 4_000_000_000, 0), 'sent');
    assert.equal(port.send(target, 8, 5, 1400), 'sent');
    // Late readers see the same times.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const answers = await answersOf(port, 2);
    assert.deepEqual(
      answers.map(({ slot, probe, address }) => [slot, probe, address]),
      [
        [7, 4_000_000_000, LOOPBACK[at]],
        [8, 5, LOOPBACK[at]],
      ],
    );
    for (const { arrivedMs } of answers) {
      const waited = arrivedMs - before;
      assert.ok(waited >= 0 && waited < port.arrivalClockMs() - before - 25, `${waited} ms`);
    }
    port.close();
  });
}

test('EchoPort hears no answers to others', { skip }, async () => {
  const [one, two] = [openOn('lo'), openOn('lo')];
  for (const target of LOOPBACK) assert.equal(one.send(target, 1, 1, 0), 'sent');
  assert.equal((await answersOf(one, 2)).length, 2);
  assert.deepEqual([...two.receive()], []);
  one.close();
  two.close();
});

test('EchoPort has no way through an interface that is not there, nor for what it does not take', {
  skip,
}, () => {
  const port = openOn('nobody0');
  for (const target of LOOPBACK) assert.equal(port.send(target, 1, 1, 0), 'no way');
  port.close();
  const lo = openOn('lo');
  assert.equal(lo.send(LOOPBACK[0] as ProbeAddress, 1, 1, 65_537 + 20), 'no way');
  lo.close();
});
