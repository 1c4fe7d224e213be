//! Programs that every user can run, wherever the checkout is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A program for tests that run it as another user, who may not be able to enter a checkout in
/// /root or below a home directory of mode 0700. In that case it is a copy in a temporary
/// directory; removed on drop.
pub struct Public {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl Public {
    /// The program itself if every user can run it, otherwise a copy.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn new(program: &Path) -> anyhow::Result<Self> {
        let program = std::path::absolute(program)?;
        if program.ancestors().all(|path| others_may(path, 0o1)) && others_may(&program, 0o4) {
            return Ok(Self { path: program, _dir: None });
        }
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(program.file_name().context("a program has a name")?);
        fs::copy(&program, &path).with_context(|| program.display().to_string())?;
        for path in [dir.path(), &path] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { path, _dir: Some(dir) })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the mode of a file or directory grants this bit to other users.
fn others_may(path: &Path, bit: u32) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_a_private_directory_is_copied_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let public = Public::new(&program).unwrap();
        assert_ne!(public.path(), program);
        assert!(public.path().ancestors().all(|path| others_may(path, 0o1)));
        let copy = public.path().to_owned();
        drop(public);
        assert!(!copy.exists(), "the copy still exists");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Public::new(&program).unwrap().path(), program);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).unwrap();
        assert_ne!(Public::new(&program).unwrap().path(), program);
    }
}
