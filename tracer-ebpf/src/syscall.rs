//! System calls of x86-64: numbers (arch/x86/entry/syscalls/syscall_64.tbl), and the code segment that
//! distinguishes 64-bit callers from others.

/// `__USER_CS`: the code segment of 64-bit programs. 32-bit programs have another one, and other
/// numbers for their system calls.
pub const USER_CS: u16 = 0x33;

pub const WRITE: u64 = 1;
pub const OPEN: u64 = 2;
pub const IOCTL: u64 = 16;
pub const PWRITE64: u64 = 18;
pub const WRITEV: u64 = 20;
pub const SENDFILE: u64 = 40;
pub const TRUNCATE: u64 = 76;
pub const FTRUNCATE: u64 = 77;
pub const RENAME: u64 = 82;
pub const MKDIR: u64 = 83;
pub const RMDIR: u64 = 84;
pub const CREAT: u64 = 85;
pub const LINK: u64 = 86;
pub const UNLINK: u64 = 87;
pub const SYMLINK: u64 = 88;
pub const MKNOD: u64 = 133;
pub const OPENAT: u64 = 257;
pub const MKDIRAT: u64 = 258;
pub const MKNODAT: u64 = 259;
pub const UNLINKAT: u64 = 263;
pub const RENAMEAT: u64 = 264;
pub const LINKAT: u64 = 265;
pub const SYMLINKAT: u64 = 266;
pub const SPLICE: u64 = 275;
pub const FALLOCATE: u64 = 285;
pub const PWRITEV: u64 = 296;
pub const RENAMEAT2: u64 = 316;
pub const COPY_FILE_RANGE: u64 = 326;
pub const PWRITEV2: u64 = 328;
pub const OPENAT2: u64 = 437;
