// Two network namespaces joined by a veth pair: the only way to have clients with public addresses without touching the
// machine's own network. Needs root; a test that cannot have it skips with the reason.

import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const TOOL = fileURLToPath(new URL('./name-tool.ts', import.meta.url));
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning', TOOL];

/** Runs a program and returns what went wrong, '' = nothing. */
export function attempt(program: string, args: readonly string[]): string {
  const result = spawnSync(program, args, { encoding: 'utf8' });
  if (result.error) return result.error.message;
  return result.status === 0
    ? ''
    : result.stderr.trim() || `${program} ended with ${result.status}`;
}

function ip(line: string): string {
  return attempt('ip', line.split(' '));
}

export interface Namespaces extends Disposable {
  /** Why there are none, '' when there are. */
  readonly problem: string;
  /** Where the proxy and its backends run; `wrapper` goes before their command. */
  readonly wrapper: readonly string[];
  /** Starts backends beside the proxy: HOST:PORT=NAME. */
  serve(specs: readonly string[]): Promise<void>;
  /** What a client from this address reads from the proxy. */
  ask(from: string, port: number): string;
}

/** Makes both, with these client addresses. */
export function openNamespaces(clients: readonly string[]): Namespaces {
  const id = `ep${process.pid}`;
  const [proxy, client] = [`${id}p`, `${id}c`];
  const remove = (): void => {
    for (const name of [proxy, client]) ip(`netns del ${name}`);
  };
  let problem = '';
  const steps = [
    `netns add ${proxy}`,
    `netns add ${client}`,
    `link add ${id}a netns ${proxy} type veth peer name ${id}b netns ${client}`,
    `-n ${proxy} addr add 10.255.0.1/30 dev ${id}a`,
    `-n ${proxy} addr add fd00:ff::1/64 dev ${id}a nodad`,
    ...[proxy, client].map((name) => `-n ${name} link set lo up`),
    `-n ${proxy} link set ${id}a up`,
    `-n ${client} link set ${id}b up`,
    `-n ${client} addr add 10.255.0.2/30 dev ${id}b`,
    `-n ${client} addr add fd00:ff::2/64 dev ${id}b nodad`,
    `-n ${proxy} route add default via 10.255.0.2`,
    `-n ${proxy} -6 route add default via fd00:ff::2`,
    ...clients.map((address) => {
      const isV6 = address.includes(':');
      return `-n ${client} addr add ${address}/${isV6 ? 128 : 32} dev lo${isV6 ? ' nodad' : ''}`;
    }),
  ];
  const failed = steps.find((step) => {
    problem = ip(step);
    return problem !== '';
  });
  if (failed !== undefined) problem = `Cannot "ip ${failed}": ${problem}`;
  const inside = (name: string): string[] => ['ip', 'netns', 'exec', name];
  const servers: ReturnType<typeof spawn>[] = [];
  return {
    problem,
    wrapper: inside(proxy),
    async serve(specs) {
      const [command = '', ...args] = [...inside(proxy), ...NODE, 'serve', ...specs];
      const server = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      servers.push(server);
      await new Promise((resolve, reject) => {
        server.stdout?.once('data', resolve);
        server.once('exit', () => reject(new Error('The backends did not start')));
      });
    },
    ask(from, port) {
      const host = from.includes(':') ? 'fd00:ff::1' : '10.255.0.1';
      const [command = '', ...args] = [...inside(client), ...NODE, 'ask', from, host, String(port)];
      return spawnSync(command, args, { encoding: 'utf8', timeout: 15_000 }).stdout;
    },
    [Symbol.dispose]() {
      for (const server of servers) server.kill('SIGKILL');
      remove();
    },
  };
}

/** For `test.skip`: the reason, unless every test must run. */
export function skipReason(problem: string): string {
  if (process.env.EDGEPROXY_TEST_REQUIRE_ALL === '1') throw new Error(problem);
  return problem;
}
