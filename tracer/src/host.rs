//! Where the host's files are, for a filltop in a mount namespace of its own: a container, or a unit
//! for which systemd hides and write-protects directories.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context as _;

/// `/proc/1/root` there; not set, the files that the program sees are the host's.
pub const VARIABLE: &str = "FILLTOP_HOST_ROOT";

/// The host's root directory.
#[must_use]
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let given = std::env::var_os(VARIABLE).filter(|given| !given.is_empty());
        given.map_or_else(|| PathBuf::from("/"), PathBuf::from)
    })
}

/// Whether it can be reached, so that nobody takes a host without volumes for a quiet one.
///
/// # Errors
/// With what is missing.
pub fn check() -> anyhow::Result<()> {
    let root = root();
    std::fs::metadata(root).map(drop).with_context(|| {
        format!(
            "cannot look into {} ({VARIABLE}): it takes CAP_SYS_PTRACE, and in a container the host's \
             processes (--pid=host, hostPID) and no AppArmor profile",
            root.display()
        )
    })
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
    fn mounts_of_the_host() {
        let of = |root: &str| mountinfo_of(Path::new(root));
        assert_eq!(of("/"), Path::new("/proc/self/mountinfo"));
        assert_eq!(of("/host"), Path::new("/proc/self/mountinfo"));
        assert_eq!(of("/proc/1/root"), Path::new("/proc/1/mountinfo"));
    }
}
