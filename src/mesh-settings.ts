// The settings of the WireGuard mesh: rows of the table in settings.ts.

import * as v from 'valibot';
import * as value from './config-values.ts';
import { setting } from './setting.ts';
import type { Prefix } from './sys/prefix.ts';

const DEVICES = ['auto', 'kernel', 'userspace'] as const;

export const MESH_SETTINGS = {
  meshEnabled: setting<boolean>({
    env: 'EDGEPROXY_MESH_ENABLED',
    schema: value.boolean,
    initial: false,
    allowed: 'true or false',
    help: 'Set up a WireGuard interface at start and keep it as the table peers says',
  }),
  meshDevice: setting<(typeof DEVICES)[number]>({
    env: 'EDGEPROXY_MESH_DEVICE',
    schema: value.choice(DEVICES),
    initial: 'auto',
    allowed: `one of ${DEVICES.join(', ')}`,
    help: "What runs the tunnels: the kernel's WireGuard, or a process on a TUN device",
  }),
  meshInterface: setting({
    env: 'EDGEPROXY_MESH_INTERFACE',
    schema: value.interfaceName,
    initial: 'edge0',
    allowed: '1 to 15 of letters, digits, _ and -, the first a letter',
    help: 'Name of the WireGuard interface',
  }),
  meshKeyPath: setting({
    env: 'EDGEPROXY_MESH_KEY_PATH',
    schema: value.path,
    initial: 'mesh.key',
    allowed: 'a file path; the file closed to group and others',
    help: 'File with the private key of this end, made by edgeproxy mesh init',
  }),
  meshListenPort: setting({
    env: 'EDGEPROXY_MESH_LISTEN_PORT',
    schema: value.integer(1, 65_535),
    initial: 51_820,
    unit: 'port',
    allowed: 'a whole number from 1 to 65535',
    help: 'UDP port of the tunnels',
  }),
  meshEndpoint: setting<string | null>({
    env: 'EDGEPROXY_MESH_ENDPOINT',
    schema: value.meshEndpoint,
    initial: null,
    shown: 'none',
    allowed: 'host:port, IPv6 as [::1]:51820, or none',
    help: 'Where peers reach this end; edgeproxy mesh export writes it into their files',
  }),
  meshAddress: setting<readonly Prefix[]>({
    env: 'EDGEPROXY_MESH_ADDRESS',
    schema: v.pipe(
      value.prefixList,
      v.check((prefixes) => prefixes.every(({ length }) => length === 128)),
    ),
    initial: Object.freeze([]),
    shown: 'planned from the public key',
    allowed: 'addresses as in 10.9.0.1 or fd00::1, comma separated, or none',
    help: 'Addresses of this end in the mesh',
  }),
  meshMtu: setting({
    env: 'EDGEPROXY_MESH_MTU',
    schema: value.integer(1280, 65_456),
    initial: 1420,
    unit: 'bytes',
    allowed: 'a whole number from 1280 to 65456',
    help: 'MTU of the WireGuard interface',
  }),
  meshProbeIntervalSecs: setting({
    env: 'EDGEPROXY_MESH_PROBE_INTERVAL_SECS',
    schema: value.decimal(0.1, 60),
    initial: 1,
    unit: 'seconds',
    allowed: 'a number from 0.1 to 60',
    help: 'Time between two probes of the path to a peer',
  }),
  meshDeadSecs: setting({
    env: 'EDGEPROXY_MESH_DEAD_SECS',
    schema: value.decimal(0.3, 600),
    initial: 5,
    unit: 'seconds',
    allowed: 'a number from 0.3 to 600',
    help: 'Without an answer for so long, and three probe intervals at least, the path to a peer is dead',
  }),
  meshDegradedLoss: setting({
    env: 'EDGEPROXY_MESH_DEGRADED_LOSS',
    schema: value.decimal(0, 1),
    initial: 0.1,
    unit: 'of the probes',
    allowed: 'a number from 0 to 1; 0 is off',
    help: 'Lost share of the last 30 probes that makes a path degraded',
  }),
  meshDegradedRttMs: setting({
    env: 'EDGEPROXY_MESH_DEGRADED_RTT_MS',
    schema: value.decimal(0, 60_000),
    initial: 0,
    unit: 'milliseconds',
    allowed: 'a number from 0 to 60000; 0 is off',
    help: 'Smoothed round trip time in the tunnel that makes a path degraded',
  }),
  meshDegradedRttFactor: setting({
    env: 'EDGEPROXY_MESH_DEGRADED_RTT_FACTOR',
    schema: value.decimal(0, 1000),
    initial: 5,
    unit: 'times',
    allowed: 'a number from 0 to 1000; 0 is off',
    help: 'The same as a multiple of the smallest one of the last ten minutes, and 50 ms above it at least',
  }),
};
