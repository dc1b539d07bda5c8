// How the user can call this program, for lines that say what to type.

import { existsSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** By name where it is on PATH, else by its path from the current directory. */
export function commandName(): string {
  const directories = (process.env.PATH ?? '').split(delimiter).filter((name) => name !== '');
  if (directories.some((directory) => existsSync(join(directory, 'edgeproxy')))) {
    return 'edgeproxy';
  }
  const here = dirname(fileURLToPath(import.meta.url));
  const absolute = join(here, '../../bin/edgeproxy');
  const path = relative(process.cwd(), absolute);
  if (path.length > absolute.length) return absolute;
  return path.startsWith('.') || path.startsWith('/') ? path : `./${path}`;
}
