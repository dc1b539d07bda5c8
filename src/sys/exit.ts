// The end of a process without the teardown of its threads.

import { bindNative, num } from './native.ts';

/**
 * Ends the process at once (_exit(2)): no handler runs, nothing is torn down, and the kernel takes all back. Node 26 frees
 * what V8 knows of native functions when a thread ends; if one of their callers is just being compiled, that ends the process
 * by SIGTRAP.
 */
export function exitNow(code: number): never {
  const { _exit } = bindNative({ _exit: { arguments: ['pointer', 'pointer'], return: 'int32' } });
  _exit(num(code), 0n);
  throw new Error('_exit returned');
}
