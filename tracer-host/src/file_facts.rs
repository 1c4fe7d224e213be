//! Looks a path up without waiting for a filesystem that does not answer.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;

/// What is at a path: statx(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Inode number.
    pub ino: u64,
    /// Size, bytes.
    pub size: u64,
    /// Space that it takes, bytes (st_blocks).
    pub space: u64,
    /// When it was created; `None` if the filesystem does not record it.
    pub born: Option<SystemTime>,
}

/// Looks up what is at `path`, in this process's view. A symbolic link at its end is not followed.
///
/// The look-up uses only what the kernel has in memory (RESOLVE_CACHED, Linux 5.12), so it never
/// waits for a server or a disk. Only if `may_wait` is set, a path that is not in memory is looked
/// up the usual way: for filesystems that always answer.
///
/// # Errors
/// `WouldBlock` if it is not in memory, else that of the look-up: `NotFound` if nothing is there.
pub fn look_up(path: &Path, may_wait: bool) -> io::Result<FileFacts> {
    let wanted = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::BLOCKS | StatxFlags::BTIME;
    // An attribute that the kernel knows is recent enough: a server is not asked.
    let flags = AtFlags::STATX_DONT_SYNC;
    let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(CWD, path, open, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => Ok(facts(&statx(file, c"", flags | AtFlags::EMPTY_PATH, wanted)?)),
        // Not in memory, or before Linux 5.12 and 5.6.
        Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS) if may_wait => {
            let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            Ok(facts(&statx(CWD, path, flags, wanted)?))
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

fn facts(stat: &Statx) -> FileFacts {
    let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = u64::try_from(stat.stx_btime.tv_sec)
        .ok()
        .filter(|_| has_birth)
        .map(|seconds| UNIX_EPOCH + Duration::new(seconds, stat.stx_btime.tv_nsec));
    let space = stat.stx_blocks.saturating_mul(512);
    FileFacts { ino: stat.stx_ino, size: stat.stx_size, space, born }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn size_and_number_are_those_of_the_path_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, vec![1; 12_345]).unwrap();
        let facts = look_up(&file, true).unwrap();
        assert_eq!((facts.size, facts.ino), (12_345, fs::metadata(&file).unwrap().ino()));
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(look_up(&link, true).unwrap().ino, fs::symlink_metadata(&link).unwrap().ino());
        let gone = look_up(&dir.path().join("none"), true).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_was_just_written_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "x").unwrap();
        match look_up(&file, false) {
            Ok(facts) => assert_eq!(facts.size, 1),
            // Before Linux 5.12.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}
