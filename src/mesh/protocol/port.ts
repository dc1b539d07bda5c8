// What the protocol machine and the device process around it say to each other. The machine (device-machine.ts) holds the
// peers' secrets, handshakes and timers on the device's main thread; the data threads seal and open transport packets with
// the keypairs that the machine installs. Peers are small integers: rows of shared tables, 0 to `peersMax` - 1.
//
// Times are milliseconds of a monotonic clock. An endpoint is 18 bytes: the address (16, IPv4 as the IPv4-mapped IPv6
// address), then the port (2, network order). Nobody keeps a buffer that was handed over: whoever needs it later copies it.

import type { Prefix } from '../../sys/prefix.ts';

export const ENDPOINT_BYTES = 18;

/** Keys of one session. Both are zeroed when installKeys() returns. */
export interface KeyPair {
  /** The receiver index of packets to us: 32 random bits, unsigned, unique in the device. */
  readonly localIndex: number;
  /** The receiver index of packets to the peer, unsigned. */
  readonly remoteIndex: number;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly isInitiator: boolean;
  readonly createdAtMs: number;
  /** From this time on the data threads neither send nor receive with it, even if removeKeys() comes late. */
  readonly expiresAtMs: number;
  /**
   * `current`: packets to the peer are sealed with it from now on. `next`: only received with, until promoteKeys(); the
   * receiving thread may promote it by itself when the first authenticated packet has come.
   */
  readonly role: 'current' | 'next';
}

/** What the machine asks of the process around it. */
export interface DevicePort {
  /** Sends a handshake or cookie message. */
  sendMessage(endpoint: Uint8Array, message: Uint8Array): void;
  /** Row `peer` is taken: its counters start from 0 and its queue is empty. */
  addPeer(peer: number): void;
  /** Row `peer` is free again. Its keys have been removed before. */
  removePeer(peer: number): void;
  /** Transport packets go there from now on, from whatever local address the kernel chooses. */
  setEndpoint(peer: number, endpoint: Uint8Array): void;
  installKeys(peer: number, keypair: KeyPair): void;
  /** Packets to the peer are sealed with this keypair from now on. */
  promoteKeys(peer: number, localIndex: number): void;
  /** Zeroes the keypair. Without a current one, packets to the peer wait in its queue (the newest, a bounded number). */
  removeKeys(peer: number, localIndex: number): void;
  /** Sends the packets that wait for keys. */
  flushQueue(peer: number): void;
  /** Drops them: the peer could not be reached for 90 s. */
  dropQueue(peer: number): void;
  /** Sends the packets that wait for keys; an empty transport packet if there are none. */
  sendKeepalive(peer: number): void;
}

/** What the data threads noted about a peer since the last report. The object may be reused. */
export interface PeerActivity {
  /** A transport packet was sent, keepalives included. */
  sentAny: boolean;
  /** A transport packet was received and authenticated, keepalives included. */
  receivedAny: boolean;
  /** Data (no keepalive) was sent after the last authenticated packet had come: an answer is awaited. */
  sentUnanswered: boolean;
  /** Data (no keepalive) was received after the last packet was sent: an answer is owed. */
  receivedUnanswered: boolean;
  /** The local index of the keypair with which the first authenticated packet was received, or -1. Report it at once. */
  keysUsed: number;
  /** A packet waits and there are no keys to send it with. Report it at once; repeating it does no harm. */
  needsHandshake: boolean;
  /** Where the last authenticated packet came from if that is not the peer's endpoint, or null. */
  endpoint: Uint8Array | null;
}

/** The changing part of the world: clock and chance. */
export interface DeviceWorld {
  /** Fills the bytes with secure random ones. */
  random(bytes: Uint8Array): void;
  /** Unix time in milliseconds: stamps initiations, and says when the last handshake was. */
  unixMs(): number;
}

/** What a `set=1` of the UAPI says. What is undefined stays as it is. */
export interface DeviceChange {
  /** 32 bytes; all zero: none. */
  readonly privateKey?: Uint8Array;
  /** Removes all peers, with their sessions, before `peers` are applied. */
  readonly replacePeers?: boolean;
  /** Applied in order; a key may occur more than once. */
  readonly peers?: readonly PeerChange[];
}

export interface PeerChange {
  /** 32 bytes. A change for our own public key is passed over. */
  readonly publicKey: Uint8Array;
  readonly remove?: boolean;
  /** Changes nothing when there is no such peer. */
  readonly updateOnly?: boolean;
  /** 32 bytes; all zero: none. */
  readonly presharedKey?: Uint8Array;
  readonly endpoint?: Uint8Array;
  /** 0 to 65535; 0 = off. */
  readonly persistentKeepaliveSecs?: number;
  /** Empties the peer's list before `allowedIps` are added. */
  readonly replaceAllowedIps?: boolean;
  readonly allowedIps?: readonly Prefix[];
}

/** For a `get=1` of the UAPI. Listen port, firewall mark and byte counters are known to the process around. */
export interface DeviceState {
  readonly privateKey: Uint8Array | null;
  readonly peers: readonly PeerState[];
}

export interface PeerState {
  readonly peer: number;
  readonly publicKey: Uint8Array;
  /** All zero: none. */
  readonly presharedKey: Uint8Array;
  readonly endpoint: Uint8Array | null;
  /** 0 = never. */
  readonly lastHandshakeUnixMs: number;
  readonly persistentKeepaliveSecs: number;
  readonly allowedIps: readonly Prefix[];
}

/** All on the device's main thread; device-machine.ts makes one. */
export interface DeviceMachinePort {
  /** A datagram of type 1, 2 or 3; others, and whatever is wrong with it, are passed over in silence. */
  handleMessage(now: number, message: Uint8Array, source: Uint8Array): void;
  noteActivity(now: number, peer: number, activity: PeerActivity): void;
  /** Does what is due. */
  tick(now: number): void;
  /** When tick() is to be called, Infinity: nothing is due. Ask again after each other call. */
  nextDeadline(): number;
  /** Throws a RangeError, before anything has changed, when peers or prefixes exceed the tables. */
  configure(now: number, change: DeviceChange): void;
  state(): DeviceState;
}
