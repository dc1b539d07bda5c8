// TAI64N labels (D. J. Bernstein, "TAI64, TAI64N, and TAI64NA"): the timestamp of a handshake initiation, by which the
// peer knows a replayed one (paper §5.1). Never goes back in the life of the process, even if the clock is set back.

export const TAI64N_BYTES = 12;
/** TAI of the Unix epoch: 2^62 + 10 s. Leap seconds since are left out, as everywhere in WireGuard. */
const EPOCH_HIGH = 0x4000_0000;
const EPOCH_SECS = 10;
/** The clock is told in steps of 2^24 ns (16.8 ms), so that it says little about us. */
const STEP_NANOS = 0x100_0000;
const NANOS_PER_SEC = 1_000_000_000;
/** The last step that begins within a second. */
const LAST_STEP_NANOS = Math.floor((NANOS_PER_SEC - 1) / STEP_NANOS) * STEP_NANOS;

/** The label of a Unix time in milliseconds; later than `last`, a label or all zeros, whatever the clock says. */
export function nextTai64n(unixMs: number, last: Uint8Array): Uint8Array {
  const label = new Uint8Array(TAI64N_BYTES);
  const whole = Math.max(0, Math.floor(unixMs));
  const nanos = (whole % 1000) * 1_000_000;
  write(label, Math.floor(whole / 1000) + EPOCH_SECS, nanos - (nanos % STEP_NANOS));
  if (isLater(label, last)) return label;
  const view = new DataView(last.buffer, last.byteOffset, TAI64N_BYTES);
  const lastNanos = view.getUint32(8);
  const secs = (view.getUint32(0) - EPOCH_HIGH) * 2 ** 32 + view.getUint32(4);
  if (lastNanos < LAST_STEP_NANOS) write(label, secs, lastNanos + STEP_NANOS);
  else write(label, secs + 1, 0);
  return label;
}

function write(label: Uint8Array, secs: number, nanos: number): void {
  const view = new DataView(label.buffer);
  view.setUint32(0, EPOCH_HIGH + Math.floor(secs / 2 ** 32));
  view.setUint32(4, secs % 2 ** 32);
  view.setUint32(8, nanos);
}

/** Whether label `a` is later than `b`: they sort as their bytes do. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let at = 0; at < TAI64N_BYTES; at++) if (a[at] !== b[at]) return a[at] > b[at];
  return false;
}
