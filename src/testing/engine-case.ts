// What a case of the engine conformance suite is.

import type { EngineName, EngineOptions } from '../engine/proactor.ts';
import { raiseDescriptorLimit } from '../sys/rlimit.ts';
import type { EngineDriver } from './engine-driver.ts';
import { hasIpv6 } from './engine-peer.ts';

const DESCRIPTORS_BESIDE = 200;

export interface EngineCase {
  readonly name: string;
  readonly options?: Partial<EngineOptions>;
  /** Engines that may differ here, each with the reason. */
  readonly except?: Partial<Record<EngineName, string>>;
  /** What the machine lacks for it, '' when nothing. */
  lacks?(): string;
  run(driver: EngineDriver): Promise<void>;
}

export function lacksIpv6(): string {
  return hasIpv6() ? '' : 'there is no IPv6 loopback';
}

/** For a case that opens `count` descriptors; some more are in use already. */
export function lacksDescriptors(count: number): string {
  const needed = count + DESCRIPTORS_BESIDE;
  return raiseDescriptorLimit().soft >= needed
    ? ''
    : `fewer than ${needed} descriptors are allowed`;
}

/** `except` of the cases about pumps. */
export const NO_PUMP = { portable: 'node:net cannot splice, so canPump is false' };
