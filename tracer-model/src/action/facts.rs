//! The facts that a plan is made from: the target, its processes, the files that it has open, and the
//! method for each action.

use serde::{Deserialize, Serialize};

use super::restart::RestartPolicy;
use super::subject_kind::SubjectKind;
use super::{Action, Process};
use crate::snapshot::Group;

/// The target as it was named, and what it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// TARGET as given on the command line.
    #[serde(rename = "asked")]
    pub argument: String,
    /// `process` (alone), `tree`, or a group's kind: `unit`, `docker`, `cgroup`, …
    pub kind: SubjectKind,
    /// The usual name of the target.
    pub name: String,
    /// Path of its cgroup as /proc/PID/cgroup prints it; `None` for processes.
    pub cgroup: Option<String>,
}

/// A file that a process of the target has open or mapped for writing, or has open or mapped although
/// it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Last known path from the host's root.
    pub path: String,
    /// The path that the process itself sees, if it differs (in a container or a chroot).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_in_container: Option<String>,
    /// Contents of the link /proc/PID/fd/FD without ` (deleted)`, if that differs from the host's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Mount point of its volume.
    pub volume: String,
    /// Space that the file occupies, bytes: st_blocks × 512.
    pub bytes: u64,
    /// Whether the file has no name left.
    pub deleted: bool,
    /// A process of the target that has the file open.
    pub pid: u32,
    /// The file descriptor in that process; `None` if the process only has it mapped, or if a
    /// descriptor of it waits in one of the process's UNIX sockets.
    pub fd: Option<i32>,
    /// Processes outside the target that also have the file open or mapped.
    pub others: Vec<u32>,
    /// Whether the kernel itself has it open, too: as a loop device, or as swap space.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kernel: bool,
}

/// The method by which an action would be carried out here, or why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// The action.
    pub how: Action,
    /// The method, e.g. `cgroup v2 freezer /sys/fs/cgroup/web`; otherwise the reason.
    pub by: Result<String, String>,
}

/// The input of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The target.
    pub subject: Subject,
    /// The target's processes.
    pub processes: Vec<Process>,
    /// Files that the target has open.
    pub files: Vec<File>,
    /// The method for every action.
    pub methods: Vec<Method>,
    /// The restart policy; `None` if nothing is known to restart the target.
    pub restart: Option<RestartPolicy>,
    /// What an operator should know before acting, one sentence each.
    pub warnings: Vec<String>,
}

impl File {
    /// Whether `wanted` names this file: by its path on the host, by its path in the container, or as
    /// `NAME:PATH` with the name of the group.
    fn is_called(&self, wanted: &str, group: Option<&Group>) -> bool {
        let inside = self.path_in_container.as_deref();
        let named = |group: &Group| wanted.strip_prefix(&group.name)?.strip_prefix(':');
        self.path == wanted
            || self.link.as_deref() == Some(wanted)
            || inside.is_some_and(|path| path == wanted || group.and_then(named) == Some(path))
    }

    /// Whether the file's space is freed when the target exits.
    pub(super) fn is_freed_with_target(&self) -> bool {
        self.deleted && !self.is_shared()
    }

    /// Whether something outside the target holds it, too.
    pub(super) fn is_shared(&self) -> bool {
        self.kernel || !self.others.is_empty()
    }
}

impl Facts {
    /// Returns the deleted file of the target that `wanted` names.
    ///
    /// # Errors
    /// If there is no such file, if it still has a name, if no descriptor leads to it, or if several
    /// files had that name.
    pub fn named_file(&self, wanted: &str) -> Result<&File, String> {
        let fd = wanted.parse::<i32>().ok();
        let group = |pid| self.processes.iter().find(|process| process.pid == pid)?.group.as_ref();
        let is_meant = |file: &&File| {
            fd.map_or_else(|| file.is_called(wanted, group(file.pid)), |fd| file.fd == Some(fd))
        };
        let found: Vec<&File> = self.files.iter().filter(is_meant).collect();
        match found[..] {
            [] => Err(format!("the target has no such file open: {wanted}")),
            [file] if !file.deleted => {
                Err(format!("{} is not deleted; use truncate(1) on it", file.path))
            }
            [file] if file.fd.is_none() => Err(format!(
                "no process of the target has a descriptor of {} to truncate it through",
                file.path
            )),
            [file] => Ok(file),
            _ => Err(format!(
                "{} open files of the target had the name {wanted}; give the descriptor number",
                found.len()
            )),
        }
    }

    /// Returns the method for an action, or the reason why there is none.
    pub(super) fn method(&self, how: Action) -> Result<String, String> {
        self.methods
            .iter()
            .find(|method| method.how == how)
            .map_or_else(|| Err("not possible here".to_owned()), |method| method.by.clone())
    }
}
