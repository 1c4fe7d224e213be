//! How completely a volume is traced, and whether so much of its change is missed that its rows are
//! not reliable.

use serde::{Deserialize, Serialize};

use super::Volume;

/// At which level the writes to a volume's files are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// At the filesystem's own functions (fexit or kprobes): covers every way to write, and the
    /// space used.
    Filesystem,
    /// At the filesystem's own tracepoints.
    Tracepoints,
    /// At `vfs_write`: io_uring, libaio and stores through mappings are missed, space is sampled.
    VfsWrite,
    /// At the return of system calls.
    SystemCalls,
}

/// Why a filesystem with functions of its own is not counted there, if that can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// It is a module, and reading the types of modules needs CAP_SYS_ADMIN
    /// (`BPF_BTF_GET_FD_BY_ID`).
    NeedsSysAdmin,
    /// The hooks could not be attached for another reason; see the state of each hook.
    HooksFailed,
}

/// Why the rows of a volume do not show what is filling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlindCause {
    /// The filesystem is a module, and CAP_SYS_ADMIN is missing ([`Gap::NeedsSysAdmin`]).
    NeedsSysAdmin,
    /// The filesystem's hooks could not be attached ([`Gap::HooksFailed`]).
    HooksFailed,
    /// All hooks are attached, yet less than half of the growth is accounted for.
    Unexplained,
}

impl BlindCause {
    /// The word that JSON and metrics use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeedsSysAdmin => "needs_sys_admin",
            Self::HooksFailed => "hooks_failed",
            Self::Unexplained => "unexplained",
        }
    }
}

impl From<Gap> for BlindCause {
    fn from(gap: Gap) -> Self {
        match gap {
            Gap::NeedsSysAdmin => Self::NeedsSysAdmin,
            Gap::HooksFailed => Self::HooksFailed,
        }
    }
}

/// Set for a volume that is being written to while too little of its growth is traced.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Blind {
    /// Why too little is traced.
    pub cause: BlindCause,
    /// Growth of used space that no row accounts for, bytes; 0 if all of it is accounted for.
    pub unexplained_bytes: u64,
    /// Growth of used space, bytes.
    pub grown_bytes: u64,
    /// The time that this covers, seconds.
    pub over_s: f64,
}

impl Blind {
    /// Whether less than half of the growth is accounted for, so that no row may be named a
    /// culprit.
    #[must_use]
    pub const fn hides_most(&self) -> bool {
        self.grown_bytes >= ENOUGH && self.unexplained_bytes > self.grown_bytes / 2
    }
}

/// Growth that is too large for a filesystem's own housekeeping (journals, chunks, preallocation),
/// bytes.
const ENOUGH: u64 = 8 << 20;
/// A volume whose used space changes by at least this many bytes counts as being written to, even
/// if no writes were traced.
const MOVED: u64 = 1 << 20;

/// Whether the used space of a filesystem of this type changes later than its files: at a commit, or
/// when a removed inode is reclaimed in the background (xfs_inodegc).
#[must_use]
pub fn space_is_late(fs_type: &str) -> bool {
    matches!(fs_type, "btrfs" | "xfs" | "f2fs" | "zfs" | "bcachefs")
}

/// The changes of a volume over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpaceChange {
    /// Change of used space, bytes.
    pub used_delta: i64,
    /// Allocated space that was traced, bytes; `None` if space is neither traced nor sampled. Freed
    /// space is not considered, because btrfs and xfs return it later than files are removed.
    pub allocated: Option<u64>,
    /// Written bytes that were traced.
    pub written: u64,
    /// Length of the time, seconds.
    pub over_s: f64,
}

impl SpaceChange {
    /// The changes of a volume over an interval of `over_s` seconds.
    #[must_use]
    pub fn of(volume: &Volume, over_s: f64) -> Self {
        Self {
            used_delta: volume.used_delta_bytes,
            allocated: volume.allocated_bytes,
            written: volume.written_bytes,
            over_s,
        }
    }

    /// The changes over two consecutive times.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self {
            used_delta: self.used_delta.saturating_add(next.used_delta),
            allocated: self.allocated.zip(next.allocated).map(|(a, b)| a.saturating_add(b)),
            written: self.written.saturating_add(next.written),
            over_s: self.over_s + next.over_s,
        }
    }

    /// Returns [`Blind`] if too little of the change is traced, `None` otherwise.
    ///
    /// Only growth counts: untraced freeing cannot hide a process that fills the volume.
    #[must_use]
    pub fn blind(self, gap: Option<Gap>) -> Option<Blind> {
        let grown = u64::try_from(self.used_delta).unwrap_or(0);
        // If space is not known at all, written bytes are the most that can account for growth.
        let unexplained = grown.saturating_sub(self.allocated.unwrap_or(self.written));
        let blind = |cause| Blind {
            cause,
            unexplained_bytes: unexplained,
            grown_bytes: grown,
            over_s: self.over_s,
        };
        let takes_writes = self.written > 0 || self.used_delta.unsigned_abs() >= MOVED;
        match gap {
            Some(gap) if takes_writes => Some(blind(gap.into())),
            _ => self.allocated.map(|_| blind(BlindCause::Unexplained)).filter(Blind::hides_most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn moved(used_delta: i64, allocated: Option<i64>, written: i64) -> SpaceChange {
        let allocated = allocated.map(i64::unsigned_abs);
        SpaceChange { used_delta, allocated, written: written.unsigned_abs(), over_s: 5.0 }
    }

    #[test]
    fn unexplained_growth_is_reported() {
        let none_seen = moved(100 * MIB, Some(0), 0).blind(None).unwrap();
        assert_eq!(none_seen.cause, BlindCause::Unexplained);
        assert_eq!((none_seen.unexplained_bytes, none_seen.grown_bytes), (100 << 20, 100 << 20));
        assert!(none_seen.hides_most());
        assert!(moved(100 * MIB, Some(49 * MIB), 0).blind(None).is_some());
        assert_eq!(moved(100 * MIB, Some(51 * MIB), 0).blind(None), None);
        // More than the volume grew, as with compression.
        assert_eq!(moved(100 * MIB, Some(300 * MIB), 0).blind(None), None);
    }

    #[test]
    fn housekeeping_and_freed_space_are_not_reported() {
        assert_eq!(moved(7 * MIB, Some(0), 0).blind(None), None);
        assert_eq!(moved(-100 * MIB, Some(0), 0).blind(None), None);
        // A network filesystem, which other hosts write to: its space is not known here.
        assert_eq!(moved(100 * MIB, None, 0).blind(None), None);
    }

    #[test]
    fn a_fallback_is_reported_once_the_volume_is_written_to() {
        let gap = Some(Gap::NeedsSysAdmin);
        assert_eq!(moved(0, Some(0), 0).blind(gap), None);
        let blind = moved(0, Some(0), 1).blind(gap).unwrap();
        assert_eq!((blind.cause, blind.hides_most()), (BlindCause::NeedsSysAdmin, false));
        let all = moved(5000 * MIB, Some(100 * MIB), 100 * MIB).blind(gap).unwrap();
        assert!(all.hides_most());
        assert_eq!(all.unexplained_bytes, 4900 << 20);
        assert!(moved(20 * MIB, None, 0).blind(gap).unwrap().hides_most());
    }

    #[test]
    fn consecutive_changes_add_up() {
        let both = moved(5 * MIB, Some(0), 0).and(moved(5 * MIB, Some(MIB), 7));
        assert_eq!(both, SpaceChange { over_s: 10.0, ..moved(10 * MIB, Some(MIB), 7) });
        assert!(both.blind(None).is_some());
    }
}
