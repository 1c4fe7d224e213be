//! Where the host's files are, for a filltop in a mount namespace of its own: a container, or a unit
//! for which systemd hides and write-protects directories.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};
use tracer_model::remedy::CONTAINER_FLAGS;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `/proc/1/root` there; not set, the files that the program sees are the host's.
pub const VARIABLE: &str = "FILLTOP_HOST_ROOT";
/// In a container: the name of the machine. Kubernetes gives it by the downward API (`spec.nodeName`).
pub const NODE: &str = "NODE_NAME";
/// What the image and the unit set [`VARIABLE`] to.
const FIRST_ROOT: &str = "/proc/1/root";
/// Inode numbers of the first namespaces: PROC_PID_INIT_INO, PROC_UTS_INIT_INO and PROC_CGROUP_INIT_INO
/// in the kernel's include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const FIRST_UTS_NAMESPACE: u64 = 0xEFFF_FFFE;
const FIRST_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// The host's root directory.
#[must_use]
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let given = std::env::var_os(VARIABLE).filter(|given| !given.is_empty());
        given.map_or_else(|| PathBuf::from("/"), PathBuf::from)
    })
}

/// Why the host cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum Hidden {
    /// `/proc/1` is no process of the host. What the kernel side tells are process ids of the first PID
    /// namespace, so that every name would be that of another process.
    #[error(
        "hostPID is missing (--pid=host; in a pod hostPID: true): {VARIABLE} is {FIRST_ROOT}, but this \
         PID namespace is not the machine's first one, so that process 1 is not the host's"
    )]
    HostPid,
    /// Its root directory is out of reach.
    #[error(
        "cannot look into {} ({VARIABLE}), which takes CAP_SYS_PTRACE and no AppArmor profile: {}",
        .root.display(),
        how_to_reach(in_container())
    )]
    OutOfReach {
        /// What [`VARIABLE`] says.
        root: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

fn how_to_reach(in_container: bool) -> &'static str {
    if in_container { CONTAINER_FLAGS } else { "a unit needs it in its CapabilityBoundingSet=" }
}

/// Whether it can be reached, so that nobody takes a host without volumes for a quiet one.
///
/// # Errors
/// With what is missing.
pub fn check() -> Result<(), Hidden> {
    let root = root();
    if root == Path::new(FIRST_ROOT) && !is_first_pid_namespace() {
        return Err(Hidden::HostPid);
    }
    fs::metadata(root)
        .map(drop)
        .map_err(|source| Hidden::OutOfReach { root: root.to_owned(), source })
}

/// Whether process ids mean the same here as in the kernel side.
fn is_first_pid_namespace() -> bool {
    is_namespace("/proc/self/ns/pid", FIRST_PID_NAMESPACE)
}

fn is_namespace(link: &str, ino: u64) -> bool {
    fs::metadata(link).is_ok_and(|meta| meta.ino() == ino)
}

/// Whether filltop runs in a container, as far as that changes what to advise: the image says where the
/// host's root is, and it is not systemd that started the program (which sets `INVOCATION_ID`,
/// systemd.exec(5); the shipped unit says where the host's root is, too).
#[must_use]
pub fn in_container() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|given| !given.is_empty())
        && std::env::var_os("INVOCATION_ID").is_none()
}

/// Leaves a container's cgroup namespace for the host's. In its own one the paths in /proc/PID/cgroup and
/// /proc/PID/mountinfo are relative to the container's cgroup (cgroup_namespaces(7)): groups of others
/// would have no names, and nothing could be done to them. Kubernetes and Docker make one for each
/// container where cgroups are of version 2. For this thread and those that it starts; to be called
/// before there are others. It takes CAP_SYS_ADMIN: without that paths stay as they are.
pub fn join_cgroup_namespace() {
    if !in_container() || is_namespace("/proc/self/ns/cgroup", FIRST_CGROUP_NAMESPACE) {
        return;
    }
    let link = mountinfo_of(root()).with_file_name("ns/cgroup");
    let joined = fs::File::open(&link).and_then(|namespace| {
        let kind = LinkNameSpaceType::ControlGroup;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(kind))?)
    });
    if let Err(error) = joined {
        tracing::debug!(
            "cgroups are named as this container sees them: {}: {error}",
            link.display()
        );
    }
}

/// The name of the machine, for people and alerts: in a container what [`NODE`] says, else the host's
/// /etc/hostname; everywhere else, and where a container shares the host's UTS namespace, uname(2)'s.
#[must_use]
pub fn name() -> String {
    let shares_name = is_namespace("/proc/self/ns/uts", FIRST_UTS_NAMESPACE);
    let given = std::env::var(NODE).ok();
    let told = in_container().then(|| {
        let file =
            || (!shares_name).then(|| fs::read_to_string(path(Path::new("/etc/hostname"))).ok());
        given.as_deref().and_then(first_word).or_else(|| first_word(&file()??))
    });
    told.flatten()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The name in a text of the form of hostname(5): comments and blank lines do not count.
fn first_word(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// A path of the host, as this program reaches it.
#[must_use]
pub fn path(path: &Path) -> PathBuf {
    below(root(), path)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The list of the host's mounts: that of the process whose root directory it is.
#[must_use]
pub fn mountinfo() -> PathBuf {
    mountinfo_of(root())
}

fn mountinfo_of(root: &Path) -> PathBuf {
    if root.starts_with("/proc") && root.ends_with("root") {
        root.with_file_name("mountinfo")
    } else {
        PathBuf::from("/proc/self/mountinfo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_host() {
        let reached = |root: &str, path: &str| below(Path::new(root), Path::new(path));
        assert_eq!(reached("/", "/srv/a"), Path::new("/srv/a"));
        assert_eq!(reached("/proc/1/root", "/srv/a"), Path::new("/proc/1/root/srv/a"));
        assert_eq!(reached("/proc/1/root", "/"), Path::new("/proc/1/root"));
    }

    #[test]
    fn a_name_is_read_as_hostname_5_says() {
        let name = |text: &str| first_word(text);
        assert_eq!(name("node-7\n").as_deref(), Some("node-7"));
        assert_eq!(name("# by the installer\n\n  node-7 \nrest").as_deref(), Some("node-7"));
        assert_eq!(name(" \n"), None);
    }

    #[test]
    fn mounts_of_the_host() {
        let of = |root: &str| mountinfo_of(Path::new(root));
        assert_eq!(of("/"), Path::new("/proc/self/mountinfo"));
        assert_eq!(of("/host"), Path::new("/proc/self/mountinfo"));
        assert_eq!(of("/proc/1/root"), Path::new("/proc/1/mountinfo"));
    }
}
