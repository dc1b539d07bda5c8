// How the user can call this program, for lines that say what to type.

import { existsSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';

/** By name where it is on PATH, else by its path from the current directory. */
export function commandName(): string {
  const directories = (process.env.PATH ?? '').split(delimiter).filter((name) => name !== '');
  if (directories.some((directory) => existsSync(join(directory, 'edgeproxy')))) {
    return 'edgeproxy';
  }
  // Beside the folder of the program's main file, wherever that has been built to.
  const absolute = join(dirname(process.argv[1] ?? ''), '../bin/edgeproxy');
  const path = relative(process.cwd(), absolute);
  if (path.length > absolute.length) return absolute;
  return path.startsWith('.') || path.startsWith('/') ? path : `./${path}`;
}
