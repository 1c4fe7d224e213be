//! Names of files that were renamed, where the kernel does not tell of it (tracepoints alone).

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use tracer_common::FileKey;

use super::paths;
use crate::quiet_dir;

/// Entries of a directory that are looked through.
const MAX_ENTRIES: usize = 10_000;

/// The present path of a file that was at `path`: by a descriptor of one of `writers`, else in the
/// same directory (`foo.tmp` → `foo`, `log` → `log.1`). `None` if it is still there or not found.
#[must_use]
pub fn follow(path: &Path, file: &FileKey, writers: &[u32]) -> Option<PathBuf> {
    let is_it = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == file.ino && meta.is_file())
            && generation(path).is_none_or(|found| found == file.generation)
    };
    match fs::symlink_metadata(path) {
        Ok(_) if is_it(path) => return None,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return None,
        _ => {}
    }
    writers.iter().find_map(|pid| paths::from_proc(*pid, file)).filter(|path| is_it(path)).or_else(
        || {
            let mut entries = quiet_dir::entries(path.parent()?).ok()?.take(MAX_ENTRIES);
            let (same, _) = entries.find(|(_, ino)| *ino == file.ino)?;
            Some(same).filter(|path| is_it(path))
        },
    )
}

/// The generation of a file, for its number may be another file's by now (FS_IOC_GETVERSION). `None`
/// where the filesystem does not tell, as tmpfs, which does not use numbers again.
fn generation(path: &Path) -> Option<u32> {
    /// `_IOR('v', 1, long)`, which writes an int.
    const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut version = [0_u32; 2];
    // SAFETY: writes an int, or at most the long that its number speaks of.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION as _, version.as_mut_ptr()) };
    (result == 0).then_some(version[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_file_in_its_directory_and_by_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("foo.tmp"), dir.path().join("foo"));
        let open = fs::File::create(&old).unwrap();
        let ino = open.metadata().unwrap().ino();
        let generation = generation(&old).unwrap_or(0);
        let file = FileKey { ino, generation, dev: 0 };
        assert_eq!(follow(&old, &file, &[]), None);
        fs::rename(&old, &new).unwrap();
        assert_eq!(follow(&old, &file, &[]).as_ref(), Some(&new));
        // An earlier file of the same number is not it.
        let earlier = FileKey { generation: generation.wrapping_add(1), ..file };
        if super::generation(&new).is_some() {
            assert_eq!(follow(&old, &earlier, &[]), None);
        }
        // Another file took its place.
        fs::write(&old, "x").unwrap();
        assert_eq!(follow(&old, &file, &[]).as_ref(), Some(&new));
        let elsewhere = dir.path().join("sub");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&new, elsewhere.join("foo")).unwrap();
        assert_eq!(follow(&old, &file, &[]), None);
        let found = follow(&old, &file, &[std::process::id()]);
        assert_eq!(found, Some(elsewhere.join("foo")));
        fs::remove_file(elsewhere.join("foo")).unwrap();
        assert_eq!(follow(&old, &file, &[std::process::id()]), None);
    }
}
