//! Layout that leads from an inode of this kernel's overlayfs to the file behind it, on the upper
//! layer or on a lower one. overlayfs may be a module that is loaded later.

use aya::Ebpf;
use aya::maps::Array;
use tracer_common::offsets::{OverlayInode, lower_kind};

use super::cache::KernelTypes;
use super::structs::{OVL_ENTRY, OVL_INODE, OVL_PATH};
use crate::kernel_version::kernel_at_least;
use crate::overlay;

/// Passes the layout to the eBPF side if it is known now. Returns whether it is.
pub(crate) fn install(ebpf: &mut Ebpf, types: &KernelTypes) -> bool {
    if !overlay::is_known() {
        return false;
    }
    let Some((layout, map)) = layout(types).zip(ebpf.map_mut("BEHIND")) else { return false };
    let Ok(mut map) = Array::<_, [u8; size_of::<OverlayInode>()]>::try_from(map) else {
        return false;
    };
    let bytes: [u8; size_of::<OverlayInode>()] = bytemuck::cast(layout);
    map.set(0, bytes, 0).is_ok()
}

fn layout(types: &KernelTypes) -> Option<OverlayInode> {
    let upper = overlay::upper_at(types)?;
    let module = types.module(overlay::MODULE);
    let btf = module.as_ref().unwrap_or(&types.kernel);
    let from_inode = |member| {
        let start = btf.member_offset(OVL_INODE, "vfs_inode")?;
        btf.member_offset(OVL_INODE, member)?.checked_sub(start)
    };
    let stack = || {
        let in_path = btf.member_offset(OVL_PATH, "dentry")?;
        let first = btf.member_offset(OVL_ENTRY, "__lowerstack")? + in_path;
        Some((lower_kind::STACK, from_inode("oe")?, first))
    };
    let dentry = || Some((lower_kind::DENTRY, from_inode("lowerpath.dentry")?, 0));
    let inode = || Some((lower_kind::INODE, from_inode("lower")?, 0));
    // Without type information of modules: in these kernel versions it directly follows the upper
    // one.
    let next = || (!kernel_at_least(5, 11)).then_some((lower_kind::INODE, upper + 8, 0));
    let lower = stack().or_else(dentry).or_else(inode).or_else(next);
    let (lower_kind, lower, first) = lower.unwrap_or((lower_kind::NONE, 0, 0));
    Some(OverlayInode { known: 1, upper, lower_kind, lower, first })
}
