//! Marks filesystems that are counted at their own functions for the eBPF side, so that it does not
//! count the same bytes at vfs_write or the system calls as well.

use aya::Ebpf;
use aya::maps::HashMap as BpfHashMap;
use tracer_common::offsets::counted;
use tracer_model::snapshot::{HookMethod, WriteBackend};

use super::manager::HookManager;
use crate::attach::error::AttachError;
use crate::hooks::WriteIter;
use crate::{hooks, overlay};

impl HookManager {
    /// Marks this filesystem as counted below vfs_write and the system calls.
    pub(crate) fn mark_counted(&mut self, ebpf: &mut Ebpf, fs: &WriteIter, by: WriteBackend) {
        let fs_type = hooks::WRITE_ITERS.iter().find(|known| known.magic == fs.magic);
        self.coverage.counted.extend(fs_type.map(|known| (known.fs_type, by)));
        let how = match by {
            WriteBackend::Tracepoint => counted::SUCCESSES,
            WriteBackend::Fentry | WriteBackend::Kprobe => counted::RESULTS,
        };
        self.set_fs_handling(ebpf, fs.magic, how);
    }

    pub(crate) fn mark_overlay_counted(&mut self, ebpf: &mut Ebpf) {
        let how = if self.coverage.syscalls { counted::SUCCESSES } else { counted::RESULTS };
        self.set_fs_handling(ebpf, hooks::OVERLAY_MAGIC, how);
    }

    /// Where writes are counted above the filesystem, follows writes to an overlay to the upper
    /// file. Attached once, as soon as the kernel supports overlays; overlayfs is a module, often
    /// loaded by the first container.
    pub(crate) fn follow_overlays(&mut self, ebpf: &mut Ebpf) {
        let is_above = self.coverage.vfs_write || self.coverage.syscalls;
        if !is_above || self.coverage.overlays.is_some() || !overlay::is_known() {
            return;
        }
        let types = self.btf.get().map_err(AttachError::from);
        let result = types.and_then(|types| overlay::install(ebpf, types));
        let attached = self.log.record_outcome("overlay", HookMethod::UpperFile, result);
        self.coverage.overlays = Some(attached);
        if attached {
            self.set_fs_handling(ebpf, hooks::OVERLAY_MAGIC, counted::UPPER);
        }
    }

    fn set_fs_handling(&mut self, ebpf: &mut Ebpf, magic: u32, how: u32) {
        let result = ebpf
            .map_mut("COUNTED")
            .ok_or_else(|| "the eBPF object has no such map".to_owned())
            .and_then(|map| BpfHashMap::<_, u32, u32>::try_from(map).map_err(|e| e.to_string()))
            .and_then(|mut map| map.insert(magic, how, 0).map_err(|e| e.to_string()));
        if let Err(error) = result {
            tracing::error!("bytes may be counted twice: map COUNTED: {error}");
        }
    }
}
