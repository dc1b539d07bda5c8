// Layout of the messages of WireGuard (paper §5.4), named once. A parser checks type, reserved bytes and exact length
// before anything else is read; after it every field may be taken by its offset. Numbers are little-endian.
//
//   initiation (148)  type 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16
//   response (92)     type 4 | sender 4 | receiver 4 | ephemeral 32 | empty 0+16 | mac1 16 | mac2 16
//   cookie reply (64) type 4 | receiver 4 | nonce 24 | cookie 16+16
//   transport (>= 32) type 4 | receiver 4 | counter 8 | packet n+16

export const INITIATION = {
  type: 1,
  sender: 4,
  ephemeral: 8,
  static: 40,
  timestamp: 88,
  mac1: 116,
  mac2: 132,
  bytes: 148,
} as const;

export const RESPONSE = {
  type: 2,
  sender: 4,
  receiver: 8,
  ephemeral: 12,
  empty: 44,
  mac1: 60,
  mac2: 76,
  bytes: 92,
} as const;

export const COOKIE_REPLY = { type: 3, receiver: 4, nonce: 8, cookie: 32, bytes: 64 } as const;

/** The device's data threads parse these by themselves; `bytes` is the length of a keepalive. */
export const TRANSPORT = { type: 4, receiver: 4, counter: 8, packet: 16, bytes: 32 } as const;

type HandshakeType = 1 | 2 | 3;

const BYTES: Readonly<Record<number, number>> = {
  [INITIATION.type]: INITIATION.bytes,
  [RESPONSE.type]: RESPONSE.bytes,
  [COOKIE_REPLY.type]: COOKIE_REPLY.bytes,
};

/** The type of a whole handshake or cookie message, or 0 when it is none. */
export function handshakeType(message: Uint8Array): HandshakeType | 0 {
  if (message.length < 4 || message[1] !== 0 || message[2] !== 0 || message[3] !== 0) return 0;
  return message.length === BYTES[message[0]] ? (message[0] as HandshakeType) : 0;
}

/** A copy of a field. */
export function field(message: Uint8Array, at: number, bytes: number): Uint8Array {
  return message.slice(at, at + bytes);
}

/** An index, unsigned. */
export function readIndex(message: Uint8Array, at: number): number {
  return (
    (message[at] | (message[at + 1] << 8) | (message[at + 2] << 16) | (message[at + 3] << 24)) >>> 0
  );
}

export function writeIndex(message: Uint8Array, at: number, index: number): void {
  for (let byte = 0; byte < 4; byte++) message[at + byte] = index >>> (8 * byte);
}
