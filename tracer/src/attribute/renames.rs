//! Names of files that were renamed, where the kernel does not tell of it (tracepoints alone).

use std::{
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tracer_common::FileKey;

use super::paths;

/// Entries of a directory that are looked through.
const MAX_ENTRIES: usize = 10_000;

/// The present path of a file that was at `path`: by a descriptor of one of `writers`, else in the
/// same directory (`foo.tmp` → `foo`, `log` → `log.1`). `None` if it is still there or not found.
#[must_use]
pub fn follow(path: &Path, file: &FileKey, writers: &[u32]) -> Option<PathBuf> {
    let is_it = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == file.ino);
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.ino() == file.ino => return None,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return None,
        _ => {}
    }
    writers.iter().find_map(|pid| paths::from_proc(*pid, file)).filter(|path| is_it(path)).or_else(
        || {
            let entries = fs::read_dir(path.parent()?).ok()?;
            let same = entries.flatten().take(MAX_ENTRIES).find(|entry| entry.ino() == file.ino)?;
            Some(same.path()).filter(|path| is_it(path))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_file_in_its_directory_and_by_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("foo.tmp"), dir.path().join("foo"));
        let open = fs::File::create(&old).unwrap();
        let file = FileKey { ino: open.metadata().unwrap().ino(), ..FileKey::default() };
        assert_eq!(follow(&old, &file, &[]), None);
        fs::rename(&old, &new).unwrap();
        assert_eq!(follow(&old, &file, &[]).as_ref(), Some(&new));
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
