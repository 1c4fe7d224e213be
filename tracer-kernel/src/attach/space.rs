//! Hooks that count space in addition to writes, and bytes that no write_iter returns.

use aya::Ebpf;
use tracer_model::snapshot::{HookMethod, WriteBackend};

use super::manager::HookManager;
use crate::hooks;

impl HookManager {
    /// Attaches what counts space, removals, and bytes that no write_iter returns.
    pub(crate) fn attach_space(&mut self, ebpf: &mut Ebpf) {
        for (newer, dentry, older) in hooks::DENTRY_FUNCTIONS {
            let is_newer = self.btf.has(|types| {
                let arguments = types.kernel.arguments(newer.name).unwrap_or_default();
                arguments.get(*dentry).is_none_or(|found| *found == Some("dentry"))
            });
            self.attach_function(ebpf, if is_newer { newer } else { older }, None);
        }
        for function in hooks::SPACE {
            let attached = self.attach_function(ebpf, function, None);
            if function.name == "fault_dirty_shared_page" && !attached {
                self.attach_mmap_stores(ebpf);
            }
        }
        if self.coverage.counted.get("ext4") == Some(&WriteBackend::Tracepoint) {
            for (name, program) in hooks::EXT4_SPACE_TRACEPOINTS {
                let result = self.tracepoint(ebpf, name, program);
                self.log.record_outcome(name, HookMethod::RawTracepoint, result);
            }
        }
        // Also where ext4's writes are counted at the system calls, before 6.6.
        let higher = matches!(
            self.coverage.counted.get("ext4"),
            Some(WriteBackend::Fentry | WriteBackend::Kprobe)
        );
        if self.allows(WriteBackend::Tracepoint) && !higher {
            let (name, program) = hooks::UNLINK_TRACEPOINT;
            let result = self.tracepoint(ebpf, name, program);
            self.log.record_outcome(name, HookMethod::RawTracepoint, result);
        }
    }

    /// Attaches functions of a filesystem other than its write_iter.
    pub(crate) fn attach_fs_space(&mut self, ebpf: &mut Ebpf, fs_type: &str) {
        for (module, function) in hooks::FS_SPACE.iter().filter(|(fs, _)| *fs == fs_type) {
            self.attach_function(ebpf, function, Some(module));
        }
    }
}
