//! Credentials of the process at the other end of a socket, from the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use rustix::process::geteuid;

use tracer_host::{host_root, noatime};

/// The group whose members may connect.
pub(crate) const GROUP: &str = "filltop";

/// Credentials of a process at the time when it connected (or listened).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Effective user id.
    pub(crate) uid: u32,
    /// Effective group id and the supplementary ones.
    pub(crate) groups: Vec<u32>,
}

impl Peer {
    /// Reads SO_PEERCRED and SO_PEERGROUPS of unix(7).
    ///
    /// # Errors
    /// If the kernel does not return them.
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(&socket)?;
        let mut groups = supplementary(&socket)?;
        groups.push(credentials.gid.as_raw());
        Ok(Self { uid: credentials.uid.as_raw(), groups })
    }

    /// Whether the peer is root or the user that runs this program.
    #[must_use]
    pub(crate) fn is_privileged(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }

    /// Whether the peer may connect: if it is privileged or a member of `group`.
    #[must_use]
    pub(crate) fn may_connect(&self, group: Option<u32>) -> bool {
        self.is_privileged() || group.is_some_and(|group| self.groups.contains(&group))
    }
}

fn supplementary(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let size = libc::socklen_t::try_from(size_of_val(&*groups)).map_err(io::Error::other)?;
        let mut length = size;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of `groups`, and the
        // actual length to `length`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // With ERANGE the kernel returns the needed length; NGROUPS_MAX is 65,536.
        if error.raw_os_error() != Some(libc::ERANGE) || length <= size {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Looks up a group's id in /etc/group; not through the C library, for the reasons given in
/// [`tracer_host::users`].
#[must_use]
pub(crate) fn group_id(name: &str) -> Option<u32> {
    find(&noatime::read(&host_root::path(Path::new("/etc/group"))).ok()?, name)
}

/// Parses group(5): name:password:gid:members.
fn find(groups: &[u8], name: &str) -> Option<u32> {
    String::from_utf8_lossy(groups).lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_ends_of_a_pair_are_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = Peer::of(&a).unwrap();
        assert_eq!(peer.uid, geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
        assert!(peer.may_connect(None));
    }

    #[test]
    fn other_users_need_the_group() {
        let stranger = Peer { uid: u32::MAX - 7, groups: vec![100, 976] };
        assert!(!stranger.may_connect(None));
        assert!(!stranger.may_connect(Some(977)));
        assert!(stranger.may_connect(Some(976)) && !stranger.is_privileged());
    }

    #[test]
    fn a_group_id_is_found_by_name() {
        let groups = b"root:x:0:\nfilltopper:x:5:\nfilltop:x:976:ann,bob\nbad\nfilltop:x:1:\n";
        assert_eq!(find(groups, "filltop"), Some(976));
        assert_eq!(find(groups, "bad"), None);
        assert_eq!(find(b"", "filltop"), None);
    }
}
