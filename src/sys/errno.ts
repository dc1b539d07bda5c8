// Linux error numbers: names for people, constants for code, and the classes a proxy acts on.
// Source: errno(3) and include/uapi/asm-generic/errno*.h. Kernel results are negative; these constants are positive.

export const EPERM = 1;
export const EINTR = 4;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EBUSY = 16;
export const EINVAL = 22;
export const ENFILE = 23;
export const EMFILE = 24;
export const EPIPE = 32;
export const ENOSYS = 38;
const ETIME = 62;
export const EPROTO = 71;
const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETUNREACH = 101;
export const ECONNABORTED = 103;
export const ECONNRESET = 104;
export const ENOBUFS = 105;
export const ENOTCONN = 107;
export const ETIMEDOUT = 110;
export const ECONNREFUSED = 111;
export const EHOSTUNREACH = 113;
const EALREADY = 114;
export const EINPROGRESS = 115;
export const ECANCELED = 125;

const NAMES = new Map<number, string>([
  [EPERM, 'EPERM'],
  [2, 'ENOENT'],
  [EINTR, 'EINTR'],
  [5, 'EIO'],
  [9, 'EBADF'],
  [EAGAIN, 'EAGAIN'],
  [ENOMEM, 'ENOMEM'],
  [EACCES, 'EACCES'],
  [14, 'EFAULT'],
  [EBUSY, 'EBUSY'],
  [17, 'EEXIST'],
  [EINVAL, 'EINVAL'],
  [ENFILE, 'ENFILE'],
  [EMFILE, 'EMFILE'],
  [28, 'ENOSPC'],
  [EPIPE, 'EPIPE'],
  [ENOSYS, 'ENOSYS'],
  [ETIME, 'ETIME'],
  [EPROTO, 'EPROTO'],
  [75, 'EOVERFLOW'],
  [88, 'ENOTSOCK'],
  [90, 'EMSGSIZE'],
  [92, 'ENOPROTOOPT'],
  [EOPNOTSUPP, 'EOPNOTSUPP'],
  [97, 'EAFNOSUPPORT'],
  [EADDRINUSE, 'EADDRINUSE'],
  [EADDRNOTAVAIL, 'EADDRNOTAVAIL'],
  [100, 'ENETDOWN'],
  [ENETUNREACH, 'ENETUNREACH'],
  [ECONNABORTED, 'ECONNABORTED'],
  [ECONNRESET, 'ECONNRESET'],
  [ENOBUFS, 'ENOBUFS'],
  [106, 'EISCONN'],
  [ENOTCONN, 'ENOTCONN'],
  [ETIMEDOUT, 'ETIMEDOUT'],
  [ECONNREFUSED, 'ECONNREFUSED'],
  [112, 'EHOSTDOWN'],
  [EHOSTUNREACH, 'EHOSTUNREACH'],
  [EALREADY, 'EALREADY'],
  [EINPROGRESS, 'EINPROGRESS'],
  [ECANCELED, 'ECANCELED'],
]);

/** `-111` or `111` → `ECONNREFUSED`; an unknown number → `errno 200`. */
export function errnoName(result: number): string {
  const number = Math.abs(result);
  return NAMES.get(number) ?? `errno ${number}`;
}

/** accept(2) failed because of the connection at hand, which is gone or was refused by a firewall; the next may do. */
export function isConnectionError(result: number): boolean {
  switch (-result) {
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case EOPNOTSUPP:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

const NUMBERS = new Map([...NAMES].map(([number, name]) => [name, number]));

/** The Linux -errno of an error of Node's, by its code: numbers differ between systems, names do not. */
export function errnoOf(error: { readonly code?: string } | Error): number {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return -(NUMBERS.get(code) ?? ECONNRESET);
}
