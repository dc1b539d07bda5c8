// What every command does with its result: text to standard output, problems to standard error, an
// exit code. 0 done, 1 failed, 2 the command line or a setting is wrong.

import { errorMessage, ProxyError } from '../base/errors.ts';

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/**
 * Failures that another command line would not have had. An unknown id is not one: the line was
 * well formed.
 */
const USAGE_CODES = new Set([
  'ERR_CONFIG',
  'ERR_USAGE',
  'ERR_BACKEND_INVALID',
  'ERR_ACCESS_INVALID',
  'ERR_PEER_INVALID',
]);

export function usageError(message: string): ProxyError {
  return new ProxyError('ERR_USAGE', message, { source: 'usage' });
}

export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

export function printProblem(text: string): void {
  process.stderr.write(`${text}\n`);
}

/**
 * Reports anything thrown and gives the exit code for it. What is not a ProxyError is a bug: it
 * keeps its stack.
 */
export function reportFailure(error: unknown): number {
  if (error instanceof ProxyError) {
    printProblem(error.message);
    return USAGE_CODES.has(error.code) ? EXIT_USAGE : EXIT_FAILED;
  }
  printProblem(error instanceof Error && error.stack ? error.stack : errorMessage(error));
  return EXIT_FAILED;
}

/** A reader that stops early (`| head`) is not a failure of ours. */
export function ignoreClosedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit(EXIT_DONE);
    });
  }
}
