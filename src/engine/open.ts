// Chooses the engine of a worker: the one asked for, or with `auto` the fastest that works here, and says why not a faster.

import { errnoName } from '../sys/errno.ts';
import { nativeRefusal } from '../sys/native.ts';
import { explainRefusal } from '../sys/uring.ts';
import { EpollEngine } from './epoll.ts';
import { PortableEngine } from './portable.ts';
import type { EngineOptions } from './proactor.ts';
import { UringEngine } from './uring.ts';

export type EngineChoice = 'auto' | 'uring' | 'epoll' | 'portable';

/** An open engine, or null. `refusal` says why the choice, or the faster engine before the one chosen, was not possible. */
export interface EngineOpening {
  readonly engine: UringEngine | EpollEngine | PortableEngine | null;
  readonly refusal: string;
}

/** Whether a worker with this choice works on descriptors (eventfd, listening sockets) through native calls. */
export function usesNative(choice: EngineChoice): boolean {
  return choice !== 'portable' && nativeRefusal === '';
}

export function openEngine(choice: EngineChoice, options: EngineOptions): EngineOpening {
  if (!usesNative(choice)) {
    const refusal = choice === 'portable' ? '' : nativeRefusal;
    if (choice !== 'auto' && choice !== 'portable') return { engine: null, refusal };
    return { engine: new PortableEngine(options), refusal };
  }
  let refusal = '';
  if (choice !== 'epoll') {
    const engine = UringEngine.open(options);
    if (typeof engine !== 'number') return { engine, refusal: '' };
    refusal = explainRefusal(engine);
    if (choice === 'uring') return { engine: null, refusal };
  }
  const engine = EpollEngine.open(options);
  if (typeof engine !== 'number') return { engine, refusal };
  return { engine: null, refusal: `epoll cannot be set up (${errnoName(engine)})` };
}
