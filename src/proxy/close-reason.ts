// Why a session ended, and why a connection was turned away before it became one. Every session ends with exactly one
// reason; the names are label values of edge_session_end_total and edge_rejected_total, and stay stable.

export const REASON_NONE = 0;
export const REASON_COMPLETED = 1;
export const REASON_CLIENT_RESET = 2;
export const REASON_BACKEND_RESET = 3;
export const REASON_CLIENT_LOST = 4;
export const REASON_BACKEND_LOST = 5;
export const REASON_IDLE_TIMEOUT = 6;
export const REASON_HALF_CLOSED_TIMEOUT = 7;
export const REASON_CONNECT_FAILED = 8;
export const REASON_CONNECT_TIMEOUT = 9;
export const REASON_NO_DESCRIPTORS = 10;
export const REASON_SHUTDOWN = 11;
export const REASON_WORKER_LOST = 12;
export const REASON_BUFFERS_EXHAUSTED = 13;
export const REASON_DRAINED = 14;

export interface ReasonText {
  readonly name: string;
  readonly help: string;
}

/** By reason number. */
export const CLOSE_REASONS: readonly ReasonText[] = [
  { name: 'none', help: 'Not ended' },
  { name: 'completed', help: 'Both sides closed, everything was delivered' },
  { name: 'client_reset', help: 'The client sent RST or vanished while bytes were on their way' },
  { name: 'backend_reset', help: 'The backend sent RST; the client got one too' },
  { name: 'client_lost', help: 'The client stopped answering (keepalive or TCP_USER_TIMEOUT)' },
  { name: 'backend_lost', help: 'The backend stopped answering (keepalive or TCP_USER_TIMEOUT)' },
  { name: 'idle_timeout', help: 'No byte in either direction for the idle timeout' },
  { name: 'half_closed_timeout', help: 'One side had closed and the other stayed silent' },
  { name: 'connect_failed', help: 'Every backend tried refused or was unreachable' },
  { name: 'connect_timeout', help: 'The last backend tried did not answer in time' },
  { name: 'no_descriptors', help: 'No socket to the backend: descriptors or memory ran out' },
  { name: 'shutdown', help: 'Still open at the shutdown deadline' },
  { name: 'worker_lost', help: 'The worker serving it died' },
  {
    name: 'buffers_exhausted',
    help: 'All buffers were in use and this session had waited longest for its peer to read',
  },
  { name: 'drained', help: 'Still open when the drain of its backend was to be over' },
];

/**
 * A connection that is turned away while it has a slot already (STATE_HEADER) ends for REJECTED + its rejection number:
 * the counters of rejections follow those of close reasons, so STAT_END + that is STAT_REJECTED + the number.
 */
export const REJECTED = 32;

export const REJECT_NO_BACKEND = 0;
export const REJECT_HARD_LIMIT = 1;
export const REJECT_MAX_CONNECTIONS = 2;
export const REJECT_CLIENT_GONE = 3;
export const REJECT_RATE_LIMITED = 4;
export const REJECT_CLIENT_SESSIONS = 5;
export const REJECT_ACCESS_DENIED = 6;
export const REJECT_PROXY_HEADER_INVALID = 7;
export const REJECT_PROXY_HEADER_TIMEOUT = 8;

/** By rejection number. */
export const REJECT_REASONS: readonly ReasonText[] = [
  { name: 'no_backend', help: 'No backend of the app may take a new client' },
  { name: 'hard_limit', help: 'Every backend that could take it is at its hard limit' },
  { name: 'max_connections', help: 'No session slot was free' },
  { name: 'client_gone', help: 'The client had left before it was accepted, or named' },
  { name: 'rate_limited', help: 'The client address opens connections faster than allowed' },
  { name: 'client_sessions', help: 'The client address has as many sessions as allowed' },
  { name: 'access_denied', help: 'The access list denies the client address' },
  { name: 'proxy_header_invalid', help: 'A trusted proxy sent no valid PROXY header' },
  { name: 'proxy_header_timeout', help: 'A trusted proxy did not send its PROXY header in time' },
];
