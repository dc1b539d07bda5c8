// The monitor in virtual time against a made-up network: what it tells of peers, that it stays within its rate, and that a
// late event loop, late answers and foreign ones do no harm.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type EchoAnswer,
  PathMonitor,
  type PathTarget,
  type ProbeAddress,
  type Sent,
} from './path-monitor.ts';

const SETTINGS = {
  intervalMs: 1000,
  deadMs: 5000,
  degradedLoss: 0.1,
  degradedRttMs: 0,
  degradedRttFactor: 5,
};
const CLOCK_MS = 1_700_000_000_000;

type Fate = (bytes: number) => number | null | Exclude<Sent, 'sent'>;

function target(number: number): PathTarget {
  return {
    id: `peer-${number}`,
    address: { family: 4, words: [0, 0, 0, 0x0a00_0000 + number] },
    mtuBytes: 1420,
  };
}

class Net {
  now = 0;
  fate: Fate = () => 20;
  /** The other clock is set by this much. */
  stepMs = 0;
  sent = 0;
  readonly sizes: number[] = [];
  readonly events: string[] = [];
  readonly sentAt: number[] = [];
  #seed = 1;
  #wakes: { at: number; work: () => void }[] = [];
  #answers: (EchoAnswer & { at: number })[] = [];

  readonly port = {
    send: (address: ProbeAddress, slot: number, probe: number, bytes: number): Sent => {
      const rtt = this.fate(bytes);
      if (typeof rtt === 'string') return rtt;
      this.sent++;
      this.sentAt.push(this.now);
      if (bytes > 0) this.sizes.push(bytes);
      const at = this.now + (rtt ?? 0);
      if (rtt !== null) this.#answers.push({ at, slot, probe, address, arrivedMs: CLOCK_MS + at });
      return 'sent';
    },
    receive: (): EchoAnswer[] => {
      const come = this.#answers.filter(({ at }) => at <= this.now);
      this.#answers = this.#answers.filter(({ at }) => at > this.now);
      return come.map((each) => ({ ...each, arrivedMs: each.arrivedMs + this.stepMs }));
    },
    arrivalClockMs: () => CLOCK_MS + this.now,
    close() {},
  };

  readonly monitor: PathMonitor = new PathMonitor(
    {
      settings: SETTINGS,
      port: this.port,
      onState: ({ id, state }) => this.events.push(`${id} ${state}`),
      onMtu: ({ id, mtuBytes }) => this.events.push(`${id} ${mtuBytes}`),
    },
    {
      nowMs: () => this.now,
      random: () => {
        this.#seed = Math.imul(this.#seed, 48_271) % 0x7fff_ffff;
        return Math.abs(this.#seed) / 0x7fff_ffff;
      },
      wake: (delayMs, work) => {
        const mine = { at: this.now + delayMs, work };
        this.#wakes.push(mine);
        return () => {
          this.#wakes = this.#wakes.filter((each) => each !== mine);
        };
      },
    },
  );

  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const next = this.#wakes.find(({ at }) => at <= end);
      if (next === undefined) break;
      this.#wakes = this.#wakes.filter((each) => each !== next);
      this.now = Math.max(this.now, next.at);
      next.work();
    }
    this.now = end;
  }

  status() {
    return this.monitor.status('peer-1') ?? assert.fail();
  }
}

test('PathMonitor knows RTT, loss and MTU of a good path', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(60_000);
  const { state, rttMs, rttMinMs, loss, mtuBytes, mtuReduced, judgedBy } = net.status();
  assert.deepEqual([state, loss, mtuBytes, mtuReduced], ['ok', 0, 1420, false]);
  // By the clock of arrivals, not by when somebody looked.
  assert.deepEqual(
    [Math.round(rttMs ?? 0), Math.round(rttMinMs ?? 0), judgedBy],
    [20, 20, 'probes'],
  );
  assert.deepEqual([new Set(net.sizes), net.events], [new Set([1420]), []]);
});

test('PathMonitor tells of a cut, and of its end', () => {
  const net = new Net();
  net.monitor.update([target(1), target(2)]);
  net.run(20_000);
  net.fate = () => null;
  net.run(10_000);
  assert.deepEqual(net.events.slice(-2).sort(), ['peer-1 dead', 'peer-2 dead']);
  const { state, reason, troubleMs, changes } = net.status();
  assert.equal(state, 'dead');
  assert.match(reason, /^no answer for \d+ s$/);
  assert.ok(troubleMs >= 9_000 && troubleMs <= 11_200, String(troubleMs));
  assert.equal(changes.dead, 1);
  net.fate = () => 20;
  net.run(10_000);
  assert.equal(net.status().state, 'ok');
  net.monitor.close();
});

