//! Finds the new names of renamed files if renames are not traced (with tracepoints only).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracer_common::FileKey;

use tracer_host::noatime;
use tracer_host::process::descriptors;

/// Maximum number of directory entries that one call of [`follow`] reads.
const MAX_ENTRIES: usize = 20_000;

/// A file that may have been renamed.
pub struct Candidate<'a> {
    /// Its last known path.
    pub path: &'a Path,
    /// The file itself.
    pub file: FileKey,
    /// Pids of the processes that wrote to it.
    pub writers: &'a [u32],
}

impl Candidate<'_> {
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == self.file.ino && meta.is_file())
            && generation(path).is_none_or(|found| found == self.file.generation)
    }

    /// Whether its path no longer exists or is another file's. A path that cannot be read counts as
    /// unchanged.
    fn is_gone(&self) -> bool {
        match fs::symlink_metadata(self.path) {
            Ok(_) => !self.is_at(self.path),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

/// Returns the new path of each file, in the same order: through a descriptor of one of its
/// writers, else in the same directory (`foo.tmp` → `foo`, `log` → `log.1`). `None` for a file that
/// has not moved or was not found.
///
/// Each process and each directory is read only once, however many files there are.
#[must_use]
pub fn follow(files: &[Candidate<'_>]) -> Vec<Option<PathBuf>> {
    let mut found = vec![None; files.len()];
    let mut by_writer: BTreeMap<u32, FilesByInode> = BTreeMap::new();
    let gone: Vec<usize> = (0..files.len()).filter(|n| files[*n].is_gone()).collect();
    for n in &gone {
        for pid in files[*n].writers {
            by_writer.entry(*pid).or_default().entry(files[*n].file.ino).or_default().push(*n);
        }
    }
    for (pid, by_inode) in by_writer {
        let open = descriptors::paths_by_inode(pid, |ino| by_inode.contains_key(&ino));
        match_paths(files, &by_inode, open, &mut found);
    }
    let mut by_directory: BTreeMap<&Path, FilesByInode> = BTreeMap::new();
    for n in gone.into_iter().filter(|n| found[*n].is_none()) {
        let Some(directory) = files[n].path.parent() else { continue };
        by_directory.entry(directory).or_default().entry(files[n].file.ino).or_default().push(n);
    }
    let mut left = MAX_ENTRIES;
    for (directory, by_inode) in by_directory {
        let Ok(entries) = noatime::entries(directory) else { continue };
        let entries = entries.take(left).inspect(|_| left -= 1);
        match_paths(files, &by_inode, entries.map(|(path, ino)| (ino, path)), &mut found);
    }
    found
}

/// Indices of files, keyed by inode number: files of different generations can share one.
type FilesByInode = HashMap<u64, Vec<usize>>;

/// Sets the first path at which each file really is.
fn match_paths(
    files: &[Candidate<'_>],
    by_inode: &FilesByInode,
    paths: impl Iterator<Item = (u64, PathBuf)>,
    found: &mut [Option<PathBuf>],
) {
    for (ino, path) in paths {
        let with_inode = by_inode.get(&ino).into_iter().flatten();
        for n in with_inode {
            if found[*n].is_none() && files[*n].is_at(&path) {
                found[*n] = Some(path.clone());
            }
        }
    }
}

/// The generation of a file (FS_IOC_GETVERSION), because its inode number may have been reused.
/// `None` if the filesystem has none, such as tmpfs, which does not reuse inode numbers.
fn generation(path: &Path) -> Option<u32> {
    /// `_IOR('v', 1, long)`, although it writes an int.
    const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut version = [0_u32; 2];
    // SAFETY: writes an int, or at most the long that the request number declares.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION as _, version.as_mut_ptr()) };
    (result == 0).then_some(version[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow_one(path: &Path, file: &FileKey, writers: &[u32]) -> Option<PathBuf> {
        follow(&[Candidate { path, file: *file, writers }]).remove(0)
    }

    #[test]
    fn a_renamed_file_is_found_in_its_directory_and_through_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("foo.tmp"), dir.path().join("foo"));
        let open = fs::File::create(&old).unwrap();
        let ino = open.metadata().unwrap().ino();
        let generation = generation(&old).unwrap_or(0);
        let file = FileKey { ino, generation, dev: 0 };
        assert_eq!(follow_one(&old, &file, &[]), None);
        fs::rename(&old, &new).unwrap();
        assert_eq!(follow_one(&old, &file, &[]).as_ref(), Some(&new));
        // An earlier file with the same inode number is not it.
        let earlier = FileKey { generation: generation.wrapping_add(1), ..file };
        if super::generation(&new).is_some() {
            assert_eq!(follow_one(&old, &earlier, &[]), None);
        }
        // Another file took its place.
        fs::write(&old, "x").unwrap();
        assert_eq!(follow_one(&old, &file, &[]).as_ref(), Some(&new));
        let elsewhere = dir.path().join("sub");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&new, elsewhere.join("foo")).unwrap();
        assert_eq!(follow_one(&old, &file, &[]), None);
        let found = follow_one(&old, &file, &[std::process::id()]);
        assert_eq!(found, Some(elsewhere.join("foo")));
        fs::remove_file(elsewhere.join("foo")).unwrap();
        assert_eq!(follow_one(&old, &file, &[std::process::id()]), None);
    }

    #[test]
    fn each_of_many_files_gets_its_own_path() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..50).map(|n| dir.path().join(format!("{n}.tmp"))).collect();
        let key = |path: &Path| {
            fs::write(path, "x").unwrap();
            let ino = fs::metadata(path).unwrap().ino();
            FileKey { ino, generation: generation(path).unwrap_or(0), dev: 0 }
        };
        let keys: Vec<FileKey> = names.iter().map(|path| key(path)).collect();
        let moved = |n: usize| names[n].with_extension("done");
        for n in (0..50).step_by(2) {
            fs::rename(&names[n], moved(n)).unwrap();
        }
        // Removed.
        fs::remove_file(&names[1]).unwrap();
        let files: Vec<Candidate<'_>> = (0..50)
            .map(|n| Candidate { path: &names[n], file: keys[n], writers: &[1, u32::MAX] })
            .collect();
        let expected: Vec<Option<PathBuf>> =
            (0..50).map(|n| (n % 2 == 0).then(|| moved(n))).collect();
        assert_eq!(follow(&files), expected);
    }
}
