// `npm run mutate`: shows that the simulation bites. Each mutation is a deliberate fault of one line in the data plane,
// put into a copy of the sources in a temporary directory; the simulation must fail there within its budget of runs.
// Ends with 1 when a fault was missed. The checkout itself is never changed.

import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PROXY_MUTATIONS } from './proxy-mutations.ts';

export interface Mutation {
  readonly name: string;
  readonly file: string;
  /** Must occur exactly once. */
  readonly search: string;
  readonly replace: string;
}

const SEED = 1;
const SESSIONS = 300;
const RUNS = 1000;
/** A fault may make the data plane run for ever: that is noticed too. */
const TIME_MS_MAX = 300_000;

const MUTATIONS: readonly Mutation[] = [
  {
    name: 'FIN is passed on before the queue is empty',
    file: 'src/proxy/relay.ts',
    search: 'if (sessions.sending[source ^ 1] === 0) passEnd(worker, source);',
    replace: 'if (source >= 0) passEnd(worker, source);',
  },
  {
    name: 'a peer that a send failed to is not marked dead',
    file: 'src/proxy/relay.ts',
    search: '  sessions.dead[target] = 1;\n',
    replace: '',
  },
  {
    name: 'the error that a short send swallowed is not looked for',
    file: 'src/proxy/relay.ts',
    search: 'if (!wasShort) return ENDED_FIN;',
    replace: 'return ENDED_FIN;',
  },
  {
    name: 'a short send counts as a whole one',
    file: 'src/proxy/relay.ts',
    search: 'if (offset < bufferBytes[buffer]) {',
    replace: 'if (result === 0) {',
  },
  {
    name: 'the rest of a short send starts at the buffer again',
    file: 'src/proxy/relay.ts',
    search: 'engine.send(target, sessions.generation[slot], socket, buffer, offset, left)',
    replace: 'engine.send(target, sessions.generation[slot], socket, buffer, 0, left)',
  },
  {
    name: 'the buffer of a send that was done at once is not released',
    file: 'src/proxy/relay.ts',
    search: '    engine.releaseBuffer(buffer);\n    return true;',
    replace: '    return true;',
  },
  {
    name: 'a send that was done at once counts as in flight',
    file: 'src/proxy/relay.ts',
    search: '    isFree = sendBuffer(worker, target, buffer);',
    replace: '    isFree = !sendBuffer(worker, target, buffer);',
  },
  {
    name: 'the buffer of a failed send is not released',
    file: 'src/proxy/relay.ts',
    search: '    engine.releaseBuffer(buffer);\n    targetFailed(worker, target, result);',
    replace: '    targetFailed(worker, target, result);',
  },
  {
    name: 'a buffer received while closing is not released',
    file: 'src/proxy/relay.ts',
    search: '    if (buffer >= 0) engine.releaseBuffer(buffer);\n    if (more === 0) settle',
    replace: '    if (more === 0) settle',
  },
  {
    name: 'a cancelled receive is started again while closing',
    file: 'src/proxy/relay.ts',
    search: '    if (more === 0) settleClosing(worker, slot);\n    return;',
    replace: '    if (more === 0) armReceive(worker, endpoint);\n    return;',
  },
  {
    name: 'the record of a session has the listener of another',
    file: 'src/proxy/session-records.ts',
    search: '  recorder.listener[slot] = recorder.listenerNow;\n',
    replace: '',
  },
  {
    name: 'the record of a session has the bytes of another direction',
    file: 'src/proxy/session-records.ts',
    search: 'doubles[times + TIME_BYTES_UP] = sessions.bytes[slot * 2];',
    replace: 'doubles[times + TIME_BYTES_UP] = sessions.bytes[slot * 2 + 1];',
  },
  {
    name: 'the queue is sent last in, first out',
    file: 'src/proxy/relay.ts',
    search: 'else bufferNext[tail - 1] = buffer + 1;',
    replace: 'else bufferNext[buffer] = sessions.queueHead[endpoint];',
  },
  {
    name: 'receiving goes on beyond the bound of the queue',
    file: 'src/proxy/relay.ts',
    search:
      '  if (sessions.queueCount[endpoint] >= queueMax(worker)) stopReceive(worker, endpoint);\n',
    replace: '  void queueMax;\n',
  },
  {
    name: 'a pump starts while a send is in flight',
    file: 'src/proxy/relay.ts',
    search: 'if (sessions.sending[endpoint ^ 1] !== 0) return;',
    replace: '',
  },
  {
    name: 'the starved are not fed',
    file: 'src/proxy/worker.ts',
    search: 'if (worker.starvedCount > 0) feedStarved(worker);',
    replace: '',
  },
  {
    name: 'a direction that waits for a buffer is not listed',
    file: 'src/proxy/buffer-turns.ts',
    search: 'worker.starvedCount++;',
    replace: '',
  },
  {
    name: 'a session that failed is closed by FIN',
    file: 'src/proxy/end.ts',
    search: 'sessions.resetOnClose[slot] = sidesToReset(sessions, slot, reason);',
    replace: 'sessions.resetOnClose[slot] = 0;',
  },
  {
    name: 'a time-out takes the rest of a whole stream from a slow reader',
    file: 'src/proxy/end.ts',
    search: '  if (!isOwnDecision(reason)) return RESET_CLIENT | RESET_BACKEND;\n',
    replace: '  if (reason > 0) return RESET_CLIENT | RESET_BACKEND;\n  void isOwnDecision;\n',
  },
  {
    name: 'the queue is kept at the end',
    file: 'src/proxy/end.ts',
    search: '  discardQueue(worker, slot * 2 + 1);\n',
    replace: '',
  },
  {
    name: 'the timer is not cleared at the end',
    file: 'src/proxy/end.ts',
    search: '  clearTimer(worker.timers, slot);\n',
    replace: '',
  },
  {
    name: 'the client row is not released',
    file: 'src/proxy/end.ts',
    search: '  releaseClient(worker.clients, row, ',
    replace: '  void (worker.clients, row, ',
  },
  {
    name: 'only one side is cancelled at the end',
    file: 'src/proxy/end.ts',
    search: 'for (let endpoint = slot * 2; endpoint <= slot * 2 + 1; endpoint++) {',
    replace: 'for (let endpoint = slot * 2; endpoint <= slot * 2; endpoint++) {',
  },
  {
    name: 'one session more than the maximum is admitted',
    file: 'src/proxy/accept.ts',
    search: '  if (before >= worker.options.maxConnections) {',
    replace: '  if (before > worker.options.maxConnections) {',
  },
  {
    name: 'a peer that a send failed to may stay as long as it likes',
    file: 'src/proxy/relay.ts',
    search: '  noteHalfClose(worker, target >> 1);\n  if (sessions.receiving[target]',
    replace: '  if (sessions.receiving[target]',
  },
  {
    name: 'the binding takes the incarnation of a newer snapshot',
    file: 'src/proxy/admit.ts',
    search: 'const incarnation = sessions.incarnation[slot];',
    replace: 'const incarnation = worker.selector.snapshot?.incarnation[backend] ?? 0;',
  },
  {
    name: 'the idle timeout is slept through after a half-close',
    file: 'src/proxy/deadlines.ts',
    search: '    setTimer(worker.timers, slot, idleDeadline);',
    replace: '    setTimerTicks(worker.timers, slot, ticksOf(halfClosedTimeoutMs));',
  },
  {
    name: 'the place is not given back when a connect fails',
    file: 'src/proxy/admit.ts',
    search: '  closeEndpoint(worker, endpoint, 1);\n  releaseReserved(worker, slot);',
    replace: '  closeEndpoint(worker, endpoint, 1);',
  },
  {
    name: 'a backend that failed is not excluded',
    file: 'src/proxy/admit.ts',
    search: 'next = reserveBackend(worker.selector, app, sessions.country[slot], failed, attempts)',
    replace: 'next = reserveBackend(worker.selector, app, sessions.country[slot], failed, 0)',
  },
  {
    name: 'the generation stays the same for the next attempt',
    file: 'src/proxy/admit.ts',
    search: '  worker.stats.totals[STAT_RETRIES]++;\n  bumpGeneration(sessions, slot);',
    replace: '  worker.stats.totals[STAT_RETRIES]++;',
  },
  {
    name: 'the place is kept when no slot is free',
    file: 'src/proxy/admit.ts',
    search: '    if (backend >= 0) releaseBackend(worker.backendState, backend);\n',
    replace: '',
  },
  {
    name: 'the connect deadline only looks at the clock',
    file: 'src/proxy/deadlines.ts',
    search: '  engine.cancel(endpoint, sessions.generation[slot], sessions.sockets[endpoint] - 1);',
    replace: '  void engine;',
  },
  {
    name: 'the timeout of a half-closed session is not set',
    file: 'src/proxy/deadlines.ts',
    search: 'setTimerTicks(worker.timers, slot, ticksOf(halfClosedTimeoutMs));',
    replace: 'setTimerTicks(worker.timers, slot, ticksOf(halfClosedTimeoutMs + 60_000));',
  },
  {
    name: 'the hard limit is off by one',
    file: 'src/route/backend-state.ts',
    search: '  while (seen < hardLimit) {',
    replace: '  while (seen <= hardLimit) {',
  },
  {
    name: 'a place is given on before the connection it was for has ended',
    file: 'src/proxy/end.ts',
    search: '    engine.closeNow(endpoint, socket, reset);\n',
    replace: '    engine[reset === 1 ? "reset" : "close"](endpoint, socket);\n',
  },
  {
    name: 'a binding to an index that went to another backend lives on',
    file: 'src/route/select.ts',
    search: '  if (snapshot.incarnation[backendIndex] !== incarnation) return false;\n',
    replace: '',
  },
  {
    name: 'a bound client goes through a closed gate',
    file: 'src/route/select.ts',
    search: '  if (Atomics.load(state.gate, backendIndex) !== 0) return false;\n',
    replace: '',
  },
  {
    name: 'the access list is asked without the country',
    file: 'src/proxy/admit.ts',
    search: 'decideAccess(list, app, peer.w0, peer.w1, mapped, peer.w3, country)',
    replace: 'decideAccess(list, app, peer.w0, peer.w1, mapped, peer.w3, 0)',
  },
  {
    name: "the access list is asked without the listener's app",
    file: 'src/proxy/admit.ts',
    search: 'decideAccess(list, app, peer.w0, peer.w1, mapped, peer.w3, country)',
    replace: 'decideAccess(list, 0, peer.w0, peer.w1, mapped, peer.w3, country)',
  },
  {
    name: 'the shorter of two prefixes decides',
    file: 'src/route/prefix-tree.ts',
    search: '      found = node;',
    replace: '      if (found < 0) found = node;',
  },
  {
    name: 'a draining backend keeps its bound clients',
    file: 'src/route/select.ts',
    search: '  if (flags !== (FLAG_PRESENT | FLAG_ENABLED)) return false;\n',
    replace: '  if ((flags & FLAG_ENABLED) === 0) return false;\n',
  },
  {
    name: 'a backend with a bad path loses its bound clients',
    file: 'src/route/select.ts',
    search: '  const flags = snapshot.flags[backendIndex] & ~FLAG_DEGRADED;\n',
    replace: '  const flags = snapshot.flags[backendIndex] | (FLAG_DEGRADED & 0);\n',
  },
  {
    name: 'a backend with a bad path stays in its tier',
    file: 'src/route/tier-plan.ts',
    search: ' + snapshot.groupDegraded[group];',
    replace: ' + snapshot.groupDegraded[group] * 0;',
  },
  {
    name: 'a drain takes no heed of what it is granted',
    file: 'src/proxy/drain.ts',
    search: '  if (!takeEnd(backendState, backend, sessions.incarnation[slot])) return false;\n',
    replace: '  void takeEnd;\n',
  },
  {
    name: 'a drain is granted more than its pace allows',
    file: 'src/control/drain.ts',
    search: '      if (count > 0) target.credit -= count;\n',
    replace: '',
  },
  {
    name: 'the search for sessions to end does not go round',
    file: 'src/proxy/drain.ts',
    search: '    if (slot >= fresh) slot = 0;\n',
    replace: '    void fresh;\n',
  },
  {
    name: 'a binding outlives its time',
    file: 'src/route/client-table.ts',
    search: '  if (isExpired(table, row, nowMs, ttlMs)) clearBinding(words, record);\n',
    replace: '',
  },
  ...PROXY_MUTATIONS,
];