test('PathMonitor takes a path without a route for lost, and a lack of this machine for nothing', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  net.fate = () => 'not possible';
  net.run(60_000);
  assert.deepEqual(net.events, []);
  net.fate = () => 'no way';
  net.run(10_000);
  assert.equal(net.status().state, 'dead');
});

test('PathMonitor finds a black hole, and tells the MTU', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  net.fate = (bytes) => (bytes > 1350 ? null : 20);
  net.run(60_000);
  const { mtuBytes, mtuReduced, mtuChanges, state } = net.status();
  assert.ok(mtuBytes >= 1346 && mtuBytes <= 1350, String(mtuBytes));
  assert.deepEqual([mtuReduced, mtuChanges, state], [true, 2, 'ok'], 'large probes are no loss');
  assert.deepEqual(net.events, ['peer-1 1280', `peer-1 ${mtuBytes}`]);
  // Nobody may keep a route small for a peer that is gone, or is another size now.
  net.monitor.update([]);
  assert.equal(net.events.at(-1), 'peer-1 1420');
});

test('PathMonitor keeps the state of a peer that is asked at another address', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  net.fate = () => null;
  net.run(10_000);
  assert.equal(net.status().state, 'dead');
  net.monitor.update([{ ...target(1), address: { family: 4, words: [0, 0, 0, 77] } }]);
  net.run(1500);
  assert.equal(net.status().state, 'dead');
  net.fate = () => 20;
  net.run(8000);
  assert.equal(net.status().state, 'ok');
});

test('PathMonitor reads what has come before it calls anything lost', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  for (let stall = 0; stall < 20; stall++) {
    // The event loop does nothing for twenty seconds: answers wait in the socket.
    net.now += 20_000;
    net.run(1500);
  }
  assert.deepEqual(net.events, []);
  const { loss, rttMs } = net.status();
  assert.deepEqual([loss, Math.round(rttMs ?? 0)], [0, 20]);
});

test('PathMonitor does not believe a clock that was set', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  net.stepMs = -3_600_000;
  net.run(20_000);
  net.stepMs = 3_600_000;
  net.run(20_000);
  assert.ok((net.status().rttMs ?? 0) <= 120, `${net.status().rttMs} ms`);
  assert.deepEqual(net.events, []);
});

test('PathMonitor hears nobody but the one it asked', () => {
  const net = new Net();
  net.monitor.update([target(1)]);
  net.run(20_000);
  const { receive } = net.port;
  net.port.receive = () =>
    receive().map((each) => ({ ...each, address: { family: 4 as const, words: [0, 0, 0, 1] } }));
  net.run(10_000);
  assert.equal(net.status().state, 'dead');
});

test('PathMonitor spreads the probes of a thousand peers', () => {
  const net = new Net();
  net.monitor.update(Array.from({ length: 1000 }, (_, number) => target(number)));
  net.run(10_000);
  const from = net.sent;
  net.run(10_000);
  const perSecond = (net.sent - from) / 10;
  assert.ok(perSecond > 1100 && perSecond < 1300, `${perSecond} a second`);
  const byTurn = new Map<number, number>();
  for (const at of net.sentAt) byTurn.set(at, (byTurn.get(at) ?? 0) + 1);
  assert.ok(Math.max(...byTurn.values()) < 400, `${Math.max(...byTurn.values())} in one turn`);
});

test('PathMonitor keeps what it knows of peers that stay, and forgets the others', () => {
  const net = new Net();
  net.monitor.update([target(1), target(2)]);
  net.run(20_000);
  net.monitor.update([target(1)]);
  assert.equal(Math.round(net.status().rttMs ?? 0), 20);
  assert.equal(net.monitor.status('peer-2'), null);
  net.monitor.update([{ ...target(1), mtuBytes: 1300 }]);
  net.run(10_000);
  assert.equal(net.sizes.at(-1), 1300);
  net.monitor.update([{ ...target(1), address: null }]);
  const sent = net.sent;
  net.run(10_000);
  assert.equal(net.sent, sent, 'nothing to probe');
  assert.equal(net.status().judgedBy, 'handshakes');
});
