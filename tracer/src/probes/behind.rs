//! Where this kernel's overlayfs keeps the files behind its own: it may be a module that is loaded
//! after the start.

use std::path::Path;

use aya::{Ebpf, maps::Array};
use tracer_common::offsets::{OverlayInode, lower_kind};

use super::{btf::KernelBtf, types::Types};

/// The module, where it is one.
const MODULE: &str = "overlay";

const INODE: &str = "ovl_inode";
const ENTRY: &str = "ovl_entry";
const PATH: &str = "ovl_path";

/// Structs that are looked up in BTF, the kernel's own or the module's.
pub(super) const STRUCTS: [&str; 3] = [INODE, ENTRY, PATH];

/// Is it loaded as a module whose types the kernel tells?
pub(super) fn is_module() -> bool {
    Path::new("/sys/kernel/btf").join(MODULE).exists()
}

/// Tells the kernel side, if it is known now. Returns whether it is.
pub(super) fn install(ebpf: &mut Ebpf, types: &Types) -> bool {
    let module = types.module(MODULE);
    let Some(layout) = layout(module.as_ref().unwrap_or(&types.kernel)) else { return false };
    let Some(map) = ebpf.map_mut("BEHIND") else { return false };
    let Ok(mut map) = Array::<_, [u8; size_of::<OverlayInode>()]>::try_from(map) else {
        return false;
    };
    let bytes: [u8; size_of::<OverlayInode>()] = bytemuck::cast(layout);
    map.set(0, bytes, 0).is_ok()
}

fn layout(btf: &KernelBtf) -> Option<OverlayInode> {
    let start = btf.member_offset(INODE, "vfs_inode")?;
    let from_inode = |member| btf.member_offset(INODE, member)?.checked_sub(start);
    let stack = || {
        let in_path = btf.member_offset(PATH, "dentry")?;
        let first = btf.member_offset(ENTRY, "__lowerstack")? + in_path;
        Some((lower_kind::STACK, from_inode("oe")?, first))
    };
    let dentry = || Some((lower_kind::DENTRY, from_inode("lowerpath.dentry")?, 0));
    let inode = || Some((lower_kind::INODE, from_inode("lower")?, 0));
    let lower = stack().or_else(dentry).or_else(inode);
    let (lower_kind, lower, first) = lower.unwrap_or((lower_kind::NONE, 0, 0));
    let upper = from_inode("__upperdentry")?;
    Some(OverlayInode { known: 1, upper, lower_kind, lower, first })
}
