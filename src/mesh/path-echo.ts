// ICMP and ICMPv6 echo messages (RFC 792, RFC 4443) as the probes of a path use them. What comes back is input from the
// network: every length is checked before a byte is read, and only what carries the nonce of this process is an answer.
//
//   type (8 | 128) | code 0 | checksum, 2 | identifier, 2 | sequence, 2 | nonce, 8 | slot, 4 | probe, 4 | zeros up to the size

const ECHO_REQUEST = { 4: 8, 6: 128 } as const;
const ECHO_REPLY = { 4: 0, 6: 129 } as const;
const CHECKSUM = 2;
const IDENTIFIER = 4;
const SEQUENCE = 6;
const NONCE = 8;
export const NONCE_BYTES = 8;
const SLOT = 16;
const PROBE = 20;
/** Smallest message. */
export const ECHO_BYTES_MIN = 24;
/** What IP puts before it. */
export const IP_BYTES = { 4: 20, 6: 40 } as const;

export interface Echo {
  readonly slot: number;
  /** Counts all probes of a slot, modulo 2^32. */
  readonly probe: number;
}

/** Sum of 16-bit words in one's complement (RFC 1071). */
function checksum(bytes: Uint8Array, end: number): number {
  let sum = 0;
  for (let at = 0; at + 1 < end; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  if (end % 2 === 1) sum += bytes[end - 1] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return ~sum & 0xffff;
}

/** The identifier of a slot's probes; a raw socket hears those of other programs too. */
function identifierOf(nonce: Uint8Array, slot: number): number {
  return (((nonce[0] << 8) | nonce[1]) ^ slot) & 0xffff;
}

/** Writes a request of `length` bytes at the start of `target`. */
export function writeEcho(
  target: Uint8Array,
  family: 4 | 6,
  nonce: Uint8Array,
  { slot, probe }: Echo,
  length: number,
): void {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  target.fill(0, 0, length);
  target[0] = ECHO_REQUEST[family];
  view.setUint16(IDENTIFIER, identifierOf(nonce, slot));
  view.setUint16(SEQUENCE, probe & 0xffff);
  target.set(nonce, NONCE);
  view.setUint32(SLOT, slot);
  view.setUint32(PROBE, probe);
  // Of ICMPv6 the kernel does it (RFC 3542): it covers addresses that are chosen there.
  if (family === 4) view.setUint16(CHECKSUM, checksum(target, length));
}

/** Bytes of the IPv4 header that a raw socket gives with a packet; -1 when it is none. */
export function ipv4HeaderBytes(packet: Uint8Array): number {
  if (packet.length < IP_BYTES[4] || packet[0] >> 4 !== 4) return -1;
  const bytes = (packet[0] & 0x0f) * 4;
  return bytes >= IP_BYTES[4] && bytes <= packet.length ? bytes : -1;
}

/** The probe that a message answers; null when it is no answer to one of ours. `isOwnId`: the kernel kept our identifier. */
export function readEcho(
  message: Uint8Array,
  family: 4 | 6,
  nonce: Uint8Array,
  isOwnId: boolean,
): Echo | null {
  if (message.length < ECHO_BYTES_MIN) return null;
  if (message[0] !== ECHO_REPLY[family] || message[1] !== 0) return null;
  for (let at = 0; at < NONCE_BYTES; at++) if (message[NONCE + at] !== nonce[at]) return null;
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const slot = view.getUint32(SLOT);
  const probe = view.getUint32(PROBE);
  if (view.getUint16(SEQUENCE) !== (probe & 0xffff)) return null;
  if (isOwnId && view.getUint16(IDENTIFIER) !== identifierOf(nonce, slot)) return null;
  // IPv4 leaves it to whoever reads a raw socket.
  if (family === 4 && checksum(message, message.length) !== 0) return null;
  return { slot, probe };
}
