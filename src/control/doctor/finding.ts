// What the doctor says about one thing: how it is, what it should be for this configuration, why, and what would mend it.

/** `fail`: something breaks under the configured limits. `warn`: it costs or surprises. `unknown`: not to be seen from here. */
export type FindingStatus = 'ok' | 'warn' | 'fail' | 'unknown';

/** What mends a finding. */
export type Remedy =
  /** A line of a sysctl.d file. */
  | { readonly kind: 'sysctl'; readonly key: string; readonly value: string }
  /** Open files: systemd's LimitNOFILE and limits.conf's nofile. */
  | { readonly kind: 'descriptors'; readonly count: number }
  /** Something only a person can do, or decide. */
  | { readonly kind: 'advice'; readonly text: string };

export interface Finding {
  /** Stable, for scripts: `descriptors`, `somaxconn`. */
  readonly check: string;
  readonly status: FindingStatus;
  /** One sentence: how it is, and how it should be. */
  readonly text: string;
  readonly remedy?: Remedy;
}

export function ok(check: string, text: string): Finding {
  return { check, status: 'ok', text };
}

export function advice(text: string): Remedy {
  return { kind: 'advice', text };
}

export function sysctl(key: string, value: string | number): Remedy {
  return { kind: 'sysctl', key, value: String(value) };
}
