//! Reads directories and files without updating their access times (O_NOATIME). An access time
//! update is a write, too, possibly to a full volume.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::io::Errno;

/// Returns the paths and inode numbers of a directory's entries, in no particular order. Entries
/// that cannot be read are left out.
///
/// Without CAP_FOWNER, directories of other users are read the usual way, which updates their
/// access times.
///
/// # Errors
/// If the directory cannot be opened.
pub fn entries(directory: &Path) -> io::Result<impl Iterator<Item = (PathBuf, u64)>> {
    let opened = open_noatime(directory, OFlags::DIRECTORY)?;
    let directory = directory.to_owned();
    Ok(Dir::new(opened)?.flatten().filter_map(move |entry| {
        let name = entry.file_name().to_bytes();
        let is_child = name != b"." && name != b"..";
        is_child.then(|| (directory.join(OsStr::from_bytes(name)), entry.ino()))
    }))
}

/// Reads a whole file. For files of other users see [`entries`].
///
/// # Errors
/// If it cannot be read.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(open_noatime(file, OFlags::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the last `length` bytes of a regular file. A symbolic link is not followed, and a FIFO or a
/// device does not block.
///
/// # Errors
/// If it is not a regular file, or cannot be read.
pub fn tail(file: &Path, length: u64) -> io::Result<Vec<u8>> {
    let file = File::from(open_noatime(file, OFlags::NONBLOCK | OFlags::NOFOLLOW)?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let from = meta.len().saturating_sub(length);
    let mut bytes = vec![0; usize::try_from(meta.len() - from).unwrap_or(0)];
    let read = file.read_at(&mut bytes, from)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn open_noatime(path: &Path, kind: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | kind;
    match open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open(path, flags, Mode::empty()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_end_of_a_file_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (log, link, fifo) =
            (dir.path().join("log"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&log, "0123456789").unwrap();
        assert_eq!(tail(&log, 4).unwrap(), b"6789");
        assert_eq!(tail(&log, 40).unwrap(), b"0123456789");
        std::os::unix::fs::symlink(&log, &link).unwrap();
        assert!(tail(&link, 4).is_err());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(tail(&fifo, 4).is_err(), "and it does not block");
    }

    #[test]
    fn all_entries_are_returned_and_access_times_stay() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for name in ["a", "..b"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        // Older than the last change, so relatime would update it.
        let times = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        File::open(dir.path()).unwrap().set_times(times).unwrap();
        File::open(dir.path().join("a")).unwrap().set_times(times).unwrap();
        assert_eq!(read(&dir.path().join("a")).unwrap(), b"x");
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().atime(), 0);
        let mut found: Vec<_> = entries(dir.path()).unwrap().collect();
        found.sort();
        let expected = ["..b", "a"].map(|name| {
            let path = dir.path().join(name);
            let ino = fs::metadata(&path).unwrap().ino();
            (path, ino)
        });
        assert_eq!(found, expected);
        assert_eq!(fs::metadata(dir.path()).unwrap().atime(), 0);
        assert!(entries(&dir.path().join("none")).is_err());
        assert!(entries(&dir.path().join("a")).is_err());
    }
}
