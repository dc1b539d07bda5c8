// Runs a program under a seccomp filter that refuses io_uring, as the default profiles of container engines do. Perl sets
// the filter (prctl(2), seccomp(2)) and then becomes the program; it is part of every Debian.

import { spawnSync } from 'node:child_process';

/** The number is the same on all architectures; that of prctl(2) is not. */
const IO_URING_SETUP = 425;
const PRCTL = process.arch === 'arm64' ? 167 : 157;

const SCRIPT = `
my ($error, @command) = @ARGV;
# Loads the number of the call; io_uring_setup fails with the error, others are allowed.
my $filter = pack('SCCL' x 4, 0x20, 0, 0, 0, 0x15, 0, 1, ${IO_URING_SETUP}, 0x06, 0, 0, 0x50000 | $error, 0x06, 0, 0, 0x7fff0000);
my $program = pack('S x6 P', 4, $filter);
syscall(${PRCTL}, 38, 1, 0, 0, 0) == 0 or die "PR_SET_NO_NEW_PRIVS: $!";
syscall(${PRCTL}, 22, 2, $program) == 0 or die "PR_SET_SECCOMP: $!";
exec @command or die "exec: $!";
`;

/** The command line to put before another: it runs with io_uring_setup(2) failing with `errno`. */
export function refusingUring(errno: number): string[] {
  return ['perl', '-e', SCRIPT, String(errno)];
}

/** Why no filter can be set here, '' when one can. */
export function seccompProblem(): string {
  const [command = '', ...args] = refusingUring(1);
  const { status, stderr } = spawnSync(command, [...args, 'true'], { encoding: 'utf8' });
  return status === 0 ? '' : `perl cannot set a seccomp filter: ${(stderr || 'no perl').trim()}`;
}
