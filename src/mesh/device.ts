// The WireGuard device behind one interface: the kernel's, or a process of ours on a TUN device. They differ in how they
// are made, asked and told; addresses, MTU and routes are the same for both (link.ts).

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ProxyError } from '../base/errors.ts';
import {
  changesOf,
  type DeviceState,
  hasChanges,
  parseDump,
  parseUapi,
  syncConf,
  uapiSet,
  type WantedDevice,
} from './device-state.ts';
import { findLink, removeLink } from './link.ts';
import { mayAdministerNetwork, NO_ADMIN, outputOf, runProgram } from './programs.ts';
import { askUapi, hasUapi, watchUapi } from './uapi.ts';

export type DeviceKind = 'kernel' | 'userspace';

export interface MeshDevice {
  readonly kind: DeviceKind;
  readonly name: string;
  /** Makes the interface, which is not there. */
  create(mtu: number): Promise<void>;
  read(): Promise<DeviceState>;
  /**
   * Makes the device as it should be: only what differs, so that sessions go on. `applied`: endpoints set before. False:
   * nothing had to be changed.
   */
  configure(wanted: WantedDevice, applied: ReadonlyMap<string, string | null>): Promise<boolean>;
  /** Calls `onGone` once when it ends by itself; a device that cannot tell is found out by read(). */
  watch(onGone: () => void): { close(): void };
}

const DEVICE_MAIN = fileURLToPath(new URL('./device/main.ts', import.meta.url));
const START_MS_MAX = 10_000;
const START_LOOK_MS = 20;
const GOING_LOOKS_MAX = 50;
/** What `ip` of different ages says of a kind of link that the kernel does not have. */
const NO_KERNEL_DEVICE = /Unknown device type|not supported/i;

/** Through a pipe: what Node gives a child as standard input is a socket, which /dev/stdin does not open (ENXIO). */
const SYNC = 'cat | wg syncconf "$1" /dev/stdin';

/** All but create() works on any WireGuard that speaks to wg(8). */
export class KernelDevice implements MeshDevice {
  readonly kind = 'kernel';
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  async create(): Promise<void> {
    await outputOf('wg', ['--version']);
    await outputOf('ip', ['link', 'add', 'dev', this.name, 'type', 'wireguard']);
  }

  async read(): Promise<DeviceState> {
    return parseDump(await outputOf('wg', ['show', this.name, 'dump']));
  }

  async configure(
    wanted: WantedDevice,
    applied: ReadonlyMap<string, string | null>,
  ): Promise<boolean> {
    const changes = changesOf(wanted, await this.read(), applied);
    if (!hasChanges(changes)) return false;
    await outputOf('sh', ['-c', SYNC, 'sh', this.name], syncConf(wanted, changes));
    return true;
  }

  watch(): { close(): void } {
    return { close() {} };
  }
}

/** A process that outlives the one that started it: it is found again by its UAPI socket. */
class UserspaceDevice implements MeshDevice {
  readonly kind = 'userspace';
  readonly name: string;
  /** Whether its log goes where ours does. */
  readonly #logs: boolean;

  constructor(name: string, logs: boolean) {
    this.name = name;
    this.#logs = logs;
  }

  async create(mtu: number): Promise<void> {
    const { name } = this;
    const fail = (reason: string): never => {
      const message = `Cannot start the userspace WireGuard device "${name}": ${reason}`;
      throw new ProxyError('ERR_MESH_DEVICE', message, { retry: 'always' });
    };
    if (!existsSync('/dev/net/tun')) {
      fail('there is no /dev/net/tun; load the module tun, or give it to the container');
    }
    if (await hasUapi(name)) {
      fail(
        'a device of that name runs in another network namespace; EDGEPROXY_MESH_INTERFACE says another',
      );
    }
    const stream = this.#logs ? 'inherit' : 'ignore';
    const args = ['--disable-warning=ExperimentalWarning', DEVICE_MAIN, name, '--mtu', String(mtu)];
    const child = spawn(process.execPath, args, {
      detached: true,
      stdio: ['ignore', stream === 'inherit' ? 2 : 'ignore', stream],
    });
    let ended = '';
    child.on('error', (error) => (ended = error.message));
    child.on('exit', (code, signal) => (ended = `it ended with ${signal ?? `exit code ${code}`}`));
    child.unref();
    for (let waited = 0; ; waited += START_LOOK_MS) {
      if (ended !== '') fail(`${ended}, its log says why`);
      if (await hasUapi(name)) break;
      if (waited > START_MS_MAX) {
        child.kill('SIGKILL');
        fail('it did not get ready in time');
      }
      await delay(START_LOOK_MS);
    }
    // The socket may come before the interface.
    for (let looks = 0; (await findLink(name)) === null; looks++) {
      if (ended !== '' || looks > 100) fail('its interface did not appear');
      await delay(START_LOOK_MS);
    }
  }

