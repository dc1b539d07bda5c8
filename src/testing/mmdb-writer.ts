// Writes MaxMind DB files of every shape for tests: record sizes 24, 28 and 32, IPv4 and IPv6
// trees, any value, with or without pointers. Written from the format's description alone and
// sharing no code with the reader, so that a misreading of the format on one side shows.

export type MmdbValue =
  | string
  | number
  | bigint
  | boolean
  | Uint8Array
  | MmdbValue[]
  | { [key: string]: MmdbValue }
  | { double: number };

export interface MmdbNetwork {
  /** `192.0.2.0/24` or `2001:db8::/32`; the longest prefix wins, whatever the order. */
  cidr: string;
  value: MmdbValue;
}

export interface MmdbOptions {
  recordSize?: 24 | 28 | 32;
  ipVersion?: 4 | 6;
  /** Store a repeated string or map once, and point to it. Default true. */
  pointers?: boolean;
  /** Unused bytes at the start of the data section: pushes pointers into their longer forms. */
  paddingBytes?: number;
  /** Point ::ffff:0:0/96 and 2002::/16 at the IPv4 tree, as MaxMind's own files do. */
  aliases?: boolean;
  metadata?: { [key: string]: MmdbValue };
}

/** Child of a node: a node index, EMPTY, or -2 - position of the value. */
const EMPTY = -1;

/** Bits of an address as a string of 0 and 1. */
export function addressBits(address: string): string {
  if (!address.includes(':')) {
    return address
      .split('.')
      .map((part) => Number(part).toString(2).padStart(8, '0'))
      .join('');
  }
  const [head = '', tail] = address.split('::');
  const groups = head === '' ? [] : head.split(':');
  const rest = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: 8 - groups.length - rest.length }, () => '0');
  return [...groups, ...(tail === undefined ? [] : zeros), ...rest]
    .map((group) => Number.parseInt(group, 16).toString(2).padStart(16, '0'))
    .join('');
}

/**
 * Prefix bits of a network in a tree of the given IP version; an IPv4 network sits at ::/96 of
 * IPv6.
 */
function networkBits(cidr: string, ipVersion: 4 | 6): string {
  const [address = '', length = ''] = cidr.split('/');
  const bits = addressBits(address).slice(0, Number(length));
  return ipVersion === 6 && !address.includes(':') ? '0'.repeat(96) + bits : bits;
}

export function writeMmdb(networks: readonly MmdbNetwork[], options: MmdbOptions = {}): Uint8Array {
  const { recordSize = 24, ipVersion = 6, pointers = true, paddingBytes = 0 } = options;
  const sorted = networks
    .map(({ cidr, value }) => ({ bits: networkBits(cidr, ipVersion), value }))
    .sort((a, b) => a.bits.length - b.bits.length);
  const nodes: [number, number][] = [[EMPTY, EMPTY]];
  for (const [index, { bits }] of sorted.entries()) insert(nodes, bits, -2 - index);
  if (options.aliases === true) addAliases(nodes);

  const data = new DataWriter(pointers, paddingBytes);
  const offsets = sorted.map(({ value }) => data.writeRecord(value));
  const toRecord = (child: number) => {
    if (child >= 0) return child;
    return child === EMPTY ? nodes.length : nodes.length + 16 + (offsets[-2 - child] as number);
  };
  const tree = nodes.flatMap(([left, right]) =>
    recordBytes(toRecord(left), toRecord(right), recordSize),
  );
  const metadata = new DataWriter(false, 0);
  metadata.writeRecord({
    binary_format_major_version: 2,
    binary_format_minor_version: 0,
    build_epoch: 1_700_000_000n,
    database_type: 'Test-Country',
    description: { en: 'Test database' },
    ip_version: ipVersion,
    languages: ['en'],
    node_count: nodes.length,
    record_size: recordSize,
    ...options.metadata,
  });
  const marker = [0xab, 0xcd, 0xef, ...new TextEncoder().encode('MaxMind.com')];
  const separator = new Array<number>(16).fill(0);
  return Uint8Array.from([...tree, ...separator, ...data.bytes, ...marker, ...metadata.bytes]);
}

/** Points the prefix at a child, splitting leaves that are in the way. */
function insert(nodes: [number, number][], bits: string, child: number): void {
  if (bits === '') {
    nodes[0] = [child, child];
    return;
  }
  let node = 0;
  for (const bit of bits.slice(0, -1)) {
    const side = Number(bit) as 0 | 1;
    let next = (nodes[node] as [number, number])[side];
    if (next < 0) {
      nodes.push([next, next]);
      next = nodes.length - 1;
      (nodes[node] as [number, number])[side] = next;
    }
    node = next;
  }
  (nodes[node] as [number, number])[Number(bits.at(-1)) as 0 | 1] = child;
}

