// `edgeproxy run`: settings, logger, and the proxy itself.

import { createLogger } from '../base/log.ts';
import { type ConfigFlags, loadConfig } from '../config.ts';
import { EarlyThreads } from '../control/worker-threads.ts';

/** Ends with the exit code once the proxy has stopped. */
export async function run(flags: ConfigFlags): Promise<number> {
  const config = loadConfig(flags, process.env);
  const threads = new EarlyThreads(config);
  const logger = createLogger({ level: config.log });
  for (const warning of config.warnings) logger.warn(warning);
  const { runProxy } = await import('../control/supervisor.ts');
  return runProxy(config, logger, threads);
}
