// The entry point: a plain `run` line goes straight to the proxy, everything else through
// commander.

import { plainRunFlags } from './cli/flags.ts';
import { ignoreClosedOutput, reportFailure } from './cli/output.ts';
import { run } from './cli/run.ts';

const argv = process.argv.slice(2);

async function main(): Promise<number> {
  try {
    const flags = argv[0] === 'run' ? plainRunFlags(argv.slice(1)) : null;
    if (flags) return await run(flags);
    ignoreClosedOutput();
    const { runCommand } = await import('./cli/program.ts');
    return await runCommand(argv);
  } catch (error) {
    return reportFailure(error);
  }
}

// Not process.exit: it would cut off output that is still on its way to a pipe.
process.exitCode = await main();
