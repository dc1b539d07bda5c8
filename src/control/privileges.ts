// EDGEPROXY_USER: a start as root, for ports below 1024, and everything after that as an ordinary user. What the proxy
// needs later (routing.db, country data, the admin address) it opens as that user, from the start.

import { closeSync, openSync } from 'node:fs';
import { errorMessage, ProxyError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { ConfigError } from '../config.ts';
import { findGroup, findUser, forbidNewPrivileges } from '../sys/accounts.ts';
import { errnoName } from '../sys/errno.ts';
import { nativeRefusal } from '../sys/native.ts';

/** process.initgroups(), which the types do not know. */
const system = process as unknown as { initgroups(user: number, group: number): void };

export interface Account {
  /** As the setting has it. */
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  /** Whether the system knows the user, so that it has further groups. */
  readonly isKnown: boolean;
}

/** The account that `NAME[:GROUP]` means. Throws ConfigError: it does not exist, or this process may not become it. */
export function findAccount(setting: string): Account {
  const refuse = (reason: string): never => {
    throw new ConfigError([`EDGEPROXY_USER is "${setting}", ${reason}`]);
  };
  if (nativeRefusal !== '') return refuse(`which is not possible here: ${nativeRefusal}`);
  const [name, group] = setting.split(':') as [string, string | undefined];
  const user = findUser(name);
  if (user === null) return refuse(`allowed: a user of this system, there is no "${name}"`);
  const gid = group === undefined ? user.gid : findGroup(group);
  if (gid === null) {
    return refuse(
      group === undefined
        ? `allowed: ${name}:GROUP, because user ${name} has no account that says its group`
        : `allowed: a group of this system, there is no "${group}"`,
    );
  }
  const own = process.geteuid?.();
  if (own !== 0 && own !== user.uid) {
    return refuse(`which only root may become: this process was started by user ${own}`);
  }
  return { name: setting, uid: user.uid, gid, isKnown: user.gid !== null };
}

/**
 * Becomes the account, in all threads and for good. Threads that start later can gain nothing by running a program either.
 */
export function becomeAccount(account: Account, logger: Logger): void {
  const { name, uid, gid, isKnown } = account;
  const result = forbidNewPrivileges();
  if (result < 0) logger.warn('New privileges cannot be forbidden', { reason: errnoName(result) });
  // Started by that user already: nothing to give up.
  if (process.geteuid?.() !== 0) return;
  try {
    if (isKnown) system.initgroups(uid, gid);
    else process.setgroups?.([gid]);
    process.setgid?.(gid);
    process.setuid?.(uid);
  } catch (error) {
    throw new ProxyError('ERR_USER', `Cannot become user "${name}": ${errorMessage(error)}`);
  }
  const ids = [process.getuid?.(), process.geteuid?.(), process.getgid?.(), process.getegid?.()];
  const became = [uid, uid, gid, gid];
  if (ids.join() === became.join() && (uid === 0 || !canBecomeRoot())) return;
  throw new ProxyError('ERR_USER', `Cannot become user "${name}": still ${ids.join(', ')}`);
}

function canBecomeRoot(): boolean {
  try {
    process.setuid?.(0);
    return true;
  } catch {
    return false;
  }
}

/** Fails now, with the reason, when the account may not read a file that root may. */
export function checkReadable(path: string, what: string, { name }: Account): void {
  try {
    closeSync(openSync(path, 'r'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM') return;
    throw new ProxyError(
      'ERR_USER',
      `Cannot read ${what} "${path}" as user "${name}" (EDGEPROXY_USER): ${code}; ` +
        'let that user read the file and enter its directory',
    );
  }
}
