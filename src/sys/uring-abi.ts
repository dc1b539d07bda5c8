// The kernel's words for io_uring: opcodes, flags and structure offsets (io_uring(7), include/uapi/linux/io_uring.h).
// Offsets into a submission entry (SQE, 64 bytes) and a completion entry (CQE, 16 bytes) are in 32-bit words.

export const IORING_OP_POLL_ADD = 6;
export const IORING_OP_TIMEOUT = 11;
export const IORING_OP_ACCEPT = 13;
export const IORING_OP_ASYNC_CANCEL = 14;
export const IORING_OP_CONNECT = 16;
export const IORING_OP_CLOSE = 19;
export const IORING_OP_READ = 22;
export const IORING_OP_SEND = 26;
export const IORING_OP_RECV = 27;

export const IOSQE_BUFFER_SELECT = 1 << 5;
/** No completion entry when the operation succeeds (5.17). */
export const IOSQE_CQE_SKIP_SUCCESS = 1 << 6;

export const IORING_SETUP_CQSIZE = 1 << 3;
export const IORING_SETUP_CLAMP = 1 << 4;
export const IORING_SETUP_SUBMIT_ALL = 1 << 7;
export const IORING_SETUP_COOP_TASKRUN = 1 << 8;
/** Only one thread submits (6.0): the ring must be created by the thread that uses it. */
export const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
/** Completions are written only inside io_uring_enter of that thread (6.1), so plain loads of the ring suffice. */
export const IORING_SETUP_DEFER_TASKRUN = 1 << 13;

export const IORING_ENTER_GETEVENTS = 1n;
export const IORING_ACCEPT_MULTISHOT = 1;
export const IORING_RECV_MULTISHOT = 1 << 1;
export const IORING_ASYNC_CANCEL_ALL = 1;
export const IORING_ASYNC_CANCEL_FD = 1 << 1;

export const IORING_CQE_F_BUFFER = 1;
export const IORING_CQE_F_MORE = 1 << 1;
export const IORING_CQE_BUFFER_SHIFT = 16;

export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x10000000;

export const IORING_REGISTER_PBUF_RING = 22n;

export const SYS_IO_URING_SETUP = 425n;
export const SYS_IO_URING_ENTER = 426n;
export const SYS_IO_URING_REGISTER = 427n;

/** struct io_uring_sqe, in words. Word 0 is opcode | flags << 8 | ioprio << 16. */
export const SQE_WORDS = 16;
export const SQE_FD = 1;
export const SQE_OFF_LOW = 2;
export const SQE_OFF_HIGH = 3;
export const SQE_ADDR_LOW = 4;
export const SQE_ADDR_HIGH = 5;
export const SQE_LEN = 6;
export const SQE_OP_FLAGS = 7;
export const SQE_USER_DATA_LOW = 8;
export const SQE_USER_DATA_HIGH = 9;
export const SQE_BUF_GROUP = 10;

/** struct io_uring_cqe, in words. */
export const CQE_WORDS = 4;
export const CQE_USER_DATA_LOW = 0;
export const CQE_USER_DATA_HIGH = 1;
export const CQE_RES = 2;
export const CQE_FLAGS = 3;

/** struct io_uring_params, in bytes. */
export const PARAMS_BYTES = 120;
export const PARAMS_SQ_ENTRIES = 0;
export const PARAMS_CQ_ENTRIES = 4;
export const PARAMS_FLAGS = 8;
export const PARAMS_SQ_OFF = 40;
export const PARAMS_CQ_OFF = 80;

/** struct io_sqring_offsets and io_cqring_offsets, in bytes from PARAMS_SQ_OFF and PARAMS_CQ_OFF. */
export const SQ_OFF_HEAD = 0;
export const SQ_OFF_TAIL = 4;
export const SQ_OFF_RING_MASK = 8;
export const SQ_OFF_ARRAY = 24;
export const CQ_OFF_HEAD = 0;
export const CQ_OFF_TAIL = 4;
export const CQ_OFF_RING_MASK = 8;
export const CQ_OFF_CQES = 20;

/** struct io_uring_buf (16 bytes), in words; the ring's tail shares the last 16 bits of entry 0. */
export const BUF_WORDS = 4;
export const BUF_ADDR_LOW = 0;
export const BUF_ADDR_HIGH = 1;
export const BUF_LEN = 2;
export const BUF_BID_HALFWORD = 6;
export const BUF_RING_TAIL_HALFWORD = 7;

export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLRDHUP = 0x2000;
export const MSG_WAITALL = 0x100;
export const MSG_NOSIGNAL = 0x4000;
export const SOCK_CLOEXEC = 0o2000000;
