//! Names of cgroup v2 directories, sent like those of files: one walk per new cgroup. A container's
//! cgroup may be gone before the daemon could look for it below /sys/fs/cgroup.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use tracer_common::{
    FileKey, Health, RecordKind,
    offsets::Offsets,
    records::{CGROUP_DEV, NAME_MAX, NAME_ROOM, WALK_STEPS, name_flags},
};

use crate::{
    kernel_read::{Kptr, Probed, Read, offset},
    maps::{NAME_SCRATCH, NAMED, health_add},
    names,
};

/// Sends the path of the task's cgroup, unless that was done.
#[inline(always)]
pub fn send_once(task: Kptr) {
    let set = Probed::follow(task, offset!(task_cgroups));
    let cgroup = Probed::follow(set, offset!(cset_dfl));
    let node = Probed::follow(cgroup, offset!(cgroup_kn));
    if !node.is_null() {
        send_walk(node.addr());
    }
}

#[inline(never)]
fn send_walk(node: u64) {
    let Some(record) = NAME_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own map value.
    let record = unsafe { &mut *record };
    let mut node = Kptr::from_addr(node);
    let mut key = node_key(node);
    for _ in 0..WALK_STEPS {
        if NAMED.get_ptr(key).is_some() {
            return;
        }
        let parent = parent_of(node);
        let parent_key = node_key(parent);
        record.header.kind = RecordKind::Name as u32;
        record.file = key;
        record.parent = parent_key;
        record.flags = if parent.is_null() { name_flags::ROOT } else { 0 };
        record.magic = 0;
        let name = Probed::follow(node, offset!(kn_name));
        // SAFETY: the helper writes at most the 256 bytes of the destination and checks the source.
        let len = unsafe {
            bpf_probe_read_kernel_str(
                record.name.as_mut_ptr().cast(),
                NAME_ROOM as u32,
                name.0.cast(),
            )
        };
        // With its NUL; negative where it cannot be read.
        record.header.len =
            if len > 0 { (len as u32).wrapping_sub(1) & NAME_MAX as u32 } else { 0 };
        if !names::send(record) {
            health_add(Health::RingFull, 1);
            return;
        }
        let _ = NAMED.insert(key, 1, 0);
        if parent.is_null() {
            return;
        }
        node = parent;
        key = parent_key;
    }
}

#[inline(always)]
fn node_key(node: Kptr) -> FileKey {
    FileKey { ino: Probed::read(node, offset!(kn_id)), generation: 0, dev: CGROUP_DEV }
}

#[inline(always)]
fn parent_of(node: Kptr) -> Kptr {
    let offset = if offset!(kn_parent) == Offsets::ABSENT {
        offset!(kn_parent_v6_15)
    } else {
        offset!(kn_parent)
    };
    Probed::follow(node, offset)
}
