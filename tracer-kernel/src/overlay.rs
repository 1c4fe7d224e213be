//! Layout that leads from an inode of this kernel's overlayfs to its upper file. overlayfs may be a
//! module that is loaded later.

use std::path::Path;

use aya::Ebpf;
use aya::maps::Array;

use crate::attach::error::AttachError;
use crate::btf::cache::KernelTypes;
use crate::btf::structs::OVL_INODE;
use crate::kernel_version::kernel_at_least;

pub(crate) const MODULE: &str = "overlay";

/// Whether overlayfs is loaded now.
pub(crate) fn is_known() -> bool {
    Path::new("/sys/module").join(MODULE).exists()
}

/// Passes the layout that leads from an overlay's file to the upper one to the eBPF side.
///
/// # Errors
/// If this kernel's layout is unknown.
pub(crate) fn install(ebpf: &mut Ebpf, types: &KernelTypes) -> Result<(), AttachError> {
    let at = upper_at(types).ok_or("the layout of struct ovl_inode is unknown")?;
    let map = ebpf.map_mut("UPPER_AT").ok_or("the eBPF object has no map for its layout")?;
    let mut map =
        Array::<_, u32>::try_from(map).map_err(|error| AttachError::from_syscall(&error))?;
    map.set(0, at, 0).map_err(|error| AttachError::from_syscall(&error))
}

/// Returns the offset of the pointer to the upper dentry, in bytes from the `struct inode`.
pub(crate) fn upper_at(types: &KernelTypes) -> Option<u32> {
    let module = types.module(MODULE);
    let btf = module.as_ref().unwrap_or(&types.kernel);
    let member = |name| btf.member_offset(OVL_INODE, name);
    match (member("vfs_inode"), member("__upperdentry")) {
        (Some(inode), Some(upper)) => upper.checked_sub(inode),
        // The kernel has no BTF of modules there, but in these versions the pointer follows the
        // inode directly.
        _ if !kernel_at_least(5, 11) => types.kernel.size("inode"),
        _ => None,
    }
}
