//! Where this kernel's overlayfs, which may be a module that is loaded later, keeps an inode's upper file.

use std::path::Path;

use aya::Ebpf;
use aya::maps::Array;

use super::attach::error::HookFailure;
use super::btf::cache::Types;
use super::kernel_version::kernel_at_least;

pub(crate) const MODULE: &str = "overlay";
/// Its own inode.
pub(crate) const STRUCT: &str = "ovl_inode";

/// Does the kernel know overlays now?
pub(crate) fn is_known() -> bool {
    Path::new("/sys/module").join(MODULE).exists()
}

/// Tells the kernel side how to follow an overlay's file to the upper one.
///
/// # Errors
/// If this kernel's layout is not known.
pub(crate) fn install(ebpf: &mut Ebpf, types: &Types) -> Result<(), HookFailure> {
    let at = upper_at(types).ok_or("the layout of its inodes is not known")?;
    let map = ebpf.map_mut("UPPER_AT").ok_or("there is no map for its layout")?;
    let mut map = Array::<_, u32>::try_from(map).map_err(|error| HookFailure::of_call(&error))?;
    map.set(0, at, 0).map_err(|error| HookFailure::of_call(&error))
}

/// How many bytes behind the `struct inode` the pointer to the upper dentry is.
pub(crate) fn upper_at(types: &Types) -> Option<u32> {
    let module = types.module(MODULE);
    let btf = module.as_ref().unwrap_or(&types.kernel);
    let member = |name| btf.member_offset(STRUCT, name);
    match (member("vfs_inode"), member("__upperdentry")) {
        (Some(inode), Some(upper)) => upper.checked_sub(inode),
        // The kernel keeps no types of modules there, but in none of these versions is anything in between.
        _ if !kernel_at_least(5, 11) => types.kernel.size("inode"),
        _ => None,
    }
}
