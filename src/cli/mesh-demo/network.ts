// The network of the mesh demo: a namespace for each host, one for the clients, and one between them that routes, "the
// internet", where the path between two hosts can be cut: their UDP vanishes, without an error for anybody.

import { writeFileSync } from 'node:fs';
import { errorMessage, ProxyError } from '../../base/errors.ts';
import { inNamespace } from '../../sys/netns.ts';
import { commandOutput } from './command.ts';
import { COUNTRIES, PLACES, type Place } from './places.ts';

/** The router's address on every link. */
const GATEWAY = '169.254.0.1';
/** Before the rule that looks up the table main. */
const CUT_PREFERENCE = 100;
export const CLIENTS = 'clients';
const INTERNET = 'internet';

async function ipBatch(lines: readonly string[]): Promise<void> {
  await commandOutput(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

export class DemoNetwork {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  namespace(host: string): string {
    return `${this.#prefix}-${host}`;
  }

  get namespaces(): string[] {
    return [INTERNET, CLIENTS, ...PLACES.map(({ name }) => name)].map((host) =>
      this.namespace(host),
    );
  }

  async build(): Promise<void> {
    for (const name of this.namespaces) await commandOutput(['ip', 'netns', 'add', name]);
    const clients = COUNTRIES.map(({ net }) => `${net}.0/24`);
    await ipBatch([
      ...PLACES.flatMap(({ name }) => this.#linkLines(name)),
      ...this.#linkLines(CLIENTS),
    ]);
    // Every address of a prefix on the loopback interface is the host's own.
    await this.#joinLink(
      CLIENTS,
      clients.map((net) => `addr add ${net.replace('.0/', '.1/')} dev lo`),
    );
    for (const { name, address } of PLACES) {
      await this.#joinLink(name, [`addr add ${address}/32 dev eth0`]);
    }
    await this.#inside(INTERNET, [
      ...PLACES.map(({ name, address }) => `route add ${address}/32 dev to-${name}`),
      ...clients.map((net) => `route add ${net} dev to-${CLIENTS}`),
    ]);
    this.#forward();
  }

  #forward(): void {
    const path = '/proc/sys/net/ipv4/ip_forward';
    try {
      inNamespace(this.namespace(INTERNET), () => writeFileSync(path, '1'));
    } catch (cause) {
      const message = `Cannot write ${path}: ${errorMessage(cause)}; is /proc/sys read-only here?`;
      throw new ProxyError('ERR_DEMO_FORWARD', message, { cause });
    }
  }

  /** The cable of a host, with the router's end. */
  #linkLines(host: string): string[] {
    const [inside, router] = [this.namespace(host), this.namespace(INTERNET)];
    return [`link add eth0 netns ${inside} type veth peer name to-${host} netns ${router}`];
  }

  async #inside(host: string, lines: readonly string[]): Promise<void> {
    const command = ['ip', '-n', this.namespace(host), '-batch', '-'];
    await commandOutput(command, { input: `${lines.join('\n')}\n` });
  }

  async #joinLink(host: string, addresses: readonly string[]): Promise<void> {
    await this.#inside(INTERNET, [
      `addr add ${GATEWAY}/32 dev to-${host}`,
      `link set to-${host} up`,
    ]);
    await this.#inside(host, [
      ...addresses,
      'link set lo up',
      'link set eth0 up',
      `route add default via ${GATEWAY} dev eth0 onlink`,
    ]);
  }

  /** The commands by which the path between two hosts is cut (`add`) or healed (`del`): a rule for each way. */
  pathCommands(verb: 'add' | 'del', one: Place, other: Place): string[][] {
    const ways = [
      [one.address, other.address],
      [other.address, one.address],
    ] as const;
    return ways.map(([from, to]) =>
      `ip -n ${this.namespace(INTERNET)} rule ${verb} pref ${CUT_PREFERENCE} from ${from} to ${to} ipproto udp blackhole`.split(
        ' ',
      ),
    );
  }

  async cut(one: Place, other: Place): Promise<void> {
    for (const command of this.pathCommands('add', one, other)) await commandOutput(command);
  }

  async heal(one: Place, other: Place): Promise<void> {
    for (const command of this.pathCommands('del', one, other)) await commandOutput(command);
  }
}
