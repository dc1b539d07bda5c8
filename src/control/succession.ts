// How one run of the proxy follows another: where its listening sockets come from (a service manager, the process it takes
// over from, or itself), when it may accept on them, and to whom it passes them on.

import { setTimeout } from 'node:timers/promises';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { type Config, ConfigError } from '../config.ts';
import { type Listener, listenLate, openListeners, reserveListeners } from './listeners.ts';
import { isSameService, type ServiceNotifier, takePassedSockets } from './systemd.ts';
import type { ClaimedSockets, TakeoverClaim } from './takeover-claim.ts';
import type { TakeoverOffer } from './takeover-offer.ts';

const OFFER_RETRY_MS = 1000;

export class Succession {
  readonly #config: Config;
  readonly #logger: Logger;
  readonly #manager: ServiceNotifier;
  readonly #passed = takePassedSockets(process.env);
  /** Whether listeners are claimed and offered. */
  readonly #takesOver: boolean;
  // Both are loaded when they are needed: most starts follow nobody, and serve before they are followed.
  #claim: TakeoverClaim | null = null;
  #offer: TakeoverOffer | null = null;
  #withdrawn = false;

  constructor(config: Config, usesNative: boolean, manager: ServiceNotifier, logger: Logger) {
    this.#config = config;
    this.#logger = logger;
    this.#manager = manager;
    this.#takesOver = config.takeover && usesNative;
    if (this.#passed.length === 0 || usesNative) return;
    throw new ConfigError([
      `LISTEN_FDS passes sockets, which engine ${config.engine} cannot use here: it needs uring or epoll`,
    ]);
  }

  /** The listeners of the settings for `workers` workers. */
  async open(workers: number, usesNative: boolean): Promise<Listener[]> {
    const { listen, tcpFastOpen: fastOpen } = this.#config;
    if (!usesNative) return await reserveListeners(listen, workers);
    const claim = this.#takesOver ? (address: string) => this.#socketsAt(address) : null;
    return await openListeners(listen, { workers, fastOpen, passed: this.#passed, claim });
  }

  async #socketsAt(address: string): Promise<ClaimedSockets | string> {
    const { TakeoverClaim } = await import('./takeover-claim.ts');
    this.#claim ??= new TakeoverClaim(this.#logger);
    return await this.#claim.socketsAt(address);
  }

  /** Lets the workers accept, by `accept`, and the process before this one go. Up to then that one would serve on. */
  async takeOver(listeners: readonly Listener[], accept: () => void): Promise<void> {
    if (this.#claim === null || !this.#claim.isPending) return;
    this.#claim.confirm();
    listenLate(listeners);
    accept();
    const notify = await this.#claim.release();
    if (this.#manager.address === '') this.#manager.redirect(notify);
  }

  /**
   * Offers the listeners to the next process; `release` is called once that one accepts on them. Clients are served by now, who
   * may take every descriptor there is: then the offer waits for some to be free.
   */
  async offer(listeners: readonly Listener[], release: (pid: number) => void): Promise<void> {
    if (!this.#takesOver) return;
    for (let tries = 0; !this.#withdrawn; tries++) {
      try {
        await this.#offerNow(listeners, release);
        return;
      } catch (error) {
        if (tries === 0) {
          this.#logger.warn('The listeners cannot be offered to a new process yet', {
            reason: errorMessage(error),
          });
        }
      }
      await setTimeout(OFFER_RETRY_MS, undefined, { ref: false });
    }
  }

  async #offerNow(listeners: readonly Listener[], release: (pid: number) => void): Promise<void> {
    const { TakeoverOffer } = await import('./takeover-offer.ts');
    if (this.#withdrawn) return;
    const onTaken = async (pid: number): Promise<string> => {
      const notify = isSameService(pid) ? this.#manager.address : '';
      if (notify !== '') {
        await this.#manager.send({ MAINPID: pid });
        this.#manager.redirect('');
      }
      release(pid);
      return notify;
    };
    this.#offer = new TakeoverOffer({ listeners, logger: this.#logger, onTaken });
  }

  /** Offers nothing any more. */
  withdraw(): void {
    this.#withdrawn = true;
    this.#offer?.close();
  }
}
