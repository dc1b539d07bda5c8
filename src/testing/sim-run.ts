// One simulated run from a seed, and what to say when a check fails.

import { SimFailure } from './sim-trace.ts';
import { SimWorld } from './sim-world.ts';

export interface SimResult {
  readonly seed: number;
  readonly accepted: number;
  /** Of all workers: STAT_… of proxy/stats.ts. */
  readonly totals: Float64Array;
  readonly steps: number;
  /** Over every event of the run: equal for equal runs. */
  readonly hash: string;
  /** Virtual milliseconds that passed. */
  readonly virtualMs: number;
  /** '' when everything held; else what did not, with the last events of the session. */
  readonly failure: string;
}

const TRACE_LINES = 40;

/** Runs `sessions` clients from `seed`; never throws for what the data plane does wrong. */
export function simulate(seed: number, sessions: number): SimResult {
  const world = new SimWorld(seed, sessions);
  let failure = '';
  try {
    world.run();
  } catch (error) {
    failure = describe(error, world, seed, sessions);
  }
  const totals = new Float64Array(world.workers[0]?.state.stats.totals.length ?? 0);
  for (const { state } of world.workers) {
    for (let stat = 0; stat < totals.length; stat++) totals[stat] += state.stats.totals[stat];
  }
  return {
    seed,
    totals,
    accepted: world.workers.reduce((sum, { engine }) => sum + engine.accepts.count, 0),
    steps: world.trace.step,
    hash: world.trace.hash(),
    virtualMs: world.network.clock[0] as number,
    failure,
  };
}

function describe(error: unknown, world: SimWorld, seed: number, sessions: number): string {
  const worker = error instanceof SimFailure ? error.worker : -1;
  const slot = error instanceof SimFailure ? error.slot : -1;
  const text = error instanceof Error ? error.message : String(error);
  const at = `step ${world.trace.step}, t=${(world.network.clock[0] as number).toFixed(3)} ms`;
  const where = slot < 0 ? '' : `, worker ${worker}, slot ${slot}`;
  const stack = error instanceof Error ? (error.stack ?? '').split('\n').slice(1, 9) : [];
  return [
    `${text} (seed ${seed}, ${at}${where})`,
    `Replay: npm run sim -- --seed ${seed} --sessions ${sessions}`,
    ...stack,
    'Last events:',
    ...world.trace.lines(worker, slot, TRACE_LINES),
  ].join('\n');
}
