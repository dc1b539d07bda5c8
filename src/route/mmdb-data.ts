// Reads values of the MaxMind DB format: the metadata as an object, and the country code of a
// record. Input may be corrupt or hostile: every offset is checked, a pointer must not lead to a
// pointer, nesting is walked without recursion, and the sum of all work has a bound. Callers:
// mmdb.ts, mmdb-compact.ts. Format: maxmind.github.io/MaxMind-DB, version 2.0.

import { ProxyError } from '../base/errors.ts';
import { countryIndexOfLetters } from './regions.ts';

const TYPE_POINTER = 1;
const TYPE_STRING = 2;
const TYPE_UINT16 = 5;
const TYPE_UINT32 = 6;
const TYPE_MAP = 7;
const TYPE_UINT64 = 9;
const TYPE_ARRAY = 11;
const TYPE_BOOLEAN = 14;
const TYPE_FLOAT = 15;
const TYPE_CACHE_CONTAINER = 12;
const TYPE_END_MARKER = 13;

/** What each pointer size adds to its value. */
const POINTER_BASES = [0, 2048, 526_336, 0];

/** The format says that the metadata starts in the last 128 KiB, after the last marker. */
const METADATA_BYTES_MAX = 128 * 1024;
const MARKER = [0xab, 0xcd, 0xef, 0x4d, 0x61, 0x78, 0x4d, 0x69, 0x6e, 0x64, 0x2e, 0x63, 0x6f, 0x6d];

/** Zero bytes between tree and data section. */
export const SEPARATOR_BYTES = 16;

/** Returned by DataReader.countryAt for a record that has no country key at all. */
export const COUNTRY_KEY_MISSING = -1;

export interface MmdbMetadata {
  nodeCount: number;
  /** Bits: 24, 28 or 32. */
  recordSize: number;
  ipVersion: number;
  /** Seconds since 1970. */
  buildEpoch: number;
  databaseType: string;
  /** In English if there is one. */
  description: string;
  /** Bytes of the search tree; the data section starts SEPARATOR_BYTES after it. */
  treeBytes: number;
  /** Position of the metadata marker: the end of the data section. */
  dataEnd: number;
}

export function geoError(reason: string): ProxyError {
  return new ProxyError('ERR_GEO_DATABASE', `Cannot read country database: ${reason}`);
}

