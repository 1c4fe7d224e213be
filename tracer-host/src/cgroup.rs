//! Control groups, as far as actions need them: the mounted hierarchies, the processes of a cgroup,
//! and the files that freeze and kill one. Sources: Documentation/admin-guide/cgroup-v2.rst and
//! cgroup-v1/freezer-subsystem.rst.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Access, access};

use crate::mounts::unescape;
use crate::process::threads;

/// The mount points of the cgroup hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 2, alone or alongside version 1.
    pub v2: Option<PathBuf>,
    /// The freezer of version 1.
    pub freezer: Option<PathBuf>,
    /// All hierarchies of version 1, including the freezer: (controllers as /proc/PID/cgroup names
    /// them, path).
    pub v1: Vec<(String, PathBuf)>,
}

/// The freezer of one cgroup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freezer {
    /// `cgroup.freeze` in this directory.
    V2(PathBuf),
    /// `freezer.state` in this directory.
    V1(PathBuf),
}

impl Hierarchies {
    /// Reads the hierarchies from /proc/self/mountinfo.
    #[must_use]
    pub fn read() -> Self {
        // Mount points may be any bytes; those of cgroups are plain.
        let mountinfo = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&mountinfo))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            // A mount of a subtree, as in a container, is not the whole hierarchy.
            let (Some("/"), Some(at)) = (left.next(), left.next()) else { continue };
            let at = unescape(at.as_bytes());
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup2") if found.v2.is_none() => found.v2 = Some(at),
                Some("cgroup") => {
                    let controllers: Vec<&str> =
                        options.split(',').filter(|option| !is_mount_option(option)).collect();
                    if controllers.contains(&"freezer") && found.freezer.is_none() {
                        found.freezer = Some(at.clone());
                    }
                    found.v1.push((controllers.join(","), at));
                }
                _ => {}
            }
        }
        found
    }

    /// Returns the directories of a cgroup path in all hierarchies that have it, version 2 first.
    #[must_use]
    pub fn directories(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        self.v2
            .iter()
            .chain(self.v1.iter().map(|(_, at)| at))
            .map(|at| at.join(relative))
            .filter(|dir| dir.join("cgroup.procs").exists())
            .collect()
    }

    /// Returns the paths of a process's cgroups: in version 2, and in the freezer of version 1.
    #[must_use]
    pub fn of_process(pid: u32) -> (Option<String>, Option<String>) {
        let text = read(pid).unwrap_or_default();
        let (mut v2, mut freezer) = (None, None);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if id == "0" {
                v2 = Some(path.to_owned());
            } else if controllers.split(',').any(|name| name == "freezer") {
                freezer = Some(path.to_owned());
            }
        }
        (v2, freezer)
    }
}

impl Freezer {
    /// Returns the cgroup's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Self::V2(dir) | Self::V1(dir) => dir,
        }
    }

    /// Returns the control file and the word that freezes or thaws the cgroup.
    #[must_use]
    pub fn control_write(&self, freeze: bool) -> (PathBuf, &'static str) {
        match (self, freeze) {
            (Self::V2(dir), true) => (dir.join("cgroup.freeze"), "1"),
            (Self::V2(dir), false) => (dir.join("cgroup.freeze"), "0"),
            (Self::V1(dir), true) => (dir.join("freezer.state"), "FROZEN"),
            (Self::V1(dir), false) => (dir.join("freezer.state"), "THAWED"),
        }
    }

    /// Freezes or thaws the cgroup. Thawing a cgroup that was removed succeeds, because it contained
    /// no process.
    ///
    /// # Errors
    /// System errors of the write.
    pub fn set(&self, freeze: bool) -> io::Result<()> {
        let (file, word) = self.control_write(freeze);
        match fs::write(&file, word) {
            Err(error) if is_removed(&error) && !freeze => Ok(()),
            result => result,
        }
    }

    /// Whether freezing was requested, by filltop or by another program.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.dir().join(name)).unwrap_or_default();
        match self {
            Self::V2(_) => read("cgroup.freeze").trim() == "1",
            Self::V1(_) => read("freezer.state").trim() != "THAWED",
        }
    }

    /// Whether all of its processes are frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.dir().join(name)).unwrap_or_default();
        match self {
            Self::V2(_) => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            Self::V1(_) => read("freezer.state").trim() == "FROZEN",
        }
    }
}

/// Reads /proc/PID/cgroup. Version 1 shows a thread that has exited in the root: another one that runs
/// is asked.
///
/// # Errors
/// If the process does not exist.
pub fn read(pid: u32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{}/cgroup", threads::running(pid)))
}

/// Whether the file is writable. In a container the hierarchy is visible, but often read-only.
#[must_use]
pub fn is_writable(file: &Path) -> bool {
    access(file, Access::WRITE_OK).is_ok()
}

/// Whether the error means that the cgroup was removed, so it contains no process.
#[must_use]
pub fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Returns the processes of a cgroup and of all cgroups below it.
#[must_use]
pub fn processes(dir: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        // The processes of a threaded cgroup are listed in its parent.
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        found.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&dir).into_iter().flatten().flatten();
        waiting.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
        );
    }
    // A process of a foreign pid namespace is listed as 0.
    found.remove(&0);
    found
}

fn is_mount_option(option: &str) -> bool {
    matches!(option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "nsdelegate")
        || option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let text = "\
30 25 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
34 30 0:30 /docker/x /mnt/part rw - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        let found = Hierarchies::parse(text);
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.freezer.as_deref(), Some(Path::new("/sys/fs/cgroup/freezer")));
        let names: Vec<&str> = found.v1.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "freezer", "name=systemd"]);
    }

    #[test]
    fn freezing_writes_a_word_to_the_control_file() {
        let v2 = Freezer::V2("/c/web".into());
        assert_eq!(v2.control_write(true), ("/c/web/cgroup.freeze".into(), "1"));
        let v1 = Freezer::V1("/f/web".into());
        assert_eq!(v1.control_write(false), ("/f/web/freezer.state".into(), "THAWED"));
        assert!(v1.set(false).is_ok(), "no process is left there");
        assert!(v1.set(true).is_err());
    }
}
