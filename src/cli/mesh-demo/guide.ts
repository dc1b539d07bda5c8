// What can be done while `edgeproxy demo --mesh --stay` stays: where the dashboards are, how to enter a host, how to be a
// client, and how to cut a path by hand.

import { resolve } from 'node:path';
import { commandName } from '../command-name.ts';
import { print } from '../output.ts';
import { ADMIN_PORT } from './host.ts';
import { CLIENTS } from './network.ts';
import { BRAZIL } from './places.ts';
import type { DemoStage } from './stage.ts';

export async function printGuide(stage: DemoStage): Promise<void> {
  const { network, pops, sockets } = stage;
  const dashboards: string[] = [];
  for (const { namespace, place } of pops) {
    const port = await sockets.openWay({ namespace, host: '127.0.0.1', port: ADMIN_PORT });
    dashboards.push(`  ${place.name.padEnd(4)}http://127.0.0.1:${port}/`);
  }
  const [sa, far] = [stage.host('sa'), stage.host(BRAZIL.backend)];
  const name = commandName();
  const program = name.startsWith('.') ? resolve(name) : name;
  const enter = `ip netns exec ${sa.namespace} env EDGEPROXY_CONFIG=${sa.settingsPath} sh`;
  const curl = `curl --interface ${BRAZIL.net}.99 http://${sa.place.address}/`;
  const commands = (verb: 'add' | 'del'): string =>
    network
      .pathCommands(verb, sa.place, far.place)
      .map((command) => `  ${command.join(' ')}`)
      .join('\n');
  print(`
It stays until Ctrl-C. Dashboards:
${dashboards.join('\n')}
At POP sa (others: us, eu, app-sa, app-us, app-eu), as root in another terminal:
  ${enter}
  ${program} mesh status
  ${program} top
  ${program} explain ${BRAZIL.net}.99 --live
As a client from Brazil:
  ip netns exec ${network.namespace(CLIENTS)} ${curl}
Cut the path from POP sa to ${BRAZIL.backend}:
${commands('add')}
Heal it:
${commands('del')}
`);
}
