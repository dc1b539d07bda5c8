// Users and groups of this system by name or number (getpwnam(3), getgrnam(3): wherever the system keeps them), and the
// promise never to gain privileges by running a program (PR_SET_NO_NEW_PRIVS).

import { mapMemory, unmap } from './memory.ts';
import { bindNative, checked, num, viewNative } from './native.ts';

const TWO = ['pointer', 'pointer'] as const;
const FIVE = ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'] as const;
const PR_SET_NO_NEW_PRIVS = 38n;
const NAME_BYTES_MAX = 255;
// Offsets in struct passwd and struct group of 64-bit systems.
const PASSWD_UID = 16;
const PASSWD_GID = 20;
const PASSWD_BYTES = 24;
const GROUP_GID = 16;
const GROUP_BYTES = 20;

const calls = () =>
  bindNative({
    getpwnam: { arguments: TWO, return: 'pointer' },
    getpwuid: { arguments: TWO, return: 'pointer' },
    getgrnam: { arguments: TWO, return: 'pointer' },
  });

/** Calls a look-up with the name as the C string it wants, and copies `bytes` of the structure it points to. */
function lookUp(call: (...args: bigint[]) => bigint, name: string, bytes: number): DataView | null {
  const encoded = new TextEncoder().encode(name);
  if (encoded.length === 0 || encoded.length > NAME_BYTES_MAX) return null;
  const text = mapMemory(NAME_BYTES_MAX + 1, 'the name of an account');
  new Uint8Array(text.buffer).set(encoded);
  const found = call(text.address, 0n);
  const copy = found === 0n ? null : new DataView(viewNative(found, bytes).slice(0));
  unmap(text);
  return copy;
}

export interface User {
  readonly uid: number;
  /** Its primary group; null: a number that no account has. */
  readonly gid: number | null;
}

/** The account of this name; a number is an account too, known or not. Null: there is none. */
export function findUser(name: string): User | null {
  const { getpwnam, getpwuid } = calls();
  let found = lookUp(getpwnam, name, PASSWD_BYTES);
  if (found === null && /^\d{1,9}$/.test(name)) {
    const address = getpwuid(num(Number(name)), 0n);
    if (address === 0n) return { uid: Number(name), gid: null };
    found = new DataView(viewNative(address, PASSWD_BYTES).slice(0));
  }
  if (found === null) return null;
  return { uid: found.getUint32(PASSWD_UID, true), gid: found.getUint32(PASSWD_GID, true) };
}

/** The number of a group, by name or as a number; null: there is none. */
export function findGroup(name: string): number | null {
  const found = lookUp(calls().getgrnam, name, GROUP_BYTES);
  if (found !== null) return found.getUint32(GROUP_GID, true);
  return /^\d{1,9}$/.test(name) ? Number(name) : null;
}

/** For this thread and those it starts from now on, for ever (prctl(2)); 0 or -errno. */
export function forbidNewPrivileges(): number {
  const { prctl } = bindNative({ prctl: { arguments: FIVE, return: 'int32' } });
  return checked(prctl(PR_SET_NO_NEW_PRIVS, 1n, 0n, 0n, 0n));
}