function apply(root: string, { file, search, replace }: Mutation): boolean {
  const path = join(root, file);
  const source = readFileSync(path, 'utf8');
  if (source.split(search).length !== 2) return false;
  writeFileSync(
    path,
    source.replace(search, () => replace),
  );
  return true;
}

/** '' when the simulation saw nothing; else its first words about the fault. */
function simulateIn(root: string): string {
  const result = spawnSync(
    process.execPath,
    [
      join(root, 'tools/sim.ts'),
      ...['--seed', SEED, '--sessions', SESSIONS, '--runs', RUNS, '--failures', 1].map(String),
    ],
    { cwd: root, encoding: 'utf8', timeout: TIME_MS_MAX },
  );
  if (result.error !== undefined) return 'the run did not end';
  if (result.status === 0) return '';
  const seen = result.stdout.split('\n').find((line) => line.includes('(seed '));
  // A copy that does not even load says nothing about the simulation.
  if (seen === undefined) throw new Error(`Cannot run the simulation: ${result.stderr}`);
  return seen;
}

function copyTree(from: string): string {
  const root = mkdtempSync(join(tmpdir(), 'edgeproxy-mutation-'));
  for (const part of ['src', 'tools', 'package.json']) {
    cpSync(join(from, part), join(root, part), { recursive: true });
  }
  return root;
}

