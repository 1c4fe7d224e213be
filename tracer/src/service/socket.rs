//! The socket in the file system: one service at a time, for root and the group alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, OFlags, flock};

/// Another service has the socket.
#[derive(Debug, thiserror::Error)]
#[error("another `filltop watch` serves at {}", .0.display())]
pub struct Taken(PathBuf);

/// A listening socket; its file goes with it.
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Held for as long as the socket is ours.
    _lock: File,
}

impl Socket {
    /// Listens at `path`. What an ended service left there is replaced; its folder is made if it is
    /// missing, with those above it. `group` may connect, else only who runs this program.
    ///
    /// # Errors
    /// If another service listens there, if there is something else than a socket, or what the
    /// kernel says.
    pub fn listen(path: &Path, group: Option<u32>) -> anyhow::Result<Self> {
        let named = || format!("cannot listen at {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
            && !folder.exists()
        {
            DirBuilder::new().mode(0o750).recursive(true).create(folder).with_context(named)?;
            give_to(folder, group);
        }
        let lock = lock(path)?;
        // Whoever has the lock is the only service here, so that a socket that is there is left over.
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => {
                fs::remove_file(path).with_context(named)?;
            }
            Ok(_) => bail!("{}: there is something that is no socket", named()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(named),
        }
        let listener = UnixListener::bind(path).with_context(named)?;
        // Until here nobody else can connect: that needs the right to write, which bind does not
        // give under any usual umask, and the server looks at who connects.
        let mode = if give_to(path, group) { 0o660 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode)).with_context(named)?;
        listener.set_nonblocking(true)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Another descriptor of it, for the event loop.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The lock stays as a file: removing it would let two services hold two locks.
        let _ = fs::remove_file(&self.path);
    }
}

/// `true`: it belongs to the group now.
fn give_to(path: &Path, group: Option<u32>) -> bool {
    group.is_some_and(|group| match chown(path, None, Some(group)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{} stays closed to the group filltop: {error}", path.display());
            false
        }
    })
}

/// # Errors
/// [`Taken`], or what the kernel says.
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
        bail!(Taken(path.to_owned()));
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
    fn one_at_a_time_and_leftovers_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/filltop.sock");
        let socket = Socket::listen(&path, None).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o750));
        UnixStream::connect(&path).unwrap();
        let error = Socket::listen(&path, None).err().unwrap();
        assert!(error.is::<Taken>(), "{error:#}");
        drop(socket);
        assert!(!path.exists());
        // As kill -9 leaves it.
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
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        fs::write(&path, "Dear Sir").unwrap();
        assert!(Socket::listen(&path, None).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"Dear Sir");
    }
}
