//! Calls between their entry and their return. See [`crate::inflight`] for the functions on them.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use tracer_common::ProcFileKey;

/// Calls between their entry and their return probe, direct-mapped by thread and hook. Taking and
/// releasing a cell takes a tenth of the time of an insertion into a hash map and its deletion.
/// 1 MiB.
#[map]
pub static CALLS: Array<CallCell> = Array::with_max_entries(CALL_CELLS, 0);

/// Size of [`CALLS`]: a power of two.
pub const CALL_CELLS: u32 = 16_384;

/// Calls whose cell in [`CALLS`] is used by another thread, and direct I/O between its start and its
/// completion.
#[map]
pub static IN_FLIGHT: LruHashMap<InFlightKey, InFlight> = LruHashMap::with_max_entries(32_768, 0);

/// Key of [`IN_FLIGHT`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlightKey {
    /// Thread (pid_tgid), or address of the kiocb.
    pub id: u64,
    /// The hook: a value of [`hook`].
    pub hook: u64,
}

/// Values of [`InFlightKey::hook`]. They keep nested calls of different functions apart.
pub mod hook {
    /// A filesystem's write_iter.
    pub const WRITE_ITER: u64 = 1;
    /// vfs_write.
    pub const VFS_WRITE: u64 = 2;
    /// do_iter_readv_writev.
    pub const VFS_WRITEV: u64 = 3;
    /// vfs_unlink.
    pub const UNLINK: u64 = 4;
    /// iomap direct I/O, from its submission to its completion.
    pub const DIO: u64 = 5;
    /// iomap direct I/O that completed before its submission returned; `extra` is its result.
    pub const DIO_DONE: u64 = 6;
    /// A change of attributes.
    pub const SETATTR: u64 = 7;
    /// A reflink.
    pub const REMAP: u64 = 8;
    /// A function in which btrfs or xfs changes an inode's space on its own; `object` is the inode.
    pub const SETTLE: u64 = 9;
    /// vfs_fallocate.
    pub const FALLOCATE: u64 = 11;
    /// A part of a write to ext4 whose source page was not in memory; `object` is the inode, `extra` the
    /// part's position in the file, and the key's `generation` the number of bytes that were copied.
    pub const SHORT_COPY: u64 = 12;
    /// A filesystem's fsync, or ext4's tracepoints for it.
    pub const FSYNC: u64 = 32;
    /// A filesystem's create.
    pub const CREATE: u64 = 34;
    /// vfs_mkdir.
    pub const MKDIR: u64 = 35;
    /// vfs_mknod.
    pub const MKNOD: u64 = 36;
    /// vfs_symlink.
    pub const SYMLINK: u64 = 37;
    /// vfs_rmdir.
    pub const RMDIR: u64 = 38;
    /// vfs_link.
    pub const LINK: u64 = 39;
    /// vfs_rename.
    pub const RENAME: u64 = 40;
}

/// One cell of [`CALLS`].
#[repr(C)]
pub struct CallCell {
    /// Thread (pid_tgid) that uses the cell, or 0. A call whose return is not seen keeps its cell until
    /// the same thread uses it again; other threads find it in use until then, and use [`IN_FLIGHT`].
    pub thread: u64,
    /// The hook: a value of [`hook`].
    pub hook: u64,
    /// The call's data.
    pub call: InFlight,
}

/// What the return of a call needs to know of its entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    /// The calling process, and the file.
    pub key: ProcFileKey,
    /// `struct file *` or `struct dentry *`, for the name.
    pub object: u64,
    /// For the hook's own use.
    pub extra: u64,
}
