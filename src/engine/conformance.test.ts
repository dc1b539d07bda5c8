// One suite for every engine: each case of the tables in testing/engine-cases-….ts on real sockets, on a fresh engine.
// After each case the driver checks what the interface promises at all times (see testing/engine-driver.ts).

import { test } from 'node:test';
import type { EngineCase } from '../testing/engine-case.ts';
import { BESIDE_CASES } from '../testing/engine-cases-beside.ts';
import { CLOSE_CASES } from '../testing/engine-cases-close.ts';
import { LIMIT_CASES } from '../testing/engine-cases-limits.ts';
import { OPEN_CASES } from '../testing/engine-cases-open.ts';
import { PUMP_CASES } from '../testing/engine-cases-pump.ts';
import { RECEIVE_CASES } from '../testing/engine-cases-receive.ts';
import { SEND_CASES } from '../testing/engine-cases-send.ts';
import { WRITE_CASES } from '../testing/engine-cases-write.ts';
import { ENGINE_KINDS, EngineDriver, type EngineKind } from '../testing/engine-driver.ts';
import { startWatchdog } from '../testing/engine-watchdog.ts';
import { skipReason } from '../testing/netns.ts';

const watch = startWatchdog();

const CASES: readonly EngineCase[] = [
  ...OPEN_CASES,
  ...RECEIVE_CASES,
  ...SEND_CASES,
  ...WRITE_CASES,
  ...CLOSE_CASES,
  ...PUMP_CASES,
  ...BESIDE_CASES,
  ...LIMIT_CASES,
];

async function runCase(kind: EngineKind, { options = {}, run }: EngineCase): Promise<void> {
  const driver = new EngineDriver(kind, options);
  try {
    await run(driver);
    await driver.finish();
  } finally {
    driver.end();
  }
  await driver.checkDescriptors();
}

for (const kind of ENGINE_KINDS) {
  for (const oneCase of CASES) {
    const problem = kind.refusal || oneCase.lacks?.() || '';
    const skip = problem === '' ? (oneCase.except?.[kind.name] ?? false) : skipReason(problem);
    test(`${kind.name}: ${oneCase.name}`, { skip }, () => {
      watch(`${kind.name}: ${oneCase.name}`);
      return runCase(kind, oneCase);
    });
  }
}
