// The command line as commander sees it: names, arguments, help. What a command does is in its own
// file, loaded only when it runs. Every flag that is a setting comes from the settings table.

import { Command, CommanderError, Option } from 'commander';
import {
  type ConfigFlags,
  defaultText,
  flagName,
  isSwitch,
  SETTING_KEYS,
  SETTINGS,
  type SettingKey,
} from '../config.ts';
import { programVersion } from '../version.ts';
import { ADMIN_SETTINGS } from './admin-settings.ts';
import { addMesh } from './mesh-program.ts';
import { EXIT_DONE } from './output.ts';

const EXIT_USAGE = 2;

/**
 * Adds `--config` and the flags of these settings; commander keeps no defaults, the table has them.
 */
function addSettings(command: Command, keys: readonly SettingKey[]): Command {
  const file = new Option('--config <file>', 'TOML file with settings (env: EDGEPROXY_CONFIG)');
  command.addOption(file);
  for (const key of keys) {
    const { env, help, unit, allowed } = SETTINGS[key];
    const value = isSwitch(key) ? '[bool]' : `<${unit?.split(' ', 1)[0] ?? 'value'}>`;
    const notes = `default: ${defaultText(key)}, env: ${env}`;
    command.addOption(new Option(`--${flagName(key)} ${value}`, `${help}: ${allowed} (${notes})`));
  }
  return command;
}

/** Runs one command at a time: the exit code of the last action. */
class Program {
  exitCode: number = EXIT_DONE;
  readonly root: Command;

  constructor() {
    this.root = new Command('edgeproxy')
      .description('Distributed TCP proxy for edge points of presence')
      .version(programVersion(), '-V, --version', 'Print the version')
      .helpOption('-h, --help', 'Print help')
      .helpCommand('help [command]', 'Print help for a command')
      .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong usage or settings')
      // Throw instead of ending the process; set here, it holds for every subcommand made from this
      // one.
      .exitOverride();
    this.#addRun();
    this.#addDemo();
    this.#addInit();
    this.#addBackend();
    this.#addAccess();
    addMesh(this.root, {
      addSettings,
      act: (command, perform) => this.#act(command, perform),
      adminSettings: ADMIN_SETTINGS,
    });
    this.#addExplain();
    this.#addDoctor();
    this.#addLive();
  }

