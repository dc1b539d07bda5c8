// Which owner each prefix has; a prefix has one. Plain maps, for the machine's own use and to try a change out.

import { formatPrefix, type Prefix } from '../../sys/prefix.ts';

export class PrefixOwners<Owner> {
  readonly #owners = new Map<string, Owner>();
  readonly #prefixes = new Map<Owner, Map<string, Prefix>>();

  /** How many prefixes there are. */
  get size(): number {
    return this.#owners.size;
  }

  has(prefix: Prefix): boolean {
    return this.#owners.has(formatPrefix(prefix));
  }

  /** Gives a prefix to an owner, taking it from whom it was. Given again it comes last. */
  set(prefix: Prefix, owner: Owner): void {
    const name = formatPrefix(prefix);
    const before = this.#owners.get(name);
    if (before !== undefined) this.#prefixes.get(before)?.delete(name);
    this.#owners.set(name, owner);
    const own = this.#prefixes.get(owner);
    if (own === undefined) this.#prefixes.set(owner, new Map([[name, prefix]]));
    else own.set(name, prefix);
  }

  removeOwner(owner: Owner): void {
    for (const name of this.#prefixes.get(owner)?.keys() ?? []) this.#owners.delete(name);
    this.#prefixes.delete(owner);
  }

  of(owner: Owner): Prefix[] {
    return [...(this.#prefixes.get(owner)?.values() ?? [])];
  }

  *all(): Generator<readonly [Owner, Prefix]> {
    for (const [owner, prefixes] of this.#prefixes) {
      for (const prefix of prefixes.values()) yield [owner, prefix];
    }
  }
}
