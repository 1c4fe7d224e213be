//! Error numbers as functions of the kernel return them: negative (asm-generic/errno.h,
//! linux/errno.h).

/// Interrupted by a signal.
pub const EINTR: i64 = -4;
/// Input/output error.
pub const EIO: i64 = -5;
/// Try again.
pub const EAGAIN: i64 = -11;
/// No space left on the device.
pub const ENOSPC: i64 = -28;
/// Disk quota exceeded.
pub const EDQUOT: i64 = -122;
/// The request was canceled.
pub const ECANCELED: i64 = -125;
/// Restart the system call. The first of the kernel's own codes, which no process ever sees.
pub const ERESTARTSYS: i64 = -512;
/// Queued: the kiocb's completion reports the result.
pub const EIOCBQUEUED: i64 = -529;