/** Reads values of one section; `start` is where pointers count from. */
export class DataReader {
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #end: number;
  /**
   * Values that may still be visited: overlapping records could otherwise cost time without end.
   */
  #visitsLeft: number;
  /** The value read last: its type, size (of a map, its pairs), and where its content starts. */
  #type = 0;
  #size = 0;
  #content = 0;

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#visitsLeft = 1_000_000 + 16 * (end - start);
  }

  /** Country index of the record at an offset: 0 for a code that is not known. */
  countryAt(offset: number): number {
    const country = this.#countryIn(offset);
    return country >= 0 ? country : COUNTRY_KEY_MISSING;
  }

  #countryIn(offset: number): number {
    this.#resolve(offset);
    if (this.#type !== TYPE_MAP) return COUNTRY_KEY_MISSING;
    let registered = 0;
    let flat = 0;
    let cursor = this.#content;
    for (let pairs = this.#size; pairs > 0; pairs--) {
      const value = this.#resolve(cursor);
      if (!this.#isString()) throw geoError('a map key is not a string');
      if (this.#contentIs('country')) {
        const country = this.#isoCodeAt(value);
        if (country !== COUNTRY_KEY_MISSING) return country;
      } else if (this.#contentIs('registered_country')) registered = value;
      else if (this.#contentIs('country_code')) flat = value;
      cursor = this.skip(value);
    }
    const country = registered === 0 ? COUNTRY_KEY_MISSING : this.#isoCodeAt(registered);
    return country === COUNTRY_KEY_MISSING && flat !== 0 ? this.#isoCodeAt(flat) : country;
  }

  /** Country index of a code, or of a map's `iso_code`. */
  #isoCodeAt(offset: number): number {
    this.#resolve(offset);
    if (this.#isString()) return this.#countryOfContent();
    if (this.#type !== TYPE_MAP) return COUNTRY_KEY_MISSING;
    let cursor = this.#content;
    for (let pairs = this.#size; pairs > 0; pairs--) {
      const value = this.#resolve(cursor);
      if (!this.#isString()) throw geoError('a map key is not a string');
      if (this.#contentIs('iso_code')) {
        this.#resolve(value);
        return this.#isString() ? this.#countryOfContent() : COUNTRY_KEY_MISSING;
      }
      cursor = this.skip(value);
    }
    return COUNTRY_KEY_MISSING;
  }

  #countryOfContent(): number {
    if (this.#size !== 2) return 0;
    const bytes = this.#bytes;
    return countryIndexOfLetters(
      bytes[this.#content] as number,
      bytes[this.#content + 1] as number,
    );
  }

  #contentIs(text: string): boolean {
    if (this.#size !== text.length) return false;
    for (let index = 0; index < text.length; index++) {
      if (this.#bytes[this.#content + index] !== text.charCodeAt(index)) return false;
    }
    return true;
  }

  /**
   * Reads the value at an offset, through one pointer; returns where the next value would start.
   */
  #resolve(offset: number): number {
    this.#readHead(offset);
    if (this.#type !== TYPE_POINTER) {
      return this.#isContainer() ? this.#content : this.#content + this.#size;
    }
    const next = this.#content;
    this.#readHead(this.#start + this.#size);
    if (this.#type === TYPE_POINTER) throw geoError('a pointer leads to a pointer');
    return next;
  }

  /** Offset after the value at `offset`, with all it contains; pointers are not followed. */
  skip(offset: number): number {
    let cursor = offset;
    for (let values = 1; values > 0; values--) {
      this.#readHead(cursor);
      cursor = this.#content;
      if (this.#type === TYPE_MAP) values += 2 * this.#size;
      else if (this.#type === TYPE_ARRAY) values += this.#size;
      else if (this.#type !== TYPE_POINTER) cursor += this.#size;
    }
    return cursor;
  }

  #isString(): boolean {
    return this.#type === TYPE_STRING;
  }

  #isContainer(): boolean {
    return this.#type === TYPE_MAP || this.#type === TYPE_ARRAY;
  }

  /** Sets type, size and content of the value at an offset; the size of a pointer is its target. */
  #readHead(offset: number): void {
    if (offset < this.#start || offset >= this.#end) throw geoError('an offset is out of bounds');
    if (--this.#visitsLeft < 0) throw geoError('its records overlap too much');
    const bytes = this.#bytes;
    const control = bytes[offset] as number;
    let cursor = offset + 1;
    let type = control >>> 5;
    if (type === TYPE_POINTER) {
      const extra = ((control >>> 3) & 3) + 1;
      const high = extra === 4 ? 0 : control & 7;
      this.#type = type;
      this.#size = high * 256 ** extra + this.#number(cursor, extra) + POINTER_BASES[extra - 1]!;
      this.#content = cursor + extra;
      return;
    }
    if (type === 0) type = this.#number(cursor++, 1) + 7;
    if (type > TYPE_FLOAT || type === TYPE_CACHE_CONTAINER || type === TYPE_END_MARKER) {
      throw geoError(`a value has the unknown type ${type}`);
    }
    let size = control & 31;
    if (size === 29) size = 29 + this.#number(cursor, 1);
    else if (size === 30) size = 285 + this.#number(cursor, 2);
    else if (size === 31) size = 65_821 + this.#number(cursor, 3);
    cursor += Math.max(0, (control & 31) - 28);
    if (type === TYPE_BOOLEAN) size = 0; // its size is its value
    if (cursor + size > this.#end) throw geoError('a value is cut short');
    this.#type = type;
    this.#size = size;
    this.#content = cursor;
  }

  /** Big-endian unsigned number of up to 8 bytes. */
  #number(offset: number, bytesCount: number): number {
    if (offset + bytesCount > this.#end) throw geoError('a value is cut short');
    let value = 0;
    for (let index = 0; index < bytesCount; index++) {
      value = value * 256 + (this.#bytes[offset + index] as number);
    }
    return value;
  }

  /** Offset of a key's value in the map at an offset; -1 when it is not there. */
  find(offset: number, key: string): number {
    this.#resolve(offset);
    if (this.#type !== TYPE_MAP) throw geoError(`no map to find "${key}" in`);
    let cursor = this.#content;
    for (let pairs = this.#size; pairs > 0; pairs--) {
      const value = this.#resolve(cursor);
      if (!this.#isString()) throw geoError('a map key is not a string');
      if (this.#contentIs(key)) return value;
      cursor = this.skip(value);
    }
    return -1;
  }

  /** Number at a key of the map at an offset. */
  findNumber(offset: number, key: string): number {
    const at = this.find(offset, key);
    if (at < 0) throw geoError(`its metadata lacks "${key}"`);
    this.#resolve(at);
    const known = [TYPE_UINT16, TYPE_UINT32, TYPE_UINT64].includes(this.#type) && this.#size <= 8;
    if (!known) throw geoError(`its metadata "${key}" is not a number`);
    return this.#number(this.#content, this.#size);
  }

  /** Text at a key of the map at an offset; empty when there is none. */
  findText(offset: number, key: string): string {
    const at = this.find(offset, key);
    if (at < 0) return '';
    this.#resolve(at);
    if (this.#type !== TYPE_STRING) return '';
    // The copy is needed: TextDecoder refuses shared memory.
    return new TextDecoder().decode(this.#bytes.slice(this.#content, this.#content + this.#size));
  }

  /** Number of pairs of the map at an offset. */
  isMap(offset: number): boolean {
    this.#resolve(offset);
    return this.#type === TYPE_MAP;
  }
}

/** Position of the last metadata marker. */
function findMarker(bytes: Uint8Array): number {
  const lowest = Math.max(0, bytes.length - METADATA_BYTES_MAX);
  for (let at = bytes.length - MARKER.length; at >= lowest; at--) {
    if (bytes[at] === MARKER[0] && MARKER.every((byte, index) => bytes[at + index] === byte)) {
      return at;
    }
  }
  throw geoError('no MaxMind metadata at its end: it is cut short, or not an MMDB file');
}

/** Reads and checks the metadata, and that tree and data section fit in the file. */
export function readMmdbMetadata(bytes: Uint8Array): MmdbMetadata {
  const dataEnd = findMarker(bytes);
  const root = dataEnd + MARKER.length;
  const reader = new DataReader(bytes, root, bytes.length);
  const major = reader.findNumber(root, 'binary_format_major_version');
  if (major !== 2) throw geoError(`format version ${major} is not supported, only 2`);
  const nodeCount = reader.findNumber(root, 'node_count');
  const recordSize = reader.findNumber(root, 'record_size');
  const ipVersion = reader.findNumber(root, 'ip_version');
  if (recordSize !== 24 && recordSize !== 28 && recordSize !== 32) {
    throw geoError(`record size ${recordSize} is not supported, only 24, 28 and 32`);
  }
  if (ipVersion !== 4 && ipVersion !== 6) throw geoError(`IP version ${ipVersion} is not 4 or 6`);
  const treeBytes = (nodeCount * recordSize) / 4;
  if (nodeCount === 0 || treeBytes + SEPARATOR_BYTES > dataEnd) {
    throw geoError(`${nodeCount} nodes do not fit in its ${bytes.length} bytes`);
  }
  for (let index = 0; index < SEPARATOR_BYTES; index++) {
    if (bytes[treeBytes + index] !== 0) throw geoError('tree and data are not separated by zeros');
  }
  const description = reader.find(root, 'description');
  const inEnglish = description >= 0 && reader.isMap(description);
  return {
    nodeCount,
    recordSize,
    ipVersion,
    buildEpoch: reader.findNumber(root, 'build_epoch'),
    databaseType: reader.findText(root, 'database_type'),
    description: inEnglish ? reader.findText(description, 'en') : '',
    treeBytes,
    dataEnd,
  };
}
