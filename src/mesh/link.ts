// The network interface of the mesh as `ip` sees it: kind, addresses, MTU, and a route for every allowed IP, which neither
// device adds. All by comparing with what is there, so it can be repeated at any time and touches nothing that is right.
// Routes of ours carry a protocol number, so that routes of others on the interface stay.

import { ProxyError } from '../base/errors.ts';
import { type Prefix, parsePrefix } from '../sys/prefix.ts';
import { outputOf, runProgram } from './programs.ts';

/** `proto` of our routes: any number that nobody else is known to use (/etc/iproute2/rt_protos). */
const ROUTE_PROTOCOL = 213;

export interface LinkFacts {
  /** `wireguard`, `tun`, or whatever it is. */
  readonly kind: string;
  readonly mtu: number;
  readonly isUp: boolean;
}

export interface LinkRoute {
  /** With its length. */
  readonly prefix: string;
  /** null: that of the interface. */
  readonly mtu: number | null;
}

interface RouteRow {
  readonly dst: string;
  readonly metrics?: readonly { readonly mtu?: number }[];
}

interface AddressRow {
  readonly addr_info?: readonly {
    readonly local?: string;
    readonly prefixlen?: number;
    readonly scope?: string;
  }[];
}

function isV6(prefix: string): boolean {
  return prefix.includes(':');
}

async function ipJson<Row>(args: readonly string[]): Promise<Row[]> {
  const text = await outputOf('ip', ['-j', ...args]);
  return text.trim() === '' ? [] : (JSON.parse(text) as Row[]);
}

/** The interface of this name, null when there is none. */
export async function findLink(name: string): Promise<LinkFacts | null> {
  const { status, stdout, stderr } = await runProgram('ip', [
    '-j',
    '-d',
    'link',
    'show',
    'dev',
    name,
  ]);
  if (status !== 0) {
    if (/does not exist|Cannot find device/i.test(stderr)) return null;
    throw new ProxyError('ERR_MESH_LINK', `Cannot look at interface "${name}": ${stderr}`, {
      retry: 'always',
    });
  }
  const [link] = JSON.parse(stdout) as {
    mtu: number;
    flags: string[];
    linkinfo?: { info_kind?: string };
  }[];
  if (link === undefined) return null;
  const kind = link.linkinfo?.info_kind ?? 'another kind';
  return { kind, mtu: link.mtu, isUp: link.flags.includes('UP') };
}

async function presentAddresses(name: string): Promise<string[]> {
  const rows = await ipJson<AddressRow>(['addr', 'show', 'dev', name]);
  return rows
    .flatMap((row) => row.addr_info ?? [])
    .filter(({ scope, local }) => scope !== 'link' && local !== undefined)
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

/** The addresses that the interface has, link-local ones left out. */
export async function linkAddresses(name: string): Promise<Prefix[]> {
  return (await presentAddresses(name)).flatMap((text) => {
    const prefix = parsePrefix(text);
    return typeof prefix === 'string' ? [] : [prefix];
  });
}

/** Lines for `ip -batch` that make the addresses of the interface the wanted ones; link-local ones are the kernel's. */
async function addressLines(name: string, wanted: readonly string[]): Promise<string[]> {
  const present = new Set(await presentAddresses(name));
  const missing = wanted.filter((address) => !present.delete(address));
  return [
    ...[...present].map((address) => `addr del ${address} dev ${name}`),
    ...missing.map((address) => `addr add ${address} dev ${name}${isV6(address) ? ' nodad' : ''}`),
  ];
}

/** Routes of ours on the interface: prefix with length to MTU. */
async function presentRoutes(name: string): Promise<Map<string, number | null>> {
  const routes = new Map<string, number | null>();
  for (const family of ['-4', '-6'] as const) {
    const filter = ['route', 'show', 'dev', name, 'proto', String(ROUTE_PROTOCOL)];
    for (const { dst, metrics } of await ipJson<RouteRow>([family, ...filter])) {
      const prefix = dst.includes('/') ? dst : `${dst}/${isV6(dst) ? 128 : 32}`;
      routes.set(prefix, metrics?.find(({ mtu }) => mtu !== undefined)?.mtu ?? null);
    }
  }
  return routes;
}

async function routeLines(name: string, wanted: readonly LinkRoute[]): Promise<string[]> {
  const present = await presentRoutes(name);
  const added = wanted.flatMap(({ prefix, mtu }) => {
    const now = present.get(prefix);
    present.delete(prefix);
    if (now === mtu) return [];
    // `add` fails where another interface has the same prefix; `replace` would take it away.
    const verb = now === undefined ? 'add' : 'replace';
    const more = mtu === null ? '' : ` mtu ${mtu}`;
    return [`route ${verb} ${prefix} dev ${name} proto ${ROUTE_PROTOCOL}${more}`];
  });
  const removed = [...present.keys()].map(
    (prefix) => `route del ${prefix} dev ${name} proto ${ROUTE_PROTOCOL}`,
  );
  return [...removed, ...added];
}

/** Runs the lines, all of them even when some fail; throws for the first that did. */
async function runLines(lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  const { status, stderr } = await runProgram(
    'ip',
    ['-force', '-batch', '-'],
    `${lines.join('\n')}\n`,
  );
  if (status === 0) return;
  const at = Number(/Command failed -:(\d+)/.exec(stderr)?.[1] ?? 0);
  const failed = lines[at - 1] ?? lines.join('; ');
  const reason = stderr.split('\n')[0]?.replace(/^(RTNETLINK answers|Error): /, '') ?? '';
  const hint = /File exists/.test(reason) ? ', something else has that already' : '';
  const count = stderr.match(/Command failed/g)?.length ?? 1;
  const more = count > 1 ? ` (and ${count - 1} more)` : '';
  throw new ProxyError('ERR_MESH_LINK', `Cannot "ip ${failed}": ${reason}${hint}${more}`, {
    retry: 'always',
  });
}

/** Gives the interface its addresses and its MTU, and brings it up. Throws ProxyError. */
export async function adjustLink(
  name: string,
  wanted: { readonly addresses: readonly string[]; readonly mtu: number },
): Promise<void> {
  const facts = await findLink(name);
  if (facts === null) {
    throw new ProxyError('ERR_MESH_GONE', `Interface "${name}" is gone`, { retry: 'always' });
  }
  const lines = await addressLines(name, wanted.addresses);
  if (facts.mtu !== wanted.mtu || !facts.isUp) {
    lines.push(`link set dev ${name} mtu ${wanted.mtu} up`);
  }
  await runLines(lines);
}

/** Makes our routes on the interface, which is up, the wanted ones. Throws ProxyError; what could be done is done. */
export async function adjustRoutes(name: string, wanted: readonly LinkRoute[]): Promise<void> {
  await runLines(await routeLines(name, wanted));
}

export async function removeLink(name: string): Promise<void> {
  await outputOf('ip', ['link', 'del', 'dev', name]);
}
