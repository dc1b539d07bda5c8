// The commands of `edgeproxy mesh` as commander sees them: names, arguments, help.

import type { Command } from 'commander';
import type { ConfigFlags, SettingKey } from '../config.ts';

const OWN_SETTINGS = ['dbPath', 'meshKeyPath', 'meshAddress', 'meshListenPort'] as const;
const DEVICE_SETTINGS = ['meshInterface', 'meshDevice', 'meshMtu'] as const;

interface Tools {
  addSettings(command: Command, keys: readonly SettingKey[]): Command;
  act(command: Command, perform: (flags: ConfigFlags, ...words: string[]) => Promise<number>): void;
  readonly adminSettings: readonly SettingKey[];
}

function addPeerCommands(mesh: Command, { addSettings, act }: Tools): void {
  const group = mesh
    .command('peer')
    .description('List and change the peers; a running proxy follows within 100 ms');
  const load = () => import('./mesh-peer.ts');
  const add = addSettings(
    group.command('add <id>').description('Add a peer by its public key, or with a key made here'),
    [...OWN_SETTINGS, 'meshEndpoint', 'meshMtu'],
  )
    .option('--public-key <key>', 'Its public key')
    .option('--generate-key', 'Make its keys here and print the file for its wg-quick, once')
    .option('--kind <kind>', 'What it is: pop or backend (default: backend)')
    .option('--endpoint <host:port>', 'Where it is reached (default: it calls)')
    .option(
      '--allowed-ips <prefixes>',
      'What is behind it, comma separated (default: the addresses planned from its key)',
    )
    .option('--keepalive <seconds>', 'Keep a way through NAT open; 0 is off (default: 0)')
    .option('--mtu <bytes>', "Of the routes to it (default: the interface's)")
    .option('--preshared-key-file <file>', 'File with a preshared key')
    .option('--generate-preshared-key', 'Make a preshared key; mesh export shows it')
    .option('--qr', 'With --generate-key: show the file as a QR code');
  act(add, async (flags, id) => (await load()).addOnePeer(id as string, flags));
  const remove = addSettings(
    group.command('remove <id>').description('Remove a peer: its tunnel ends'),
    ['dbPath'],
  );
  act(remove, async (flags, id) => (await load()).removeOnePeer(id as string, flags));
  const list = addSettings(group.command('list').description('List the peers'), OWN_SETTINGS);
  act(list.option('--json', 'Print JSON'), async (flags) => (await load()).listPeers(flags));
}

/** Adds them to the program. */
export function addMesh(root: Command, tools: Tools): void {
  const { addSettings, act, adminSettings } = tools;
  const mesh = root
    .command('mesh')
    .description('Set up and look at the WireGuard tunnels to backends and other POPs');
  const load = () => import('./mesh.ts');
  const init = mesh
    .command('init')
    .description('Make the key of this end and the table of peers; changes neither if there');
  act(addSettings(init, [...OWN_SETTINGS, 'meshEndpoint']), async (flags) =>
    (await load()).meshInit(flags),
  );
  const up = mesh
    .command('up')
    .description('Set the interface up without a proxy, or bring it up to date');
  act(addSettings(up, [...OWN_SETTINGS, ...DEVICE_SETTINGS]), async (flags) =>
    (await load()).meshUp(flags),
  );
  const down = mesh
    .command('down')
    .description('Remove the interface; a running proxy makes it again');
  act(addSettings(down, ['meshInterface']), async (flags) => (await load()).meshDown(flags));
  const status = mesh
    .command('status')
    .description('Show the tunnels: from the running proxy, or else from the device')
    .option('--json', 'Print JSON');
  act(addSettings(status, [...OWN_SETTINGS, ...DEVICE_SETTINGS, ...adminSettings]), async (flags) =>
    (await load()).meshStatus(flags),
  );
  addPeerCommands(mesh, tools);
  const file = mesh
    .command('export <peer>')
    .description('Print the file by which the other end joins with wg-quick');
  file.option('--qr', 'Show it as a QR code');
  act(addSettings(file, [...OWN_SETTINGS, 'meshEndpoint', 'meshMtu']), async (flags, peer) =>
    (await import('./mesh-peer.ts')).exportPeer(peer as string, flags),
  );
}
