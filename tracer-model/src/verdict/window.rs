//! The sums of one or several intervals, and windows over them.

use std::collections::BTreeMap;

use crate::snapshot::Resource;

/// Windows at least this long contain the change together with its cause, seconds: btrfs commits
/// every 30 s.
const LATE_S: f64 = 60.0;

/// Identifies a process, or the part of it that writes on behalf of a container, in one ledger.
pub(super) type MemberId = u64;

/// Bytes and inodes.
pub(super) type Amounts = [f64; 2];

pub(super) const fn index(resource: Resource) -> usize {
    match resource {
        Resource::Bytes => 0,
        Resource::Inodes => 1,
    }
}

/// One or several intervals.
#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    pub(super) length_s: f64,
    /// Change of the volume.
    pub(super) change: Amounts,
    /// Net growth by process.
    pub(super) taken: BTreeMap<MemberId, Amounts>,
    /// Net growth of the processes without an entry.
    pub(super) others: Amounts,
    /// Number of processes without an entry.
    pub(super) other_processes: u64,
}

impl Slice {
    pub(super) fn merge(&mut self, other: &Self) {
        self.length_s += other.length_s;
        for at in 0..2 {
            self.change[at] += other.change[at];
            self.others[at] += other.others[at];
        }
        self.other_processes = self.other_processes.max(other.other_processes);
        for (id, amounts) in &other.taken {
            let sum = self.taken.entry(*id).or_default();
            (0..2).for_each(|at| sum[at] += amounts[at]);
        }
    }

    /// The sums of one resource.
    pub(super) fn window(&self, resource: Resource, is_late: bool) -> Window {
        let at = index(resource);
        let mut taken: Vec<(MemberId, f64)> =
            self.taken.iter().map(|(id, net)| (*id, net[at])).collect();
        taken.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Window {
            resource,
            length_s: self.length_s,
            change: self.change[at],
            taken,
            others: self.others[at],
            is_late,
        }
    }
}

/// The sums of one resource over a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// In what it is counted.
    pub(super) resource: Resource,
    /// Length, seconds.
    pub(super) length_s: f64,
    /// Change of the volume.
    pub(super) change: f64,
    /// Net growth of each process, largest first.
    pub(super) taken: Vec<(MemberId, f64)>,
    /// Net growth of all further processes.
    pub(super) others: f64,
    /// Whether the filesystem's used space follows with a delay.
    pub(super) is_late: bool,
}

impl Window {
    /// The part of the change that no process accounts for; negative if they account for more. Where
    /// used space follows with a delay, a short window tells nothing, and space that was freed may
    /// still be counted as used, so only what was taken is subtracted.
    pub(super) fn unattributed(&self) -> f64 {
        if self.is_late && self.length_s < LATE_S {
            return 0.0;
        }
        let counted = |net: f64| if self.is_late { net.max(0.0) } else { net };
        let named: f64 = self.taken.iter().map(|(_, net)| counted(*net)).sum();
        self.change - counted(self.others) - named
    }

    /// The window without this time at its beginning, in which nothing happened.
    pub(super) fn without(self, idle_s: f64) -> Self {
        let length_s = if idle_s < self.length_s { self.length_s - idle_s } else { self.length_s };
        Self { length_s, ..self }
    }

    /// Everything that was taken, including what nobody accounts for. Shares are shares of it. It is
    /// the change of the volume plus what was given back.
    pub(super) fn gains(&self) -> f64 {
        let named: f64 = self.taken.iter().map(|(_, net)| net.max(0.0)).sum();
        named + self.others.max(0.0) + self.unattributed().max(0.0)
    }

    /// The change of the volume, per second.
    pub(super) fn per_s(&self) -> f64 {
        if self.length_s > 0.0 { self.change / self.length_s } else { 0.0 }
    }
}
