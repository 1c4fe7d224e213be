//! A request to act on a row of a Snapshot: the target, and what to do with it.
//!
//! Pure: a request only describes what a person selected. The action engine plans it, and checks
//! everything again before it acts.

use jiff::Timestamp;

use super::Action;
use crate::sanitize::shell_word;
use crate::snapshot::{GroupKind, Held, Snapshot, Writer};

/// What to do with a target: an action, or undoing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Carry out this action.
    Act(Action),
    /// Undo freeze, throttle and fence.
    Resume,
}

impl Operation {
    /// The name in menus: the action's, as in `filltop stop --how`, or `resume`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Act(action) => action.name(),
            Self::Resume => "resume",
        }
    }
}

/// The process or group that an action would affect.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The process; `None` for a whole group.
    pub pid: Option<u32>,
    /// The process's start time, which distinguishes it from a later process with the same pid.
    pub start_time: Option<Timestamp>,
    /// Name of the process, or of the group.
    pub comm: String,
    /// Command line of the process.
    pub cmdline: Option<String>,
    /// Kind and name of its group.
    pub group: Option<(GroupKind, String)>,
    /// Path of its cgroup, as in /proc/PID/cgroup.
    pub cgroup: Option<String>,
    /// Mount point of the volume on which it grows most; `None` if unknown.
    pub volume: Option<String>,
    /// Whether it was running at the end of the window.
    pub alive: bool,
    /// Number of its processes.
    pub processes: usize,
    /// Growth, bytes per second.
    pub growth_bytes_per_s: f64,
    /// Space of deleted files that is freed when it exits; `None` if unknown.
    pub held_bytes: Option<u64>,
}

impl Target {
    /// The process of a writer's row.
    #[must_use]
    pub fn of_writer(writer: &Writer) -> Self {
        Self {
            pid: Some(writer.pid),
            start_time: Some(writer.start_time),
            comm: writer.comm.clone(),
            cmdline: writer.cmdline.clone(),
            group: writer.group.as_ref().map(|group| (group.kind, group.name.clone())),
            cgroup: writer.group.as_ref().and_then(|group| group.cgroup.clone()),
            volume: Some(writer.volume.clone()),
            alive: writer.alive,
            processes: 1,
            growth_bytes_per_s: writer.growth_bytes_per_s,
            held_bytes: writer.held_bytes,
        }
    }

    /// A process that may not have written: the holder of a deleted file, or a victim.
    #[must_use]
    pub fn of_process(snapshot: &Snapshot, pid: u32, comm: &str, held: Option<&Held>) -> Self {
        match snapshot.writers.iter().find(|writer| writer.pid == pid) {
            Some(writer) => Self::of_writer(writer),
            None => Self {
                pid: Some(pid),
                start_time: None,
                comm: comm.to_owned(),
                cmdline: None,
                group: None,
                cgroup: None,
                volume: held.map(|held| held.volume.clone()),
                alive: true,
                processes: 1,
                growth_bytes_per_s: 0.0,
                held_bytes: held.map(|held| held.bytes),
            },
        }
    }

    /// The target's name as an argument of `filltop stop` and `resume`, not yet quoted.
    #[must_use]
    pub fn argument(&self, operation: Operation) -> String {
        match (&self.pid, &self.group, operation) {
            (Some(pid), _, operation) if operation != Operation::Act(Action::Unit) => {
                pid.to_string()
            }
            // Only its path identifies a cgroup that is not a unit or container. The same holds for
            // a monitor, which has no name of its own.
            (_, Some((GroupKind::Cgroup | GroupKind::Monitor, name)), _) => {
                self.cgroup.as_ref().unwrap_or(name).clone()
            }
            // A container of another runtime may have the same name.
            (_, Some((kind, name)), _) if kind.has_manager() && *kind != GroupKind::Unit => {
                format!("{kind}/{name}")
            }
            (_, Some((_, name)), _) => name.clone(),
            (Some(pid), None, _) => pid.to_string(),
            (None, None, _) => self.comm.clone(),
        }
    }

