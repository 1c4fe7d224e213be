//! The Unix socket in the file system: one service at a time, accessible to root and the group only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, OFlags, flock};

/// The error if another service has the socket.
#[derive(Debug, thiserror::Error)]
#[error("another `filltop watch` already serves {}", .0.display())]
pub(crate) struct AlreadyServed(PathBuf);

/// A listening socket; its file is removed on drop.
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// The file lock, held for the socket's lifetime.
    _lock: File,
}

impl Socket {
    /// Listens at `path`. A stale socket is replaced; missing directories are created. Members of
    /// `group` may connect; without it, only the user that runs this program and root.
    ///
    /// # Errors
    /// If another service listens there, if the path exists and is not a socket, or a system call
    /// fails.
    pub(crate) fn listen(path: &Path, group: Option<u32>) -> anyhow::Result<Self> {
        let named = || format!("cannot listen at {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
            && !folder.exists()
        {
            DirBuilder::new().mode(0o750).recursive(true).create(folder).with_context(named)?;
            chown_group(folder, group);
        }
        let lock = lock(path)?;
        // With the lock held, this is the only service here, so that an existing socket is stale.
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => {
                fs::remove_file(path).with_context(named)?;
            }
            Ok(_) => bail!("{}: the path exists and is not a socket", named()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(named),
        }
        let listener = UnixListener::bind(path).with_context(named)?;
        // Until here no other user can connect: connecting needs write permission, which bind does
        // not grant under any usual umask, and the server checks the peer anyway.
        let mode = if chown_group(path, group) { 0o660 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode)).with_context(named)?;
        listener.set_nonblocking(true)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Duplicates the descriptor, for the event loop.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two services hold two locks.
        let _ = fs::remove_file(&self.path);
    }
}

/// Gives the file to the group; returns whether that worked.
fn chown_group(path: &Path, group: Option<u32>) -> bool {
    group.is_some_and(|group| match chown(path, None, Some(group)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("cannot give {} to the group filltop: {error}", path.display());
            false
        }
    })
}

/// Takes the lock next to `path`.
///
/// # Errors
/// [`AlreadyServed`] if another service holds it, or if the file cannot be opened.
fn lock(path: &Path) -> anyhow::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(PathBuf::from(name))
        .with_context(|| format!("cannot listen at {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(AlreadyServed(path.to_owned()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_service_at_a_time_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/filltop.sock");
        let socket = Socket::listen(&path, None).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o750));
        UnixStream::connect(&path).unwrap();
        let error = Socket::listen(&path, None).err().unwrap();
        assert!(error.is::<AlreadyServed>(), "{error:#}");
        drop(socket);
        assert!(!path.exists());
        // A stale socket, as left by kill -9.
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _socket = Socket::listen(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn the_group_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("filltop.sock");
        let own = rustix::process::getegid().as_raw();
        let _socket = Socket::listen(&path, Some(own)).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        fs::write(&path, "Dear Sir").unwrap();
        assert!(Socket::listen(&path, None).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"Dear Sir");
    }
}
