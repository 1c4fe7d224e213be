//! Which volumes are counted at their filesystem's own functions, and why others are not.

use tracer_model::snapshot::{CountedBy, Gap, WriteBackend};

use super::manager::Ladder;
use crate::btf::modules::ModuleTypes;
use crate::hooks;

impl Ladder {
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
        } else if ModuleTypes::of_process().had_admin() {
            Some(Gap::HooksFailed)
        } else {
            Some(Gap::NeedsSysAdmin)
        }
    }
}