    /// The shell command that does the same.
    #[must_use]
    pub fn command(&self, operation: Operation) -> String {
        let target = shell_word(&self.argument(operation));
        match operation {
            Operation::Resume => format!("filltop resume {target}"),
            Operation::Act(Action::Fence) => {
                let volume = self.volume.as_deref().unwrap_or_default();
                format!("filltop stop {target} --how fence --volume {}", shell_word(volume))
            }
            Operation::Act(action) => format!("filltop stop {target} --how {}", action.name()),
        }
    }

    /// Why this operation is refused, as far as the Snapshot shows. The action engine checks this
    /// again, and more.
    #[must_use]
    pub fn refusal(&self, operation: Operation) -> Option<&'static str> {
        let kind = self.group.as_ref().map(|(kind, _)| *kind);
        match operation {
            _ if self.pid == Some(1) => Some("PID 1 is never touched"),
            Operation::Act(Action::Unit) if kind == Some(GroupKind::Pod) => {
                Some("Kubernetes would restart it")
            }
            Operation::Act(Action::Unit) if !kind.is_some_and(GroupKind::has_manager) => {
                Some("not part of a systemd unit or container")
            }
            // The unit is stopped, not the process: it may start a new one each time.
            Operation::Act(Action::Unit) => None,
            // A suspended process may not be reported as running.
            Operation::Resume => None,
            _ if !self.alive => Some("already exited"),
            Operation::Act(Action::Fence) if self.volume.is_none() => Some("its volume is unknown"),
            Operation::Act(_) => None,
        }
    }
}

/// An operation that was selected and confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRequest {
    /// The process or group to act on.
    pub target: Target,
    /// What to do with it.
    pub operation: Operation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const FREEZE: Operation = Operation::Act(Action::Freeze);
    const UNIT: Operation = Operation::Act(Action::Unit);

    fn minio() -> Target {
        Target::of_writer(&fixtures::busy().writers[0])
    }

    #[test]
    fn the_command_is_equivalent_to_the_request() {
        assert_eq!(minio().command(FREEZE), "filltop stop 2114 --how freeze");
        assert_eq!(minio().command(UNIT), "filltop stop minio.service --how unit");
        assert_eq!(minio().command(Operation::Resume), "filltop resume 2114");
        let volume = minio().volume.unwrap();
        let fence = format!("filltop stop 2114 --how fence --volume {volume}");
        assert_eq!(minio().command(Operation::Act(Action::Fence)), fence);
        assert_eq!(shell_word("a b'c"), r"'a b'\''c'");
        let jail = Target {
            pid: None,
            group: Some((GroupKind::Cgroup, "jail".to_owned())),
            cgroup: Some("/web/jail".to_owned()),
            ..minio()
        };
        assert_eq!(jail.command(FREEZE), "filltop stop /web/jail --how freeze");
    }

    #[test]
    fn protected_and_exited_processes_are_refused() {
        let busy = fixtures::busy();
        let gone = Target::of_writer(&busy.writers[2]);
        assert_eq!(gone.refusal(Operation::Act(Action::Kill)), Some("already exited"));
        let init = Target::of_writer(&busy.writers[3]);
        assert_eq!(init.refusal(FREEZE), Some("PID 1 is never touched"));
        assert_eq!(gone.refusal(UNIT), None, "its container is still running");
        let ended = Target { alive: false, ..minio() };
        assert_eq!(ended.refusal(UNIT), None, "its unit is still running");
    }

    #[test]
    fn only_groups_with_a_manager_can_be_stopped_as_units() {
        let of = |kind, pid| Target {
            pid,
            group: Some((kind, "web".to_owned())),
            cgroup: Some("/x/web".to_owned()),
            ..minio()
        };
        for kind in GroupKind::ALL {
            let is_refused = of(kind, None).refusal(UNIT).is_some();
            assert_eq!(is_refused, !kind.has_manager(), "{kind}");
        }
        // For a process row, too, the runtime stops the whole container.
        for pid in [None, Some(70)] {
            assert_eq!(of(GroupKind::Docker, pid).argument(UNIT), "docker/web");
        }
        // A monitor may have the name of a container.
        assert_eq!(of(GroupKind::Monitor, None).argument(FREEZE), "/x/web");
    }
}
