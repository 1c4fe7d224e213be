//! Hooks that count space in addition to writes, and bytes that no write_iter returns.

use aya::Ebpf;
use tracer_model::snapshot::WriteBackend;

use super::manager::Ladder;
use crate::hooks;

impl Ladder {
    /// Attaches what counts space, removals, and bytes that no write_iter returns.
    pub(crate) fn attach_space(&mut self, ebpf: &mut Ebpf) {
        for (newer, dentry, older) in hooks::DENTRY_FUNCTIONS {
            let is_newer = self.types().is_ok_and(|types| {
                let arguments = types.kernel.arguments(newer.name).unwrap_or_default();
                arguments.get(*dentry).is_none_or(|found| *found == Some("dentry"))
            });
            self.attach_function(ebpf, if is_newer { newer } else { older }, None);
        }
        for function in hooks::SPACE {
            let holds = self.attach_function(ebpf, function, None);
            if function.name == "fault_dirty_shared_page" && !holds {
                self.attach_stores(ebpf);
            }
        }
        if self.counted.get("ext4") == Some(&WriteBackend::Tracepoint) {
            for (name, program) in hooks::EXT4_SPACE_TRACEPOINTS {
                let result = self.tracepoint(ebpf, name, program);
                self.note(name, "raw_tracepoint", result);
            }
        }
        // Also where ext4's writes are counted at the system calls, before 6.6.
        let higher =
            matches!(self.counted.get("ext4"), Some(WriteBackend::Fentry | WriteBackend::Kprobe));
        if self.allows(WriteBackend::Tracepoint) && !higher {
            let (name, program) = hooks::UNLINK_TRACEPOINT;
            let result = self.tracepoint(ebpf, name, program);
            self.note(name, "raw_tracepoint", result);
        }
    }

    /// Attaches functions of a filesystem other than its write_iter.
    pub(crate) fn attach_fs_space(&mut self, ebpf: &mut Ebpf, fs_type: &str) {
        for (module, function) in hooks::FS_SPACE.iter().filter(|(fs, _)| *fs == fs_type) {
            self.attach_function(ebpf, function, Some(module));
        }
    }
}
