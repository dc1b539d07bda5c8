// The files that mend findings: one for sysctl, one for systemd, one for logins. Nothing here writes: see the command.

import type { Finding } from './finding.ts';

export interface FixFile {
  readonly path: string;
  readonly content: string;
  /** What makes it effective now. */
  readonly apply: readonly (readonly string[])[];
}

const HEADER = '# Written by edgeproxy doctor --fix\n';

/** Only what findings ask for; none when nothing is to be mended by a file. */
export function fixFiles(findings: readonly Finding[]): FixFile[] {
  const files: FixFile[] = [];
  const lines = new Map<string, string>();
  let descriptors = 0;
  for (const { status, remedy } of findings) {
    if (status === 'ok' || remedy === undefined) continue;
    if (remedy.kind === 'sysctl') lines.set(remedy.key, remedy.value);
    if (remedy.kind === 'descriptors') descriptors = Math.max(descriptors, remedy.count);
  }
  if (descriptors > 0) {
    // A process may not have more descriptors than the kernel gives out to one.
    lines.set('fs.nr_open', String(Math.max(descriptors, 1_048_576)));
    files.push({
      path: '/etc/systemd/system/edgeproxy.service.d/60-limits.conf',
      content: `${HEADER}[Service]\nLimitNOFILE=${descriptors}\n`,
      apply: [['systemctl', 'daemon-reload']],
    });
    files.push({
      path: '/etc/security/limits.d/60-edgeproxy.conf',
      content: `${HEADER}* soft nofile ${descriptors}\n* hard nofile ${descriptors}\n`,
      apply: [],
    });
  }
  if (lines.size > 0) {
    const path = '/etc/sysctl.d/60-edgeproxy.conf';
    const body = [...lines].map(([key, value]) => `${key} = ${value}\n`).join('');
    files.unshift({ path, content: HEADER + body, apply: [['sysctl', '-p', path]] });
  }
  return files;
}
