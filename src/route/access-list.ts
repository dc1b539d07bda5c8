// The access list: who may connect, by prefix, country and app, from one immutable SharedArrayBuffer that every worker
// reads; an empty buffer is no list. Rows for all apps and those for the app at hand count as one list: the longest prefix
// that holds the client decides, without one the row of its country, without one the row for everyone. Of two rows that
// match alike the one for the app goes first, then the one that denies. Rows that allow keep out whom no row matches.
//
// There is a section for all apps, then one for each app with rows of its own. A decision is (row + 1) * 2, + 1 = denied.
//
//   | sections | app of each | decisions by country of each (at 0, no country: for everyone) | prefix trees, two of each |

import { COUNTRIES_MAX } from '../limits.ts';
import { isMappedIPv4 } from './address-text.ts';
import {
  addPrefixNode,
  findPrefix,
  insertPrefix,
  NODE_WORDS,
  prefixLength,
  prefixTreeWords,
  prefixValue,
  setPrefixValue,
} from './prefix-tree.ts';

/** No row matches, but there are rows that allow, and none for everyone. 0: nothing was said. */
const DENIED_BY_REST = 1;

const IPV6_ROOT = { words: [0, 0, 0, 0], length: 0 };
const IPV4_ROOT = { words: [0, 0, 0xffff, 0], length: 96 };

/** One row. */
export interface AccessRule {
  /** Its number in the table. */
  readonly row: number;
  /** App index, 0 = all. */
  readonly app: number;
  readonly deny: boolean;
  /** A prefix, IPv4 as IPv4-mapped; a country index, 0 = everyone; null: it cannot be read, and is not in force. */
  readonly match: { readonly words: readonly number[]; readonly length: number } | number | null;
}

/** Views of the buffer, made by openAccessList once per thread and list. */
export interface AccessList {
  /** Section by app index; apps beyond its end have none of their own. */
  readonly sectionOf: Uint16Array;
  readonly decisions: Int32Array;
  readonly nodes: Int32Array;
}

export function openAccessList(buffer: SharedArrayBuffer): AccessList | null {
  if (buffer.byteLength === 0) return null;
  const [sections] = new Int32Array(buffer, 0, 1);
  const apps = new Int32Array(buffer, 4, sections);
  const sectionOf = new Uint16Array(Math.max(...apps) + 1);
  apps.forEach((app, section) => {
    sectionOf[app] = section;
  });
  const decisionsAt = (1 + sections) * 4;
  const decisions = new Int32Array(buffer, decisionsAt, sections * COUNTRIES_MAX);
  return {
    sectionOf,
    decisions,
    nodes: new Int32Array(buffer, decisionsAt + decisions.byteLength),
  };
}

/** The list of these rules, for openAccessList; those that apply to no app with a listener are better left out. */
export function encodeAccessList(rules: readonly AccessRule[]): SharedArrayBuffer {
  if (rules.length === 0) return new SharedArrayBuffer(0);
  const apps = [0, ...new Set(rules.map(({ app }) => app).filter((app) => app !== 0))];
  const words = prefixTreeWords(apps.length * 2, rules.length);
  const buffer = new SharedArrayBuffer((1 + apps.length * (1 + COUNTRIES_MAX) + words) * 4);
  new Int32Array(buffer).set([apps.length, ...apps]);
  const { sectionOf, decisions, nodes } = openAccessList(buffer) as AccessList;
  const tree = { nodes, end: 0 };
  for (const _ of apps) {
    for (const root of [IPV6_ROOT, IPV4_ROOT]) addPrefixNode(tree, root.words, root.length);
  }
  const allows = new Set<number>();
  for (const { row, app, deny, match } of rules) {
    const section = sectionOf[app];
    const decision = (row + 1) * 2 + Number(deny);
    if (!deny) allows.add(section);
    if (typeof match === 'number') {
      const at = section * COUNTRIES_MAX + match;
      if (!isDenied(decisions[at])) decisions[at] = decision;
    } else if (match !== null) {
      const { words: address, length } = match;
      const isV4 = length >= IPV4_ROOT.length && isMappedIPv4(address[0], address[1], address[2]);
      const node = insertPrefix(tree, rootOf(section, isV4), address, length);
      if (!isDenied(prefixValue(nodes, node))) setPrefixValue(nodes, node, decision);
    }
  }
  foldDecisions(decisions, allows);
  return buffer;
}

/** Where an app says nothing itself, rows for all apps count. Section 0 comes first. */
function foldDecisions(decisions: Int32Array, allows: ReadonlySet<number>): void {
  for (let at = 0; at < decisions.length; at++) {
    const isRest = at % COUNTRIES_MAX === 0;
    if (isRest && allows.has(at / COUNTRIES_MAX)) decisions[at] ||= DENIED_BY_REST;
    decisions[at] ||= decisions[at % COUNTRIES_MAX];
  }
}

export function isDenied(decision: number): boolean {
  return (decision & 1) === 1;
}

/** The row that decided, as its rule has it; -1 = none did. */
export function decidingRow(decision: number): number {
  return (decision >> 1) - 1;
}

/** The decision on a client; words in host order, IPv4 as IPv4-mapped; `country` is its index, 0 = none. */
export function decideAccess(
  list: AccessList,
  app: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
  country: number,
): number {
  const { sectionOf, decisions, nodes } = list;
  const own = app < sectionOf.length ? sectionOf[app] : 0;
  const isV4 = isMappedIPv4(w0, w1, w2);
  let node = findPrefix(nodes, rootOf(0, isV4), w0, w1, w2, w3);
  if (own !== 0) {
    const ownNode = findPrefix(nodes, rootOf(own, isV4), w0, w1, w2, w3);
    if (ownNode >= 0 && (node < 0 || prefixLength(nodes, ownNode) >= prefixLength(nodes, node))) {
      node = ownNode;
    }
  }
  if (node >= 0) return prefixValue(nodes, node);
  return decisions[own * COUNTRIES_MAX + country] || decisions[own * COUNTRIES_MAX];
}

/** The decision on clients that neither a prefix nor a country matches. */
export function restDecision(list: AccessList | null, app: number): number {
  if (list === null) return 0;
  const section = list.sectionOf[app] ?? 0;
  return list.decisions[section * COUNTRIES_MAX];
}

function rootOf(section: number, isV4: boolean): number {
  return (section * 2 + (isV4 ? 1 : 0)) * NODE_WORDS;
}