  /** Sets what a command does: `perform` gets its arguments, then its flags. */
  #act(
    command: Command,
    perform: (flags: ConfigFlags, ...words: string[]) => Promise<number>,
  ): void {
    command.action(async (...given: unknown[]) => {
      const words = given.slice(0, -2) as string[];
      this.exitCode = await perform(given.at(-2) as ConfigFlags, ...words);
    });
  }

  #addRun(): void {
    const command = this.root.command('run').description('Run the proxy');
    this.#act(addSettings(command, SETTING_KEYS), async (flags) =>
      (await import('./run.ts')).run(flags),
    );
  }

  #addDemo(): void {
    const command = this.root
      .command('demo')
      .description('Run the proxy with three sample backends and a seeded database');
    const keys = SETTING_KEYS.filter((key) => key !== 'dbPath');
    addSettings(command, keys)
      .option('--mesh', 'Three POPs with WireGuard tunnels in network namespaces; needs root')
      .option('--stay', 'With --mesh: stay until Ctrl-C, to look around');
    this.#act(command, async (flags) => {
      if (flags.mesh === true) return (await import('./demo-mesh.ts')).demoMesh(flags);
      return (await import('./demo.ts')).demo(flags);
    });
  }

  #addInit(): void {
    const command = this.root.command('init').description('Create the routing database');
    this.#act(addSettings(command, ['dbPath']), async (flags) =>
      (await import('./init.ts')).init(flags),
    );
  }

  #addBackend(): void {
    const group = this.root
      .command('backend')
      .description('List and change backends; a running proxy follows within 100 ms');
    const add = (words: string, help: string, ...more: SettingKey[]): Command =>
      addSettings(group.command(words).description(help), ['dbPath', ...more]);
    const load = () => import('./backend.ts');

    const list = add('list', 'List backends')
      .option('--app <app>', 'Only those of one app')
      .option('--json', 'Print JSON');
    this.#act(list, async (flags) => (await load()).listBackends(flags));

    const addOne = add('add <id> <address>', 'Add a backend at IP:PORT, IPv6 as [IP]:PORT')
      .requiredOption('--region <region>', 'Its region')
      .option('--app <app>', 'The app it serves', 'default')
      .option('--country <code>', "Its country (default: its region's home country)")
      .option('--weight <number>', 'Its share among equals; 0 takes no new clients (default: 1)')
      .option('--soft <sessions>', 'Sessions it carries well (default: 100)')
      .option('--hard <sessions>', 'Sessions it never exceeds; 0 is no limit (default: 0)')
      .option('--check-type <type>', 'Health check: tcp, http or none (default: the setting)')
      .option('--check-port <port>', 'Where it is checked (default: the port it serves at)')
      .option('--check-path <path>', 'What an HTTP check asks for (default: the setting)')
      .option('--check-expect <statuses>', 'HTTP statuses that are good (default: 200-399)')
      .option(
        '--proxy-protocol <version>',
        'PROXY header it gets: off, v1, v2 (default: the setting)',
      );
    this.#act(addOne, async (flags, id, address) =>
      (await load()).addOne(id as string, address as string, flags),
    );

    const byId = [
      ['remove', 'Take a backend out of routing, keeping its row'],
      ['restore', 'Bring a removed backend back'],
      ['enable', 'Let a backend take sessions; ends a drain, too'],
      ['disable', 'Stop new sessions to a backend; open ones go on'],
      ['undrain', 'End the drain of a backend'],
      ['delete', 'Delete the row of a backend'],
    ] as const;
    for (const [name, help] of byId) {
      this.#act(add(`${name} <id>`, help), async (flags, id) =>
        (await load()).changeById(name, id as string, flags),
      );
    }
    this.#act(add('weight <id> <weight>', 'Set the weight of a backend'), async (flags, id, text) =>
      (await load()).setWeight(id as string, text as string, flags),
    );
    const drainHelp = 'Stop new sessions to a backend and wait until it is empty';
    const drain = add('drain <id>', drainHelp, ...ADMIN_SETTINGS)
      .option('--timeout <seconds>', 'End what is still open after so long (default: never)')
      .option('--rate <sessions>', 'End so many per second then (default: all at once)')
      .option('--no-wait', 'Only say so in the database')
      .option('--json', 'Print JSON lines');
    this.#act(drain, async (flags, id) =>
      (await import('./drain.ts')).drainOne(id as string, flags),
    );
    const limits = add('limits <id>', 'Set the limits of a backend')
      .option('--soft <sessions>', 'Sessions it carries well')
      .option('--hard <sessions>', 'Sessions it never exceeds; 0 is no limit');
    this.#act(limits, async (flags, id) => (await load()).setLimits(id as string, flags));
    const proxy = add(
      'proxy-protocol <id> <version>',
      'Set the PROXY header: off, v1, v2 or default',
    );
    this.#act(proxy, async (flags, id, text) =>
      (await load()).setProxyProtocol(id as string, text as string, flags),
    );
  }

  #addAccess(): void {
    const group = this.root
      .command('access')
      .description('List and change who may connect; a running proxy follows within 100 ms');
    const add = (words: string, help: string): Command =>
      addSettings(group.command(words).description(help), ['dbPath']);
    const load = () => import('./access.ts');

    const list = add('list', 'List the rows')
      .option('--app <app>', 'Only those for one app, * for those for all')
      .option('--json', 'Print JSON');
    this.#act(list, async (flags) => (await load()).listAccess(flags));
    const match = 'a prefix, an address, a country code, or * for everyone';
    for (const action of ['allow', 'deny'] as const) {
      const command = add(`${action} <match>`, `${action === 'allow' ? 'Allow' : 'Deny'} ${match}`)
        .option('--app <app>', 'The app of the listener (default: all apps)')
        .option('--note <text>', 'Why, for those who read the list');
      this.#act(command, async (flags, text) =>
        (await load()).setOne(action, text as string, flags),
      );
    }
    const remove = add('remove <match>', 'Remove the row about this match').option(
      '--app <app>',
      'The app it is for (default: the row for all apps)',
    );
    this.#act(remove, async (flags, text) => (await load()).removeOne(text as string, flags));
  }

  #addExplain(): void {
    const command = this.root
      .command('explain <ip>')
      .description('Show whether a client address may connect, which backend it gets, and why')
      .option('--app <app>', 'The app of the listener (default: any)')
      .option('--live', 'Ask the running proxy: load, health, breakers, paths, and the binding')
      .option('--json', 'Print JSON');
    const keys = [
      ...ADMIN_SETTINGS,
      'dbPath',
      'region',
      'country',
      'geoipPath',
      'regionMapPath',
      'accessDryRun',
    ] as const;
    this.#act(addSettings(command, keys), async (flags, ip) =>
      (await import('./explain.ts')).explain(ip as string, flags),
    );
  }

  #addDoctor(): void {
    const command = this.root
      .command('doctor')
      .description(
        'Check what this machine will do with these settings at scale, and say what to run',
      )
      .option('--json', 'Print JSON')
      .option('--fix', 'Print the files that mend it; write and apply them after asking')
      .option('--yes', 'With --fix: do not ask');
    this.#act(addSettings(command, SETTING_KEYS), async (flags) =>
      (await import('./doctor.ts')).doctor(flags),
    );
  }

  #addLive(): void {
    const keys = ADMIN_SETTINGS;
    const status = this.root
      .command('status')
      .description('Show how the running proxy is')
      .option('--json', 'Print JSON');
    this.#act(addSettings(status, keys), async (flags) =>
      (await import('./status.ts')).status(flags),
    );
    const top = this.root
      .command('top')
      .description('Show the running proxy live: traffic, backends, countries, events; q ends')
      .option('--json', 'Print a JSON line per second');
    this.#act(addSettings(top, keys), async (flags) => (await import('./top.ts')).top(flags));
  }
}

/** Parses `argv` (without node and script) and runs its command; ends with the exit code. */
export async function runCommand(argv: readonly string[]): Promise<number> {
  const program = new Program();
  try {
    await program.root.parseAsync(argv, { from: 'user' });
    return program.exitCode;
  } catch (error) {
    // Commander has printed its message (or the help that was asked for) already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_DONE : EXIT_USAGE;
    throw error;
  }
}
