// What happens in the mesh demo, in order, in lines for people: keys, tunnels, clients of several countries, and a path that
// is cut and healed. What is not as it should be is said at once, and counted.

import { print, printProblem } from '../output.ts';
import { formatTable } from '../table.ts';
import { APP, type DemoHost } from './host.ts';
import { BRAZIL, COUNTRIES } from './places.ts';
import type { DemoStage, PeerView } from './stage.ts';

const BACKEND_PORT = 8000;

function indented(text: string): string {
  return text.trimEnd().replaceAll(/^(?=.)/gm, '   ');
}

export class DemoStory {
  readonly #stage: DemoStage;
  #steps = 0;
  /** Of clients, so that none is bound to a backend. */
  #clients = 1;
  readonly differences: string[] = [];

  constructor(stage: DemoStage) {
    this.#stage = stage;
  }

  async tell(): Promise<void> {
    await this.#buildNetwork();
    await this.#makeKeys();
    await this.#addPeers();
    await this.#start();
    await this.#awaitTunnels();
    await this.#serveClients();
    await this.#cutPath();
    await this.#healPath();
  }

  #step(title: string): void {
    this.#stage.signal.throwIfAborted();
    print(`${this.#steps === 0 ? '' : '\n'}${++this.#steps}. ${title}`);
  }

  #say(text: string): void {
    print(indented(text));
  }

  #expect(what: string, is: string | null, wanted: string): void {
    if (is === wanted) return;
    const line = `${what}: ${is ?? 'none'} instead of ${wanted}`;
    this.differences.push(line);
    printProblem(`   NOT AS EXPECTED  ${line}`);
  }

  /** Runs a command on a host and shows it with what it says. */
  async #show(host: DemoHost, ...words: readonly string[]): Promise<string> {
    this.#stage.signal.throwIfAborted();
    this.#say(`${host.place.name}# edgeproxy ${words.join(' ')}`);
    const said = await host.edgeproxy(...words);
    this.#say(said);
    return said;
  }

  async #buildNetwork(): Promise<void> {
    const { network } = this.#stage;
    this.#step('The network: a namespace per host, and "the internet" between them');
    await network.build();
    this.#say(`${network.namespaces.length} namespaces, ${network.namespace('*')}`);
  }

  async #makeKeys(): Promise<void> {
    this.#step('Keys: edgeproxy mesh init on each host, which plans its addresses from its key');
    const taken = new Set<string>();
    await this.#stage.onAll(this.#stage.hosts, async (host) => {
      const said = await host.edgeproxy('mesh', 'init');
      host.publicKey = /^Public key: (\S+)$/m.exec(said)?.[1] ?? '';
      host.meshAddress = /^Addresses: +([\d.]+)/m.exec(said)?.[1] ?? '';
      taken.add(host.meshAddress);
    });
    const rows = this.#stage.hosts.map(({ place, endpoint, meshAddress, publicKey }) => {
      return [place.name, place.kind, endpoint, meshAddress, publicKey];
    });
    const header = ['HOST', 'KIND', 'REACHED AT', 'IN THE MESH', 'PUBLIC KEY'];
    this.#say(formatTable(header, rows, new Set()));
    this.#expect('Addresses in the mesh', String(taken.size), String(rows.length));
  }

  /** Runs commands on a host; shows the first of them in one region, the others are like it. */
  async #runAndShowFirst(host: DemoHost, commands: readonly (readonly string[])[]): Promise<void> {
    for (const words of commands) {
      this.#stage.signal.throwIfAborted();
      await host.edgeproxy(...words);
    }
    if (host.place.region !== BRAZIL.pop) return;
    this.#say(`${host.place.name}# edgeproxy ${commands[0]?.join(' ')}`);
  }

  async #addPeers(): Promise<void> {
    const { hosts, pops, backends } = this.#stage;
    this.#step('Peers: each POP has a tunnel to each backend host and to each other POP, such as');
    await this.#stage.onAll(hosts, async (host) => {
      const isPop = host.place.kind === 'pop';
      const peers = (isPop ? [...backends, ...pops] : pops).filter((peer) => peer !== host);
      const add = ({ place, publicKey, endpoint }: DemoHost): string[] => {
        const key = ['--public-key', publicKey, '--endpoint', endpoint];
        return ['mesh', 'peer', 'add', place.name, '--kind', place.kind, ...key];
      };
      await this.#runAndShowFirst(host, peers.map(add));
    });
    this.#step('Backends: all of them at each POP, at their addresses in the mesh, such as');
    const rows = backends.map(({ place, meshAddress }) => {
      const where = `${meshAddress}:${BACKEND_PORT}`;
      return ['backend', 'add', place.name, where, '--region', place.region, '--app', APP];
    });
    await this.#stage.onAll(pops, (pop) => this.#runAndShowFirst(pop, rows));
    await this.#show(this.#stage.host('sa'), 'backend', 'list');
  }

  async #start(): Promise<void> {
    const { pops, backends, sockets } = this.#stage;
    this.#step('Start: edgeproxy mesh up on the backend hosts, edgeproxy run on the POPs');
    for (const pop of pops) pop.start();
    await this.#stage.onAll(backends, async (host) => {
      const said = await host.edgeproxy('mesh', 'up');
      this.#say(`${host.place.name}: ${said.trim()}`);
      const { name: id, region } = host.place;
      const backend = { id, region, port: BACKEND_PORT };
      await sockets.serve(backend, host.namespace, host.meshAddress);
    });
    for (const pop of pops) {
      let mesh = await this.#stage.mesh(pop);
      await this.#stage.until(`${pop.place.name} to run`, async () => {
        mesh = await this.#stage.mesh(pop);
        return mesh !== null && mesh.device !== null;
      });
      this.#say(`${pop.place.name}: runs, ${mesh?.device} device (${mesh?.device_reason})`);
    }
  }

  async #awaitTunnels(): Promise<void> {
    this.#step('Tunnels: handshakes, and round trips measured inside of them');
    const isUp = ({ latest_handshake, rtt_ms, state }: PeerView): boolean =>
      latest_handshake !== null && rtt_ms !== null && state === 'ok';
    for (const pop of this.#stage.pops) {
      await this.#stage.until(`all tunnels of ${pop.place.name}`, async () => {
        const mesh = await this.#stage.mesh(pop);
        return mesh?.peers.every(isUp) ?? false;
      });
    }
    await this.#show(this.#stage.host('sa'), 'mesh', 'status');
  }

  #newAddress(net: string): string {
    return `${net}.${++this.#clients}`;
  }

  /** Who serves a new client of a country. */
  async #askNew(net: string, pop: DemoHost): Promise<{ from: string; backend: string | null }> {
    const from = this.#newAddress(net);
    return { from, backend: await this.#stage.askBackend(from, pop) };
  }

  async #serveClients(): Promise<void> {
    this.#step('Clients: each reaches the POP near it, and is served in its region');
    const [eu, rows] = [this.#stage.host('eu'), [] as string[][]];
    const visits = [
      ...COUNTRIES.map((country) => ({ country, pop: this.#stage.host(country.pop) })),
      // A POP that is far from the client sends it home, through the mesh.
      { country: BRAZIL, pop: eu },
    ];
    for (const { country, pop } of visits) {
      this.#stage.signal.throwIfAborted();
      const { from, backend } = await this.#askNew(country.net, pop);
      rows.push([from, country.name, pop.place.name, backend ?? 'nobody']);
      const what = `The backend of ${from} (${country.name}) at POP ${pop.place.name}`;
      this.#expect(what, backend, country.backend);
    }
    this.#say(formatTable(['CLIENT', 'COUNTRY', 'AT POP', 'SERVED BY'], rows, new Set()));
  }

  /** Waits for the state of sa's path, and says what it was and is. */
  async #awaitState(wanted: PeerView['state'], sinceMs: number): Promise<void> {
    const sa = this.#stage.host('sa');
    let peer: PeerView | null = null;
    await this.#stage.until(`the path to ${BRAZIL.backend} to be ${wanted}`, async () => {
      peer = await this.#stage.peer(sa, BRAZIL.backend);
      return peer?.state === wanted;
    });
    const { state_reason } = peer as unknown as PeerView;
    const secs = ((performance.now() - sinceMs) / 1000).toFixed(1);
    const was = wanted === 'dead' ? 'ok -> dead' : 'dead -> ok';
    const why = state_reason === null || state_reason === '' ? '' : `: ${state_reason}`;
    this.#say(`After ${secs} s, sa's path to ${BRAZIL.backend}: ${was}${why}`);
  }

  async #askBrazil(pop: DemoHost, wanted: string, remark: string): Promise<void> {
    const { from, backend } = await this.#askNew(BRAZIL.net, pop);
    const at = `POP ${pop.place.name}`;
    this.#say(`New client ${from} (Brazil) at ${at}: served by ${backend ?? 'nobody'}${remark}`);
    this.#expect(`The backend of ${from} at ${at}`, backend, wanted);
  }

  async #cutPath(): Promise<void> {
    const stage = this.#stage;
    const [sa, eu, far] = [stage.host('sa'), stage.host('eu'), stage.host(BRAZIL.backend)];
    const ends = `${sa.place.address} and ${far.place.address}`;
    this.#step(`A path is cut: UDP between ${ends} (POP sa, ${BRAZIL.backend}) vanishes`);
    const sinceMs = performance.now();
    await stage.network.cut(sa.place, far.place);
    await this.#awaitState('dead', sinceMs);
    await this.#show(sa, 'mesh', 'status');
    await this.#askBrazil(sa, 'app-us', ', the next best');
    await this.#askBrazil(eu, BRAZIL.backend, ', because the path from there is whole');
    const next = this.#newAddress(BRAZIL.net);
    const said = await this.#show(sa, 'explain', next, '--app', APP, '--live');
    const isSaid = new RegExp(`^\\s+${BRAZIL.backend} .*no path to it: no answer`, 'm').test(said);
    this.#expect(`What explain says of ${BRAZIL.backend}`, isSaid ? 'path' : 'else', 'path');
  }

  async #healPath(): Promise<void> {
    const stage = this.#stage;
    const [sa, far] = [stage.host('sa'), stage.host(BRAZIL.backend)];
    this.#step('The path is healed');
    const sinceMs = performance.now();
    await stage.network.heal(sa.place, far.place);
    await this.#awaitState('ok', sinceMs);
    await this.#askBrazil(sa, BRAZIL.backend, ' again');
  }
}
