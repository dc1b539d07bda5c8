// Which backends answer a TCP connect from this machine, asked a bounded number at a time.

import { setTimeout as delay } from 'node:timers/promises';
import { type Probe, startProbe } from '../health-probe.ts';
import { addressText, type RawBackend } from '../routing-rows.ts';
import { advice, type Finding, ok } from './finding.ts';

const AT_ONCE = 64;
const SHOWN = 5;

interface Silent {
  readonly id: string;
  readonly where: string;
  readonly reason: string;
}

async function ask(backend: RawBackend, timeoutMs: number): Promise<Silent | null> {
  const host = addressText(backend);
  const { promise, resolve } = Promise.withResolvers<string>();
  const probe: Probe = startProbe(
    host,
    { type: 'tcp', port: backend.port, path: '', expect: [], proxyProtocol: 0 },
    ({ result, reason }) => resolve(result === 'success' ? '' : reason),
  );
  const ended = new AbortController();
  const limit = delay(timeoutMs, null, { signal: ended.signal }).then(
    () => probe.expire(`${timeoutMs / 1000} s`),
    () => {},
  );
  const reason = await promise;
  ended.abort();
  await limit;
  return reason === '' ? null : { id: backend.id, where: `${host}:${backend.port}`, reason };
}

export async function checkBackends(
  backends: readonly RawBackend[],
  timeoutMs: number,
): Promise<Finding> {
  const wanted = backends.filter(({ deleted, healthy }) => !deleted && healthy);
  if (wanted.length === 0) {
    const remedy = advice('edgeproxy backend add ID IP:PORT --region REGION');
    return { check: 'backends', status: 'fail', text: 'No backend is enabled', remedy };
  }
  const silent: Silent[] = [];
  let next = 0;
  const askInTurn = async (): Promise<void> => {
    for (let backend = wanted[next++]; backend !== undefined; backend = wanted[next++]) {
      const answer = await ask(backend, timeoutMs);
      if (answer !== null) silent.push(answer);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, wanted.length) }, askInTurn));
  if (silent.length === 0) {
    return ok('backends', `${wanted.length} backends answer from here`);
  }
  silent.sort((one, other) => (one.id < other.id ? -1 : 1));
  const named = silent
    .slice(0, SHOWN)
    .map(({ id, where, reason }) => `${id} at ${where} (${reason})`);
  const more = silent.length > SHOWN ? ` and ${silent.length - SHOWN} more` : '';
  const text = `${silent.length} of ${wanted.length} backends do not answer from here: ${named.join(', ')}${more}`;
  const remedy = advice(
    'Look at their hosts and the path; edgeproxy backend disable ID takes one out',
  );
  const status = silent.length === wanted.length ? 'fail' : 'warn';
  return { check: 'backends', status, text, remedy };
}