/** The verdict on one mutation of the tree in `base`, and what was seen. */
function judge(base: string, mutation: Mutation): [verdict: string, seen: string] {
  const root = copyTree(base);
  try {
    if (!apply(root, mutation)) return ['CANNOT BE APPLIED', ''];
    const seen = simulateIn(root);
    return [seen === '' ? 'MISSED' : 'caught', seen];
  } finally {
    rmSync(root, { recursive: true });
  }
}

const { values } = parseArgs({ options: { only: { type: 'string', default: '' } } });
const chosen = MUTATIONS.filter(({ name }) => name.includes(values.only));
// One copy for all, so that what is edited meanwhile changes nothing; and without a fault it must pass, or the verdicts
// would mean nothing.
const base = copyTree(join(import.meta.dirname, '..'));
let missed = 0;
try {
  const seen = simulateIn(base);
  if (seen !== '') throw new Error(`Cannot judge mutations: without one the runs fail: ${seen}`);
  for (const mutation of chosen) {
    const [verdict, seenThere] = judge(base, mutation);
    if (verdict !== 'caught') missed++;
    process.stdout.write(`${verdict}: ${mutation.name} (${mutation.file})\n    ${seenThere}\n`);
  }
} finally {
  rmSync(base, { recursive: true });
}
process.stdout.write(`${chosen.length - missed} of ${chosen.length} mutations caught\n`);
process.exit(missed === 0 ? 0 : 1);
