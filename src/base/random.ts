// Random words for seeds and marks, from the kernel. node:crypto has them too, but loading it is a twentieth of the start.

import { closeSync, openSync, readSync } from 'node:fs';

/** Whole numbers below 2^32 that nobody can foretell. */
export function randomWords(count: number): Uint32Array {
  const words = new Uint32Array(count);
  try {
    const device = openSync('/dev/urandom', 'r');
    try {
      if (readSync(device, words) === words.byteLength) return words;
    } finally {
      closeSync(device);
    }
  } catch {
    // A system, or a chroot, without it.
  }
  return process.getBuiltinModule('node:crypto').getRandomValues(words);
}
