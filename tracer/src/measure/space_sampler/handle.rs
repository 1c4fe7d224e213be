//! File handles, which identify a file after a rename and without a name.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A file's handle: `struct file_handle` of name_to_handle_at(2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Handle {
    /// Length of `handle`.
    pub bytes: u32,
    /// The filesystem's kind of handle: `enum fid_type` (linux/exportfs.h).
    pub kind: i32,
    /// Data by which the filesystem finds the file.
    pub handle: [u8; MAX_HANDLE_SZ],
}

/// From linux/fcntl.h.
pub const MAX_HANDLE_SZ: usize = 128;

impl Handle {
    /// Returns the handle of the file that a path leads to.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut handle = Self { bytes: MAX_HANDLE_SZ as u32, kind: 0, handle: [0; MAX_HANDLE_SZ] };
        let mut mount = 0_i32;
        // SAFETY: a NUL-terminated string, and a handle with a buffer of the size it states.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(handle) }
    }

    /// Opens the file, for its metadata only, on the volume of `root`. Requires
    /// CAP_DAC_READ_SEARCH.
    pub fn open(&self, root: &File) -> io::Result<File> {
        let mut handle = *self;
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: a handle as returned by the kernel.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), &raw mut handle, flags)
        };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// Returns the id of the subvolume's tree if this is a btrfs handle: `struct btrfs_fid`
    /// (fs/btrfs/export.h) contains the inode number, the tree's id, and more.
    pub fn subvolume(&self) -> Option<u64> {
        /// From `FILEID_BTRFS_WITHOUT_PARENT` to the two kinds with a parent.
        const KINDS: std::ops::RangeInclusive<i32> = 0x4d..=0x4f;
        let root = self.handle.get(8..16)?.try_into().ok()?;
        (KINDS.contains(&self.kind) && self.bytes >= 20).then(|| u64::from_ne_bytes(root))
    }
}
