//! Locates the host's files when filltop has its own mount namespace: in a container, or in a unit
//! for which systemd hides and write-protects directories.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tracer_model::remedy::CONTAINER_FLAGS;

/// Path of the host's root directory: `/proc/1/root` in such a namespace. If unset, filltop's own
/// root is the host's.
const ENV_VAR: &str = "FILLTOP_HOST_ROOT";
/// In a container: the name of the machine. Kubernetes sets it through the downward API
/// (`spec.nodeName`).
const NODE_ENV_VAR: &str = "NODE_NAME";
/// Value of [`ENV_VAR`] in the container image and the unit.
const INIT_ROOT: &str = "/proc/1/root";
/// Inode numbers of the initial namespaces: PROC_PID_INIT_INO, PROC_UTS_INIT_INO and
/// PROC_CGROUP_INIT_INO in the kernel's include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const INITIAL_UTS_NAMESPACE: u64 = 0xEFFF_FFFE;
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// Returns the host's root directory.
#[must_use]
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let given = std::env::var_os(ENV_VAR).filter(|given| !given.is_empty());
        given.map_or_else(|| PathBuf::from("/"), PathBuf::from)
    })
}

/// Why the host's files are not accessible.
#[derive(Debug, thiserror::Error)]
pub enum HostRootError {
    /// `/proc/1` is not a process of the host. The eBPF side reports process ids of the initial PID
    /// namespace, so every name would be that of another process.
    #[error(
        "hostPID is missing (--pid=host; in a pod hostPID: true): {ENV_VAR} is {INIT_ROOT}, but this \
         PID namespace is not the machine's initial one, so process 1 is not the host's"
    )]
    HostPid,
    /// The host's root directory cannot be accessed.
    #[error(
        "cannot access {} ({ENV_VAR}), which requires CAP_SYS_PTRACE and no AppArmor profile; {}",
        .root.display(),
        access_advice(in_container())
    )]
    Inaccessible {
        /// Value of [`ENV_VAR`].
        root: PathBuf,
        /// Error of stat(2).
        source: io::Error,
    },
}

fn access_advice(in_container: bool) -> &'static str {
    if in_container { CONTAINER_FLAGS } else { "in a unit, add it to CapabilityBoundingSet=" }
}

/// Checks that the host's root is accessible, so that a host without visible volumes is not
/// mistaken for an idle one.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), HostRootError> {
    let root = root();
    if root == Path::new(INIT_ROOT) && !is_initial_pid_namespace() {
        return Err(HostRootError::HostPid);
    }
    fs::metadata(root)
        .map(drop)
        .map_err(|source| HostRootError::Inaccessible { root: root.to_owned(), source })
}

/// Whether process ids here are the same as those the eBPF side reports.
fn is_initial_pid_namespace() -> bool {
    is_namespace("/proc/self/ns/pid", INITIAL_PID_NAMESPACE)
}

/// Whether /proc shows all processes: not in a PID namespace of its own, and not if /proc is mounted
/// with `hidepid` and the privilege to see the others' is missing.
#[must_use]
pub fn sees_all_processes() -> bool {
    is_initial_pid_namespace() && Path::new("/proc/1").exists()
}

fn is_namespace(link: &str, ino: u64) -> bool {
    fs::metadata(link).is_ok_and(|meta| meta.ino() == ino)
}

/// Whether filltop runs in a container, as far as that changes the advice given: the image sets the
/// host's root, and systemd did not start the program (it sets `INVOCATION_ID`, systemd.exec(5);
/// the shipped unit sets the host's root, too).
#[must_use]
pub fn in_container() -> bool {
    std::env::var_os(ENV_VAR).is_some_and(|given| !given.is_empty())
        && std::env::var_os("INVOCATION_ID").is_none()
}

/// Moves from a container's cgroup namespace to the host's. In its own one, the paths in
/// /proc/PID/cgroup and /proc/PID/mountinfo are relative to the container's cgroup
/// (cgroup_namespaces(7)): other groups would have no names, and no action on them would be
/// possible. Kubernetes and Docker create one for each container on cgroup v2. Affects this thread
/// and those it starts later, so call it before starting any. Requires CAP_SYS_ADMIN; without it,
/// paths stay as they are.
pub fn join_cgroup_namespace() {
    if !in_container() || is_namespace("/proc/self/ns/cgroup", INITIAL_CGROUP_NAMESPACE) {
        return;
    }
    let link = mountinfo_of(root()).with_file_name("ns/cgroup");
    let joined = fs::File::open(&link).and_then(|namespace| {
        let kind = LinkNameSpaceType::ControlGroup;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(kind))?)
    });
    if let Err(error) = joined {
        tracing::debug!(
            "cgroup paths stay relative to this container: {}: {error}",
            link.display()
        );
    }
}

/// Returns the name of the machine, for users and alerts. In a container: the value of [`NODE_ENV_VAR`],
/// otherwise the host's /etc/hostname. Everywhere else, and if the container shares the host's UTS
/// namespace: uname(2).
#[must_use]
pub fn host_name() -> String {
    let shares_name = is_namespace("/proc/self/ns/uts", INITIAL_UTS_NAMESPACE);
    let given = std::env::var(NODE_ENV_VAR).ok();
    let name = in_container().then(|| {
        let file =
            || (!shares_name).then(|| fs::read_to_string(path(Path::new("/etc/hostname"))).ok());
        given.as_deref().and_then(first_word).or_else(|| first_word(&file()??))
    });
    name.flatten()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Returns the name in a text of the format of hostname(5): comments and blank lines are ignored.
fn first_word(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// Converts a path of the host to the path that this process has to use.
#[must_use]
pub fn path(path: &Path) -> PathBuf {
    below(root(), path)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns the path of the host's mountinfo: that of the process whose root directory it is.
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
    fn a_host_name_is_parsed_as_in_hostname_5() {
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