  async read(): Promise<DeviceState> {
    return parseUapi(await askUapi(this.name, 'get=1\n\n'));
  }

  async configure(
    wanted: WantedDevice,
    applied: ReadonlyMap<string, string | null>,
  ): Promise<boolean> {
    const changes = changesOf(wanted, await this.read(), applied);
    if (!hasChanges(changes)) return false;
    await askUapi(this.name, uapiSet(wanted, changes));
    return true;
  }

  watch(onGone: () => void): { close(): void } {
    return watchUapi(this.name, onGone);
  }
}

export interface FoundDevice {
  readonly device: MeshDevice;
  /** It was there before. */
  readonly isAdopted: boolean;
  /** Why this kind, for the log. */
  readonly why: string;
}

interface DeviceChoice {
  readonly interface: string;
  readonly device: 'auto' | DeviceKind;
  readonly mtu: number;
  readonly logs: boolean;
}

/** The interface of that name when it is a WireGuard of the asked kind; throws when it is anything else. */
export async function adoptDevice(choice: DeviceChoice): Promise<MeshDevice | null> {
  const { interface: name, device: asked, logs } = choice;
  let link = await findLink(name);
  let isUserspace = false;
  // The interface of a process that was killed goes a moment after the process.
  for (let looks = 0; link?.kind === 'tun' && looks < GOING_LOOKS_MAX; looks++) {
    isUserspace = await hasUapi(name);
    if (isUserspace) break;
    await delay(START_LOOK_MS);
    link = await findLink(name);
  }
  if (link === null) return null;
  if (link.kind !== 'wireguard' && !isUserspace) {
    const what = link.kind === 'tun' ? 'a TUN device that no WireGuard answers for' : link.kind;
    const message = `Cannot use interface "${name}": it exists and is ${what}; EDGEPROXY_MESH_INTERFACE says another`;
    throw new ProxyError('ERR_MESH_LINK', message, { source: 'usage' });
  }
  const device = isUserspace ? new UserspaceDevice(name, logs) : new KernelDevice(name);
  if (asked === 'auto' || asked === device.kind) return device;
  const message = `Cannot use interface "${name}": it is a ${device.kind} device, EDGEPROXY_MESH_DEVICE asks for ${asked}; end it with: edgeproxy mesh down`;
  throw new ProxyError('ERR_MESH_LINK', message, { source: 'usage' });
}

/** Why the kernel cannot be asked for a device, '' when it can. */
async function kernelRefusal(name: string): Promise<string> {
  // Only trying tells: the module may be loaded at this moment, or built in.
  const { status, stderr } = await runProgram('ip', [
    'link',
    'add',
    'dev',
    name,
    'type',
    'wireguard',
  ]);
  if (status !== 0) {
    const reason = stderr.replace(/^(RTNETLINK answers|Error): /, '') || 'it refuses';
    return NO_KERNEL_DEVICE.test(reason) ? `it has no WireGuard (${reason})` : reason;
  }
  await removeLink(name);
  const wg = await runProgram('wg', ['--version']).catch((error: Error) => error.message);
  return typeof wg === 'string' ? wg : '';
}

/** Adopts the interface, or makes it; `auto` prefers the kernel. Throws ProxyError. */
export async function openDevice(choice: DeviceChoice): Promise<FoundDevice> {
  const { interface: name, device: asked, mtu, logs } = choice;
  const found = await adoptDevice(choice);
  if (found !== null) return { device: found, isAdopted: true, why: 'it was there' };
  const refusal = asked === 'auto' ? await kernelRefusal(name) : '';
  const usesKernel = asked === 'kernel' || (asked === 'auto' && refusal === '');
  const device = usesKernel ? new KernelDevice(name) : new UserspaceDevice(name, logs);
  await device.create(mtu);
  const why =
    asked !== 'auto'
      ? `EDGEPROXY_MESH_DEVICE is ${asked}`
      : usesKernel
        ? 'the kernel has WireGuard'
        : `not the kernel: ${refusal}`;
  return { device, isAdopted: false, why };
}

/** Removes an interface; a userspace device ends a moment later, which is waited for, so that its name is free then. */
export async function removeDevice(name: string): Promise<void> {
  await removeLink(name);
  for (let looks = 0; looks < GOING_LOOKS_MAX && (await hasUapi(name)); looks++) {
    await delay(START_LOOK_MS);
  }
}

/** Removes the interface when it is a WireGuard; false when there is none. Throws when it is anything else. */
export async function removeMesh(name: string): Promise<boolean> {
  const device = await adoptDevice({ interface: name, device: 'auto', mtu: 0, logs: false });
  if (device === null) return false;
  if (!mayAdministerNetwork()) {
    throw new ProxyError('ERR_MESH_PRIVILEGES', `Cannot remove interface "${name}": ${NO_ADMIN}`);
  }
  await removeDevice(name);
  return true;
}
