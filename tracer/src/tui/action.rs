//! The actions available for a row: the menu's entries, their effects, and why one is refused.
//!
//! Pure: this module only describes actions. `crate::actions` carries them out, and checks again
//! before it does.

use jiff::Timestamp;
use tracer_model::sanitize::{Charset, display_for, shell_word};
use tracer_model::snapshot::{GroupKind, Held, Snapshot, Writer};
use tracer_model::units::Units;

use super::rows::{GroupSum, Item, Rows};

/// An action, named as in `filltop stop --how`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum How {
    /// Suspend the processes: growth stops, nothing is lost, nothing is freed.
    #[default]
    Freeze,
    /// Limit the write rate.
    Throttle,
    /// Make writes to the volume fail.
    Fence,
    /// Send SIGTERM.
    Term,
    /// Send SIGKILL.
    Kill,
    /// Stop the unit or container.
    Unit,
    /// Undo freeze, throttle and fence.
    Resume,
}

impl How {
    /// In menu order: from the action that loses nothing to the one that loses most.
    pub const ALL: [Self; 7] = [
        Self::Freeze,
        Self::Throttle,
        Self::Fence,
        Self::Term,
        Self::Kill,
        Self::Unit,
        Self::Resume,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Throttle => "throttle",
            Self::Fence => "fence",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Unit => "unit",
            Self::Resume => "resume",
        }
    }

    /// The menu entry `by` places further, wrapping around.
    #[must_use]
    pub fn step(self, by: i32) -> Self {
        let at = Self::ALL.iter().position(|&how| how == self).unwrap_or(0);
        Self::ALL[(at as i32 + by).rem_euclid(Self::ALL.len() as i32) as usize]
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
    /// The target of the row under the cursor; `None` if there is nothing to act on.
    #[must_use]
    pub fn of(snapshot: &Snapshot, rows: &Rows, item: Item) -> Option<Self> {
        match item {
            Item::Writer(i) => Some(Self::writer(snapshot.writers.get(i)?)),
            Item::Group(i) => Some(Self::group(snapshot, rows.groups.get(i)?)),
            Item::Held(i) => {
                let held = snapshot.held.get(i)?;
                Some(Self::pid(snapshot, held.pid, &held.comm, Some(held)))
            }
            Item::Victim(i) => {
                let victim = snapshot.victims.get(i)?;
                Some(Self::pid(snapshot, victim.pid, &victim.comm, None))
            }
            Item::File(i) => {
                let pid = *snapshot.paths.get(i)?.writers.first()?;
                let writer = snapshot.writers.iter().find(|writer| writer.pid == pid)?;
                Some(Self::writer(writer))
            }
            Item::Dir(_) => None,
        }
    }

    fn writer(writer: &Writer) -> Self {
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

    fn group(snapshot: &Snapshot, group: &GroupSum) -> Self {
        let writers = group.members.iter().filter_map(|i| snapshot.writers.get(*i));
        let fastest = writers.max_by(|a, b| a.growth_bytes_per_s.total_cmp(&b.growth_bytes_per_s));
        Self {
            pid: None,
            start_time: None,
            comm: group.name.clone(),
            cmdline: None,
            group: group.kind.map(|kind| (kind, group.name.clone())),
            cgroup: group.cgroup.clone(),
            volume: fastest.map(|writer| writer.volume.clone()),
            alive: group.alive > 0,
            processes: group.members.len(),
            growth_bytes_per_s: group.growth_bytes_per_s,
            held_bytes: group.held_bytes,
        }
    }

    fn pid(snapshot: &Snapshot, pid: u32, comm: &str, held: Option<&Held>) -> Self {
        match snapshot.writers.iter().find(|writer| writer.pid == pid) {
            Some(writer) => Self::writer(writer),
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

    /// The target's name on the command line, not yet quoted.
    #[must_use]
    pub fn word(&self, how: How) -> String {
        match (&self.pid, &self.group, how) {
            (Some(pid), _, how) if how != How::Unit => pid.to_string(),
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

    /// The shell command that carries out this action.
    #[must_use]
    pub fn command(&self, how: How) -> String {
        let word = shell_word(&self.word(how));
        match how {
            How::Resume => format!("filltop resume {word}"),
            How::Fence => {
                let volume = self.volume.as_deref().unwrap_or_default();
                format!("filltop stop {word} --how fence --volume {}", shell_word(volume))
            }
            _ => format!("filltop stop {word} --how {}", how.name()),
        }
    }

    /// Why this action is refused, as far as the Snapshot shows. The guard checks this again, and
    /// more.
    #[must_use]
    pub fn refusal(&self, how: How) -> Option<&'static str> {
        let kind = self.group.as_ref().map(|(kind, _)| *kind);
        match how {
            _ if self.pid == Some(1) => Some("PID 1 is never touched"),
            How::Unit if kind == Some(GroupKind::Pod) => Some("Kubernetes would restart it"),
            How::Unit if !kind.is_some_and(GroupKind::has_manager) => {
                Some("not part of a systemd unit or container")
            }
            // The unit is stopped, not the process: it may start a new one each time.
            How::Unit => None,
            // A suspended process may not be reported as running.
            How::Resume => None,
            _ if !self.alive => Some("already exited"),
            How::Fence if self.volume.is_none() => Some("its volume is unknown"),
            How::Fence | How::Throttle | How::Freeze | How::Term | How::Kill => None,
        }
    }

    /// The effect of this action, in words.
    #[must_use]
    pub fn gain(&self, how: How, units: Units) -> String {
        let growth = if self.growth_bytes_per_s > 0.0 {
            format!("stops its growth ({})", units.growth(self.growth_bytes_per_s))
        } else {
            "not growing".to_owned()
        };
        let frees = match self.held_bytes {
            Some(0) => "frees no held space".to_owned(),
            Some(held) => format!("frees {} of held space", units.bytes(held)),
            None => "frees its held space (size unknown)".to_owned(),
        };
        match how {
            How::Freeze => format!("{growth}, frees nothing, can be undone"),
            How::Throttle => "limits its write rate, frees nothing, can be undone".to_owned(),
            How::Fence => {
                "makes its writes to this volume fail, frees nothing, can be undone".to_owned()
            }
            How::Term | How::Kill | How::Unit => format!("{growth}, {frees}"),
            How::Resume => "undoes freeze, throttle and fence".to_owned(),
        }
    }

    /// Label and value of each fact that identifies the target, to be read before confirming.
    #[must_use]
    pub fn facts(&self, charset: Charset) -> Vec<(&'static str, String)> {
        let safe = |text: &str| display_for(text, charset).into_owned();
        let mut facts = vec![];
        match self.pid {
            Some(pid) => facts.push(("pid", format!("{pid} ({})", safe(&self.comm)))),
            None => facts.push(("processes", self.processes.to_string())),
        }
        if self.pid.is_some() {
            let started = self
                .start_time
                .map_or("unknown".to_owned(), |time| time.strftime("%F %T UTC").to_string());
            facts.push(("started", started));
            let command = self.cmdline.as_deref().map_or("unknown".to_owned(), safe);
            facts.push(("command", command));
        }
        let group = self.group.as_ref();
        let group = group
            .map_or("none known".to_owned(), |(kind, name)| format!("{} ({})", safe(name), kind));
        facts.push(("group", group));
        facts
    }
}

/// An action that was selected and confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRequest {
    /// The process or group to act on.
    pub target: Target,
    /// The action.
    pub how: How,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_model::fixtures;

    fn minio() -> Target {
        Target::writer(&fixtures::busy().writers[0])
    }

    #[test]
    fn the_command_is_what_one_types() {
        assert_eq!(minio().command(How::Freeze), "filltop stop 2114 --how freeze");
        assert_eq!(minio().command(How::Unit), "filltop stop minio.service --how unit");
        assert_eq!(minio().command(How::Resume), "filltop resume 2114");
        let volume = minio().volume.unwrap();
        let fence = format!("filltop stop 2114 --how fence --volume {volume}");
        assert_eq!(minio().command(How::Fence), fence);
        assert_eq!(shell_word("a b'c"), r"'a b'\''c'");
        let jail = Target {
            pid: None,
            group: Some((GroupKind::Cgroup, "jail".to_owned())),
            cgroup: Some("/web/jail".to_owned()),
            ..minio()
        };
        assert_eq!(jail.command(How::Freeze), "filltop stop /web/jail --how freeze");
    }

    #[test]
    fn what_must_not_be_hit_is_refused() {
        let busy = fixtures::busy();
        let gone = Target::writer(&busy.writers[2]);
        assert_eq!(gone.refusal(How::Kill), Some("already exited"));
        let init = Target::writer(&busy.writers[3]);
        assert_eq!(init.refusal(How::Freeze), Some("PID 1 is never touched"));
        assert_eq!(gone.refusal(How::Unit), None, "its container is still running");
        let ended = Target { alive: false, ..minio() };
        assert_eq!(ended.refusal(How::Unit), None, "its unit is still running");
    }

    #[test]
    fn a_container_has_a_manager_too() {
        let of = |kind, pid| Target {
            pid,
            group: Some((kind, "web".to_owned())),
            cgroup: Some("/x/web".to_owned()),
            ..minio()
        };
        for kind in GroupKind::ALL {
            let is_refused = of(kind, None).refusal(How::Unit).is_some();
            assert_eq!(is_refused, !kind.has_manager(), "{kind}");
        }
        // For a process row, too, the runtime stops the whole container.
        for pid in [None, Some(70)] {
            assert_eq!(of(GroupKind::Docker, pid).word(How::Unit), "docker/web");
        }
        // A monitor may have the name of a container.
        assert_eq!(of(GroupKind::Monitor, None).word(How::Freeze), "/x/web");
    }

    #[test]
    fn the_menu_goes_round() {
        assert_eq!(How::Freeze.step(-1), How::Resume);
        assert_eq!(How::Resume.step(1), How::Freeze);
    }
}
