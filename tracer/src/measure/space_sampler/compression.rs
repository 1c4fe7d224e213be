//! Finds the btrfs file that compression saved bytes on.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use tracer_common::BtrfsFile;

use super::handle::Handle;

/// Bytes that compression saved on one volume.
pub struct CompressionSavings<'a> {
    saved: &'a HashMap<BtrfsFile, u64>,
    /// UUID of the volume; `None` if nothing was saved.
    fsid: Option<[u64; 2]>,
}

impl<'a> CompressionSavings<'a> {
    /// Creates the savings of the volume of `root`, an open directory, from all savings.
    pub fn of(saved: &'a HashMap<BtrfsFile, u64>, root: &File) -> Self {
        Self { saved, fsid: if saved.is_empty() { None } else { fsid_of(root) } }
    }

    /// Returns the bytes saved on one file.
    pub fn of_file(&self, handle: &Handle, ino: u64) -> u64 {
        let file =
            self.fsid.zip(handle.subvolume()).map(|(fsid, root)| BtrfsFile { fsid, root, ino });
        file.and_then(|file| self.saved.get(&file)).copied().unwrap_or(0)
    }
}

/// Returns the UUID of a btrfs; `None` for any other filesystem.
fn fsid_of(root: &File) -> Option<[u64; 2]> {
    /// `BTRFS_IOC_FS_INFO` (linux/btrfs.h): `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`.
    const FS_INFO: libc::c_ulong = 0x8400_941f;
    // 1,024 bytes; the UUID is at offset 16.
    let mut info = [0_u64; 128];
    // SAFETY: the buffer has the size that the request encodes.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), FS_INFO as _, info.as_mut_ptr()) };
    (result == 0).then_some([info[2], info[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::space_sampler::handle::MAX_HANDLE_SZ;

    #[test]
    fn a_btrfs_handle_contains_the_subvolume() {
        let mut handle = Handle { bytes: 20, kind: 0x4d, handle: [0; MAX_HANDLE_SZ] };
        handle.handle[..8].copy_from_slice(&257_u64.to_ne_bytes());
        handle.handle[8..16].copy_from_slice(&5_u64.to_ne_bytes());
        assert_eq!(handle.subvolume(), Some(5));
        let file = BtrfsFile { fsid: [1, 2], root: 5, ino: 257 };
        let saved = HashMap::from([(file, 4096), (BtrfsFile { root: 6, ..file }, 1)]);
        let savings = CompressionSavings { saved: &saved, fsid: Some([1, 2]) };
        assert_eq!((savings.of_file(&handle, 257), savings.of_file(&handle, 258)), (4096, 0));
        assert_eq!(CompressionSavings { saved: &saved, fsid: None }.of_file(&handle, 257), 0);
        // FILEID_INO32_GEN, of another filesystem.
        assert_eq!(Handle { kind: 1, ..handle }.subvolume(), None);
    }

    #[test]
    fn other_filesystems_have_no_uuid() {
        assert_eq!(fsid_of(&File::open("/proc").unwrap()), None);
    }
}
