// What a proxy and the new one that takes its place say to each other, on unix sockets that keep messages apart.
//
//   new                                           old
//    ├── connects to the name of an address ──────▶│ one at a time, of the same user or root
//    │◀─ offer: how many sockets ─────────────────┤ (or refused: why)
//    │◀─ sockets: up to PASSED_MAX of them ───────┤ (as often as it takes)
//    │   … reads its data, starts its workers …    │ serves on; gives up on EOF or after READY_MS_MAX (expired)
//    ├── ready: it accepts ───────────────────────▶│ stops accepting, gives up names and admin address, drains
//    │◀─ released ────────────────────────────────┤

/** Of the messages and their order. Whoever meets another one leaves the other alone. */
const TAKEOVER_VERSION = 1;
/** How long the old one waits for `ready`; then its offer stands again. */
export const READY_MS_MAX = 30_000;

const PROTOCOL = 'edgeproxy-takeover';

export type TakeoverMessage =
  | { readonly type: 'offer'; readonly sockets: number }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'sockets' }
  | { readonly type: 'expired' }
  | { readonly type: 'ready' }
  /** `notify`: where to tell the service manager from now on, '' = nowhere. */
  | { readonly type: 'released'; readonly notify: string };

/** The abstract name under which the listener at `address` (1.2.3.4:80, [::]:80) is offered. */
export function takeoverName(address: string): string {
  return `@${PROTOCOL}/${address}`;
}

export function encodeMessage(message: TakeoverMessage): string {
  return JSON.stringify({ protocol: PROTOCOL, version: TAKEOVER_VERSION, ...message });
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) > 0;
}

/** The message, or what is wrong with it: the other end may be of another version, or anything. */
export function decodeMessage(text: string): TakeoverMessage | string {
  let value: Record<string, unknown> | null;
  try {
    value = JSON.parse(text) as Record<string, unknown> | null;
  } catch {
    return 'it says something else';
  }
  if (typeof value !== 'object' || value?.protocol !== PROTOCOL) return 'it says something else';
  if (value.version !== TAKEOVER_VERSION) {
    return `it speaks version ${value.version} of the takeover, this one ${TAKEOVER_VERSION}`;
  }
  switch (value.type) {
    case 'offer':
      if (isCount(value.sockets)) return { type: 'offer', sockets: Number(value.sockets) };
      break;
    case 'refused':
      return { type: 'refused', reason: String(value.reason) };
    case 'released':
      return { type: 'released', notify: String(value.notify ?? '') };
    case 'sockets':
    case 'expired':
    case 'ready':
      return { type: value.type };
  }
  return 'it says something else';
}
