// What the WireGuard mesh needs: a kernel with it or a TUN device, the programs ip and wg, a key that nobody else may read,
// the UDP port. Without a mesh in the settings only what the machine could do.

import { createSocket } from 'node:dgram';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '../../base/errors.ts';
import type { Config } from '../../config.ts';
import { readKeyFile } from '../../mesh/key.ts';
import { advice, type Finding, ok } from './finding.ts';
import { hasModule, type Machine, readText } from './machine.ts';

const PROGRAM_FOLDERS = ['usr/local/sbin', 'usr/local/bin', 'usr/sbin', 'usr/bin', 'sbin', 'bin'];

/** Loaded, built in, or there to be loaded when the first interface is made. */
function hasKernelWireGuard(machine: Machine): boolean {
  if (hasModule(machine, 'wireguard')) return true;
  return ['modules.dep', 'modules.builtin'].some((list) =>
    readText(machine, `lib/modules/${machine.kernel}/${list}`)?.includes('/wireguard.ko'),
  );
}

function hasProgram(machine: Machine, name: string): boolean {
  return PROGRAM_FOLDERS.some((folder) => existsSync(join(machine.root, folder, name)));
}

/** What would run the tunnels with these settings. */
export function checkWireGuard(config: Config, machine: Machine): Finding {
  const check = 'wireguard';
  const [kernel, wg] = [hasKernelWireGuard(machine), hasProgram(machine, 'wg')];
  const tun = existsSync(join(machine.root, 'dev/net/tun'));
  if (!config.meshEnabled) {
    if (kernel) return ok(check, 'The kernel has WireGuard');
    const hint = tun ? 'a TUN device is there for a userspace one' : 'no TUN device either';
    const text = `The kernel's WireGuard is not loaded: ${hint}`;
    return { check, status: 'unknown', text, remedy: advice('modprobe wireguard') };
  }
  if (!hasProgram(machine, 'ip')) {
    const text = 'The mesh needs the program ip, which is not there';
    return { check, status: 'fail', text, remedy: advice('Install the package iproute2') };
  }
  const asked = config.meshDevice;
  if (asked !== 'userspace' && kernel) {
    if (wg) return ok(check, 'The mesh runs in the kernel');
    const remedy = advice('Install the package wireguard-tools');
    const text = "The kernel's WireGuard needs the program wg, which is not there";
    if (asked === 'kernel') return { check, status: 'fail', text, remedy };
    if (tun) return { check, status: 'warn', text: `${text}: a process is used instead`, remedy };
  }
  if (asked === 'kernel') {
    const text = 'EDGEPROXY_MESH_DEVICE is kernel, but this kernel has no WireGuard';
    const remedy = advice('modprobe wireguard, or set EDGEPROXY_MESH_DEVICE to userspace');
    return { check, status: 'fail', text, remedy };
  }
  if (tun) return ok(check, 'The mesh runs in a process on a TUN device');
  const text = 'The mesh needs WireGuard in the kernel or /dev/net/tun, neither is there';
  return {
    check,
    status: 'fail',
    text,
    remedy: advice('modprobe tun, or give it to the container'),
  };
}

export function checkMeshKey({ meshKeyPath }: Config): Finding {
  try {
    readKeyFile(meshKeyPath);
    return ok('mesh_key', `${meshKeyPath} holds a key and is closed to others`);
  } catch (error) {
    return { check: 'mesh_key', status: 'fail', text: errorMessage(error) };
  }
}

/** Whether the port is free, unless the interface is up already, which has it then. */
export async function checkMeshPort(config: Config, machine: Machine): Promise<Finding> {
  const { meshListenPort: port, meshInterface: name } = config;
  if (existsSync(join(machine.root, 'sys/class/net', name))) {
    return ok('mesh_port', `${name} is there, with its UDP port`);
  }
  const socket = createSocket('udp4');
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.once('error', (error) => resolve(errorMessage(error)));
  socket.bind(port, () => resolve(''));
  const reason = await promise;
  socket.close();
  if (reason === '') return ok('mesh_port', `UDP port ${port} is free`);
  const text = `UDP port ${port} cannot be had for the mesh: ${reason}`;
  const remedy = advice('End what has it, or set EDGEPROXY_MESH_LISTEN_PORT');
  return { check: 'mesh_port', status: 'fail', text, remedy };
}

export async function checkMesh(config: Config, machine: Machine): Promise<Finding[]> {
  const device = checkWireGuard(config, machine);
  if (!config.meshEnabled) return [device];
  return [device, checkMeshKey(config), await checkMeshPort(config, machine)];
}
