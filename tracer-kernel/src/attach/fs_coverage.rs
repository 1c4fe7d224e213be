//! What the attached hooks cover: which filesystems are counted at their own functions, why others
//! are not, and which optional hooks work.

use std::collections::BTreeMap;

use tracer_model::snapshot::{CountedBy, Gap, WriteBackend};

use crate::btf::modules::ModuleBtf;
use crate::coverage::Coverage;
use crate::hooks;

/// What the attached hooks cover.
#[derive(Default)]
pub(crate) struct FsCoverage {
    /// How each known filesystem is counted, by type.
    pub(super) counted: BTreeMap<&'static str, WriteBackend>,
    /// Filesystem types for which another attempt would have the same result as the first.
    pub(super) tried: Vec<&'static str>,
    /// Filesystem types whose space layout is known.
    pub(super) space_traced: Vec<&'static str>,
    /// Whether all other filesystems are counted at vfs_write.
    pub(super) vfs_write: bool,
    /// Whether all other filesystems are counted at the return of system calls.
    pub(super) syscalls: bool,
    /// Whether completions of io_uring requests are counted.
    pub(super) io_uring: bool,
    /// Whether folios that become dirty in a page fault are counted.
    pub(super) mmap_stores: bool,
    /// Whether stores into mappings with MADV_RANDOM or MADV_SEQUENTIAL are missed nevertheless.
    pub(super) misses_advised: bool,
    /// Whether overlays are followed to their upper files; `None` if that was not needed yet.
    pub(super) overlays: Option<bool>,
    /// Whether every rename is reported.
    pub(crate) renames: bool,
    /// Whether fsync is timed on every filesystem.
    pub(crate) fsyncs: bool,
    /// Whether functions are hooked that create inodes; else tracepoints report them.
    pub(crate) creates: bool,
    /// Whether ext4's tracepoints for inodes are attached.
    pub(super) ext4_inodes: bool,
    /// Whether system calls with paths are counted at their return.
    pub(super) path_calls: bool,
}

impl FsCoverage {
    /// Returns the kind of probe that counts most filesystems.
    pub(crate) fn write_backend(&self) -> WriteBackend {
        let by = |backend| self.counted.values().filter(|found| **found == backend).count();
        if self.syscalls {
            WriteBackend::Tracepoint
        } else if by(WriteBackend::Kprobe) > by(WriteBackend::Fentry) {
            WriteBackend::Kprobe
        } else {
            WriteBackend::Fentry
        }
    }

    /// Whether the space of this filesystem type is traced, not only its written bytes.
    pub(crate) fn traces_space(&self, fs_type: &str) -> bool {
        self.space_traced.contains(&fs_type)
            && match self.counted.get(fs_type) {
                Some(WriteBackend::Tracepoint) => fs_type == "ext4",
                Some(WriteBackend::Fentry | WriteBackend::Kprobe) => true,
                None => false,
            }
    }

    /// Whether created and removed inodes are counted on this filesystem type.
    pub(crate) fn traces_inodes(&self, fs_type: &str) -> bool {
        let by_tracepoints =
            if fs_type == "ext4" { self.ext4_inodes } else { self.path_calls && self.syscalls };
        self.creates || by_tracepoints
    }

    /// Returns where writes to filesystems of this type are counted.
    pub(crate) fn counted_by(&self, fs_type: &str) -> Option<CountedBy> {
        match self.counted.get(fs_type) {
            Some(WriteBackend::Fentry | WriteBackend::Kprobe) => Some(CountedBy::Filesystem),
            Some(WriteBackend::Tracepoint) => Some(CountedBy::Tracepoints),
            None if self.vfs_write => Some(CountedBy::VfsWrite),
            None if self.syscalls => Some(CountedBy::SystemCalls),
            None => None,
        }
    }

    /// Returns why a filesystem is not counted at its own functions although they are known and
    /// those of other filesystems are hooked here: a condition that can be fixed.
    pub(crate) fn gap(&self, fs_type: &str) -> Option<Gap> {
        let known = hooks::WRITE_ITERS.iter().any(|fs| fs.fs_type == fs_type);
        // With tracepoints alone, no filesystem's functions can be hooked, whatever is changed.
        let others = self.counted.values().any(|by| *by != WriteBackend::Tracepoint);
        if !known || self.counted.contains_key(fs_type) || !others {
            None
        } else if ModuleBtf::shared().had_admin() {
            Some(Gap::HooksFailed)
        } else {
            Some(Gap::NeedsSysAdmin)
        }
    }

    /// Whether no writes are counted at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.counted.is_empty() && !self.syscalls && !self.vfs_write
    }

    /// Returns what decides about the blind spots.
    pub(crate) fn coverage(&self) -> Coverage {
        Coverage {
            ext4: self.traces_space("ext4"),
            io_uring: self.io_uring,
            mmap_stores: self.mmap_stores,
            misses_advised: self.misses_advised,
            overlays: self.overlays != Some(false),
        }
    }
}
