// The error type of the control plane: what a proxy must know about a failure to act on it.
// The data plane does not throw; there, results are numbers and negative is -errno.

export type ErrorSource = 'downstream' | 'upstream' | 'internal' | 'usage';
export type ErrorRetry = 'never' | 'always' | 'reused-only';

/** `code` is stable (`ERR_…`) and may be matched by callers; the message names action, value and state. */
export class ProxyError extends Error {
  readonly code: string;
  readonly source: ErrorSource;
  readonly retry: ErrorRetry;

  constructor(
    code: string,
    message: string,
    options: { source?: ErrorSource; retry?: ErrorRetry; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ProxyError';
    this.code = code;
    this.source = options.source ?? 'internal';
    this.retry = options.retry ?? 'never';
  }
}

/** The message of anything thrown, for log fields and one-line reports. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