function addAliases(nodes: [number, number][]): void {
  let root = 0;
  for (let bit = 0; bit < 96 && root >= 0; bit++) root = (nodes[root] as [number, number])[0];
  insert(nodes, networkBits('::ffff:0:0/96', 6), root);
  insert(nodes, networkBits('2002::/16', 6), root);
}

function bigEndian(value: number | bigint, bytesCount: number): number[] {
  const bytes: number[] = [];
  for (let shift = bytesCount - 1; shift >= 0; shift--) {
    bytes.push(Number((BigInt(value) >> BigInt(8 * shift)) & 0xffn));
  }
  return bytes;
}

function recordBytes(left: number, right: number, recordSize: 24 | 28 | 32): number[] {
  if (recordSize !== 28) {
    return [...bigEndian(left, recordSize / 8), ...bigEndian(right, recordSize / 8)];
  }
  const middle = ((left >>> 24) << 4) | (right >>> 24);
  return [...bigEndian(left & 0xffffff, 3), middle, ...bigEndian(right & 0xffffff, 3)];
}

class DataWriter {
  readonly bytes: number[];
  readonly #pointers: boolean;
  /** Offset of what was written, by its JSON text. */
  readonly #written = new Map<string, number>();

  constructor(pointers: boolean, paddingBytes: number) {
    this.#pointers = pointers;
    this.bytes = new Array<number>(paddingBytes).fill(0);
  }

  /** Offset of a record; equal records are one. */
  writeRecord(value: MmdbValue): number {
    const key = `record ${keyOf(value)}`;
    const known = this.#written.get(key);
    if (known !== undefined) return known;
    const offset = this.bytes.length;
    this.#written.set(key, offset);
    this.#writeNew(value);
    return offset;
  }

  #write(value: MmdbValue): void {
    const shared = typeof value === 'string' || (typeof value === 'object' && isMap(value));
    const key = keyOf(value);
    const known = this.#written.get(key);
    if (this.#pointers && shared && known !== undefined) {
      this.bytes.push(...pointerBytes(known));
      return;
    }
    this.#written.set(key, this.bytes.length);
    this.#writeNew(value);
  }

  #writeNew(value: MmdbValue): void {
    if (typeof value === 'string') {
      const text = new TextEncoder().encode(value);
      this.bytes.push(...head(2, text.length), ...text);
    } else if (typeof value === 'boolean') {
      this.bytes.push(...head(14, value ? 1 : 0));
    } else if (typeof value === 'bigint') {
      const bytes = bigEndian(value, 16);
      const used = bytes.slice(bytes.findIndex((byte) => byte !== 0));
      this.bytes.push(...head(used.length > 8 ? 10 : 9, used.length), ...used);
    } else if (typeof value === 'number') {
      this.#writeNumber(value);
    } else if (value instanceof Uint8Array) {
      this.bytes.push(...head(4, value.length), ...value);
    } else if (Array.isArray(value)) {
      this.bytes.push(...head(11, value.length));
      for (const item of value) this.#write(item);
    } else if (!isMap(value)) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setFloat64(0, (value as { double: number }).double);
      this.bytes.push(...head(3, 8), ...bytes);
    } else {
      this.bytes.push(...head(7, Object.keys(value).length));
      for (const [key, item] of Object.entries(value)) {
        this.#write(key);
        this.#write(item);
      }
    }
  }

  /** uint16, uint32 or int32, in as few bytes as it needs. */
  #writeNumber(value: number): void {
    const type = value < 0 ? 8 : value < 65_536 ? 5 : 6;
    const bytes = bigEndian(value >>> 0, 4);
    const first = bytes.findIndex((byte) => byte !== 0);
    const used = first < 0 ? [] : bytes.slice(first);
    this.bytes.push(...head(type, used.length), ...used);
  }
}

function isMap(value: object): boolean {
  return !Array.isArray(value) && !(value instanceof Uint8Array) && !('double' in value);
}

function keyOf(value: MmdbValue): string {
  return JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? `${item}n` : item));
}

function head(type: number, size: number): number[] {
  const [short, extra] =
    size < 29
      ? [size, []]
      : size < 285
        ? [29, [size - 29]]
        : size < 65_821
          ? [30, bigEndian(size - 285, 2)]
          : [31, bigEndian(size - 65_821, 3)];
  return type <= 7 ? [(type << 5) | short, ...extra] : [short, type - 7, ...extra];
}

function pointerBytes(target: number): number[] {
  if (target < 2048) return [0x20 | (target >> 8), target & 255];
  if (target < 526_336)
    return [0x28 | ((target - 2048) >> 16), ...bigEndian((target - 2048) & 0xffff, 2)];
  if (target < 134_744_064) {
    return [0x30 | ((target - 526_336) >> 24), ...bigEndian((target - 526_336) & 0xffffff, 3)];
  }
  return [0x38, ...bigEndian(target, 4)];
}
