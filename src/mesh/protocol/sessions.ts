// The keypairs of one peer (paper §6.3): the current one is sent with, the previous one is still received with, and the
// next one, which we made as responder, is received with and becomes current when the first packet has come on it, which
// shows that the initiator has it too. A keypair that is dropped, or expired, is zeroed by who was told so.

export interface Session {
  readonly localIndex: number;
  readonly isInitiator: boolean;
  readonly createdMs: number;
  readonly expiresMs: number;
}

export class Sessions {
  readonly #drop: (session: Session) => void;
  #previous: Session | null = null;
  #current: Session | null = null;
  #next: Session | null = null;

  constructor(drop: (session: Session) => void) {
    this.#drop = drop;
  }

  get current(): Session | null {
    return this.#current;
  }

  get next(): Session | null {
    return this.#next;
  }

  /** We were the initiator: the response has come. */
  addCurrent(session: Session): void {
    this.#dropOne(this.#previous);
    if (this.#next === null) {
      this.#previous = this.#current;
    } else {
      // Both ends had begun. The peer may send with this one already, but the response came for ours.
      this.#dropOne(this.#current);
      this.#previous = this.#next;
      this.#next = null;
    }
    this.#current = session;
  }

  /** We are the responder. */
  addNext(session: Session): void {
    this.#dropOne(this.#next);
    this.#next = session;
  }

  /** A packet came on this keypair: whether it was the next one, which is current now. */
  promote(localIndex: number): boolean {
    if (this.#next?.localIndex !== localIndex) return false;
    this.#dropOne(this.#previous);
    this.#previous = this.#current;
    this.#current = this.#next;
    this.#next = null;
    return true;
  }

  /** Drops what has expired. */
  expire(now: number): void {
    if (isOver(this.#previous, now)) this.#previous = this.#dropOne(this.#previous);
    if (isOver(this.#current, now)) this.#current = this.#dropOne(this.#current);
    if (isOver(this.#next, now)) this.#next = this.#dropOne(this.#next);
  }

  dropAll(): void {
    this.expire(Number.POSITIVE_INFINITY);
  }

  deadline(): number {
    return Math.min(endOf(this.#previous), endOf(this.#current), endOf(this.#next));
  }

  #dropOne(session: Session | null): null {
    if (session !== null) this.#drop(session);
    return null;
  }
}

function endOf(session: Session | null): number {
  return session === null ? Number.POSITIVE_INFINITY : session.expiresMs;
}

function isOver(session: Session | null, now: number): boolean {
  return now >= endOf(session);
}
